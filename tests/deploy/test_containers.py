"""The image and the compose file, as far as they can be tried without a container engine."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.load import load
from tests.conftest import need
from tests.certificates import certificate

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()


def steps(stage: str) -> list[list[str]]:
    """The instructions of a stage, in words."""
    joined = stage.replace("\\\n", " ")
    return [line.split() for line in joined.splitlines() if line and not line.startswith("#")]


BUILD, FINAL = (steps("FROM" + stage) for stage in DOCKERFILE.split("\nFROM")[1:])


def copied() -> set[str]:
    """What the build takes from the repository."""
    return {name for step in BUILD if step[0] == "COPY" for name in step[1:-1]}


def test_the_image_takes_all_that_the_package_is_made_of_and_nothing_else():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    package = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"])
    described = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert copied() == package | described
    for name in copied():
        assert (ROOT / name).exists()


def test_what_docker_is_sent_is_what_it_takes():
    """A checkout holds secrets, histories and environments: they stay at home."""
    ignored, *taken = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored == "*"
    assert {line[1:] for line in taken if line.startswith("!")} == copied()


def test_the_image_runs_as_nobody_in_particular():
    users = [step[1] for step in FINAL if step[0] == "USER"]
    assert users == ["10001:10001"]
    last_root = max(number for number, step in enumerate(FINAL) if step[0] == "RUN")
    assert FINAL.index(["USER", *users]) > last_root
    assert json.loads(" ".join(next(s for s in FINAL if s[0] == "ENTRYPOINT")[1:])) == ["icebroker"]


def test_the_image_has_what_decides_compiled():
    (built,) = [step for step in BUILD if step[0] == "RUN" and "pip" in " ".join(step)]
    assert "HATCH_BUILD_HOOK_ENABLE_MYPYC=1" in built


@pytest.fixture
def compose() -> dict[str, Any]:
    """The compose file as compose reads it."""
    return composed("compose.yaml")


def composed(*names: str) -> dict[str, Any]:
    """Some of the compose files together, as compose reads them."""
    files = [argument for name in names for argument in ("-f", str(ROOT / "deploy" / name))]
    command = [need("docker-compose"), *files, "config"]
    done = subprocess.run(
        command,
        env={**os.environ, "ICEBROKER_HOSTNAME": "rtc.example.org"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def test_compose_takes_the_file(compose: dict[str, Any]):
    assert set(compose["services"]) == {"icebroker", "redis", "prometheus", "grafana"}
    for service in compose["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_compose_asks_for_the_name_that_clients_are_told():
    command = [need("docker-compose"), "-f", str(ROOT / "deploy/compose.yaml"), "config"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ICEBROKER_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ICEBROKER_HOSTNAME" in done.stderr


def test_the_composed_service_starts_with_settings_that_are_good(
    compose: dict[str, Any], tmp_path: Path
):
    service = compose["services"]["icebroker"]
    environment = dict(service["environment"])
    for name, value in environment.items():
        if name.endswith("_FILE"):
            given = [secret["source"] for secret in service["secrets"]]
            assert Path(value).parent == Path("/run/secrets")
            assert Path(value).name in given
            (tmp_path / "secret").write_text("a secret that is long enough")
            environment[name] = str(tmp_path / "secret")
    settings = load(None, environment, services=("turn", "signaling"))
    grace = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", service["stop_grace_period"])
    assert grace
    seconds = 60 * int(grace[1] or 0) + int(grace[2] or 0)
    assert seconds > max(settings.turn.drain_timeout, settings.signaling.drain_timeout)
    assert settings.admin.token
    check = " ".join(service["healthcheck"]["test"])
    assert f"http://{settings.admin.listen[0]}/readyz" in check


def test_tls_comes_with_a_second_file(tmp_path: Path):
    service = composed("compose.yaml", "compose.tls.yaml")["services"]["icebroker"]
    given = {secret["source"] for secret in service["secrets"]}
    pem, key = certificate(tmp_path, "rtc.example.org")
    files = {"TLS_CERTIFICATE": str(pem), "TLS_KEY": str(key)}
    environment = dict(service["environment"])
    for name, file in files.items():
        asked = Path(environment[f"ICEBROKER_TURN__{name}"])
        assert (asked.parent, asked.name in given) == (Path("/run/secrets"), True)
        environment[f"ICEBROKER_TURN__{name}"] = file
    (tmp_path / "secret").write_text("a secret that is long enough")
    for name in environment:
        if name.endswith("_FILE"):
            environment[name] = str(tmp_path / "secret")
    settings = load(None, environment, services=("turn", "signaling"))
    assert [place.port for place in settings.turn.listen_tls] == [5349, 5349]
    assert {"turn_secret", "token_secret", "admin_token"} < given


def test_what_is_mounted_is_there(compose: dict[str, Any]):
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if "/" in source:
                assert Path(source).exists(), f"{name}: {source}"


def test_the_kernel_program_comes_with_a_third_file(compose: dict[str, Any]):
    services = composed("compose.yaml", "compose.kernel.yaml")["services"]
    loader, relay = services["icebroker-kernel"], services["icebroker"]
    unit = (ROOT / "deploy/systemd/icebroker-kernel.service").read_text()
    (rights,) = re.findall(r"^CapabilityBoundingSet=(.+)", unit, re.MULTILINE)
    assert {f"CAP_{name}" for name in loader["cap_add"]} == set(rights.split())
    user = next(step[1] for step in FINAL if step[0] == "USER").partition(":")[0]
    assert loader["command"] == ["kernel", "--lend-to", user]
    # Of what compose.yaml says for safety the relay keeps all; the right is for its seccomp profile.
    assert "user" not in relay
    assert relay["cap_add"] == ["BPF"]
    for key in ("cap_drop", "security_opt", "read_only", "network_mode", "command"):
        assert relay[key] == compose["services"]["icebroker"][key]
    name = "ICEBROKER_TURN__STATE_DIRECTORY"
    settings = load(None, {name: relay["environment"][name]})
    mounted = dict(volume.split(":")[1::-1] for volume in map(_short, relay["volumes"]))
    assert mounted[settings.turn.state_directory] == "state"
    assert mounted[str(Path(settings.turn.kernel_directory).parent)] == "/run/icebroker"
    assert set(mounted) == {_short(volume).split(":")[1] for volume in loader["volumes"]}


def _short(volume: Any) -> str:
    """A volume as ``source:target``, in whichever form compose gives it."""
    return f"{volume['source']}:{volume['target']}" if isinstance(volume, dict) else volume
