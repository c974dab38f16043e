"""The guides: every block is run, every link leads somewhere, every name is one that exists."""

import asyncio
import base64
import inspect
import json
import os
import re
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.load import load
from config.schema import Settings
from config.webhooks.post import REFUSALS, sign
from signaling import auth
from signaling.auth import Tokens
from signaling.client import Client
from tests.conftest import need, need_root
from tests.guides.guide import (
    GUIDES,
    ROOT,
    SECRET,
    Block,
    blocks,
    headings,
    kinds,
    links,
    with_secrets,
)
from tests.guides.reference import PAGES
from tests.guides.stand import Stand, stand
from tests.interop.process import free_port, running
from tests.namespaces import inside, namespaces, run
from tests.patience import PATIENCE

TRIED = {"sh", "toml", "nginx", "haproxy", "nft", "promql", "js", "python", "json"}


@pytest.fixture(scope="module", name="machine")
def machine_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """One machine for all; the guides leave it as it was."""
    with stand(tmp_path_factory.mktemp("machine")) as made:
        yield made


def test_every_kind_of_block_is_tried():
    assert kinds() <= TRIED


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_a_shell_does_what_it_says(machine: Stand, block: Block):
    for program in ("curl", "jq", "openssl", "ss"):
        need(program)
    if block.text.startswith("#!"):
        (machine.folder / "script").write_text(machine.here(block.text))
        done = machine.run(f"sh {machine.folder}/script")
    else:
        done = machine.run(block.text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout or done.stderr or "systemctl reload" in block.text or ">" in block.text
    if "systemctl reload" in block.text:
        machine.wait_for_log("configuration reloaded")
    if "-X POST" in block.text:  # its guide takes it back a block later; here each stands alone
        machine.run(
            'curl -fsS -X DELETE -H "Authorization: Bearer $TOKEN" http://127.0.0.1:9641/api/v1/drain'
        )


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_a_configuration_is_good(machine: Stand, tmp_path: Path, block: Block):
    file = tmp_path / "icebroker.toml"
    file.write_text(machine.here(with_secrets(block.text)))
    services = [name for name in ("turn", "signaling") if f"[{name}]" in block.text]
    load(file, environment={}, services=services)


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_what_is_json_is_json(block: Block):
    assert isinstance(json.loads(block.text), dict)


@pytest.mark.parametrize("block", blocks("promql"), ids=str)
def test_a_query_is_one_that_prometheus_takes(tmp_path: Path, block: Block):
    rules = tmp_path / "rules.yml"
    rule = {"record": "guide", "expr": block.text}
    rules.write_text(yaml.safe_dump({"groups": [{"name": "guide", "rules": [rule]}]}))
    done = subprocess.run(
        [need("promtool"), "check", "rules", rules], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", blocks("haproxy"), ids=str)
def test_haproxy_takes_its_block(tmp_path: Path, block: Block):
    file = tmp_path / "haproxy.cfg"
    file.write_text(block.text)
    done = subprocess.run(
        [need("haproxy"), "-c", "-f", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


SIGNS = [
    block
    for block in blocks("js") + blocks("python")
    if "function joinToken" in block.text or "def join_token" in block.text
]
"""What a back end runs; the other lines of JavaScript are a page's."""


@pytest.mark.parametrize("block", [block for block in blocks("js") if block not in SIGNS], ids=str)
def test_a_page_can_read_its_lines(block: Block):
    done = subprocess.run(
        [need("node"), "--check", "-"],
        input=block.text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", SIGNS, ids=lambda block: block.kind)
def test_a_back_end_signs_a_token_that_opens_its_room(block: Block):
    call = {
        "js": 'console.log(joinToken("demo", { id: "user-7", name: "Ada Zoë" }))',
        "python": 'print(join_token("demo", "user-7", "Ada Zoë"))',
    }
    command = {"js": [need("node"), "-e"], "python": [sys.executable, "-c"]}[block.kind]
    done = subprocess.run(
        [*command, f"{block.text}\n{call[block.kind]}"],
        env={**os.environ, "TOKEN_SECRET": SECRET}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    claims = Tokens([SECRET]).check(done.stdout.strip(), time.time())
    assert (claims.room, claims.subject, claims.name) == ("demo", "user-7", "Ada Zoë")


def test_a_back_end_answers_what_the_relay_asks_and_tells(monkeypatch: pytest.MonkeyPatch):
    secret = "whsec_" + base64.b64encode(SECRET.encode()).decode()
    monkeypatch.setenv("WEBHOOK_SECRET", secret)
    (block,) = [block for block in blocks("python") if block.guide == "webhooks"]
    back_end: dict[str, Any] = {}
    exec(block.text, back_end)
    now = int(time.time())

    def answer(kind: str, key: bytes = SECRET.encode(), **data: str) -> tuple[int, dict[str, str]]:
        body = json.dumps({"type": kind, "data": data}).encode()
        headers = {
            "webhook-id": "1",
            "webhook-timestamp": str(now),
            "webhook-signature": sign(key, "1", now, body),
        }
        said: tuple[int, dict[str, str]] = back_end["answer"](headers, body)
        return said

    (known, said), (unknown, _) = answer("user", user="ada"), answer("user", user="eve")
    assert known == 200
    assert said["password"]
    assert unknown in REFUSALS
    assert answer("allocation.closed", user="ada")[0] == 200
    assert answer("user", b"another key", user="ada")[0] not in REFUSALS


def test_the_guide_knows_every_claim():
    text = (ROOT / "deploy/docs/integrate.md").read_text()
    read = set(
        re.findall(r'(?:_claim\(payload|"require": \[)[, ]*"(\w+)"', inspect.getsource(auth))
    )
    assert len(read) >= 8
    assert read == set(re.findall(r"(?m)^\| `(\w+)` \| (?:required)? ?\| ", text))


@pytest.mark.parametrize("block", blocks("nft"), ids=str)
def test_nftables_takes_its_block(tmp_path: Path, block: Block):
    need_root("a network namespace")
    need("nft")
    name = f"ib-{tmp_path.name}"[:24]
    with namespaces([name]), inside(name):
        run("nft", "-f", "-", given=block.text)


@pytest.mark.parametrize("block", blocks("nginx"), ids=str)
def test_people_meet_through_nginx(machine: Stand, tmp_path: Path, block: Block):
    port = free_port()
    server = machine.here(block.text).replace("listen 443", f"listen 127.0.0.1:{port}")
    paths = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = tmp_path / "nginx.conf"
    file.write_text(
        f"daemon off;\npid {tmp_path}/pid;\nerror_log {tmp_path}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}{server}}}\n"
    )
    trust = ssl.create_default_context(cafile=str(machine.folder / "certificate.pem"))
    token = machine.run("icebroker token demo -c /etc/icebroker/icebroker.toml").stdout.strip()
    with running(need("nginx"), "-p", str(tmp_path), "-c", str(file)):
        page = wait_for(f"https://127.0.0.1:{port}/", trust)
        assert "Icebroker" in page
        asyncio.run(meet(f"wss://127.0.0.1:{port}/ws", token, trust))


async def meet(url: str, token: str, trust: ssl.SSLContext) -> None:
    async with (
        Client(url, token=token, name="Anna", ssl=trust) as anna,
        Client(url, token=token, name="Bo", ssl=trust) as bo,
    ):
        await anna.join("demo")
        (other,) = (await bo.join("demo"))["peers"]
        assert await bo.message("hello", to=other["id"]) == "delivered"


def wait_for(url: str, trust: ssl.SSLContext) -> str:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, context=trust, timeout=PATIENCE) as page:
                return str(page.read().decode())
        except urllib.error.URLError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_websocket_that_a_proxy_spoils_is_answered_as_the_guide_says(machine: Stand):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{machine.signaling}/ws")
    assert refused.value.code in {400, 426}
    refused.value.close()


# Names and links -----------------------------------------------------------------------------


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "deploy/README.md", *GUIDES], ids=str)
def test_every_link_leads_somewhere(page: Path):
    for file, heading in links(page):
        assert file.exists(), file
        if heading:
            assert heading in headings(file), f"{file}#{heading}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_every_name_exists(guide: Path):
    text = guide.read_text("utf-8")
    known = (PAGES / "metrics.md").read_text()
    for name in set(re.findall(r"\b(?:icebroker|process)_[a-z_]+\b", text)):
        is_credential = name.startswith("icebroker_turn__")
        assert is_credential or f"`{name}`" in known, name
    sections = {name: type(getattr(Settings(), name)) for name in Settings.model_fields}
    files = {"secret", "toml"}  # icebroker.toml, turn.secret as a file
    for section, key in set(re.findall(r"`(turn|signaling|redis|admin|log)\.(\w+)`", text)):
        assert key in sections[section].model_fields or key in files, f"{section}.{key}"


def test_every_guide_is_in_the_list():
    listed = {file.resolve() for file, _ in links(ROOT / "deploy/docs/README.md")}
    assert {page for page in (*GUIDES, *PAGES.glob("*.md")) if page.name != "README.md"} <= listed
    assert (ROOT / "deploy/docs/README.md") in {
        file.resolve() for file, _ in links(ROOT / "README.md")
    }


WORDS = (
    "configuration reloaded",
    "configuration refused; the one in use stays",
    "the credential has expired",
    "the password is not the user's, or",
    "an operator has revoked the user",
    "pages of this origin may not connect",
    "its port is closed from outside",
)
"""What the guides have the service say."""


@pytest.mark.parametrize("words", WORDS)
def test_the_service_speaks_as_the_guides_say(words: str):
    sources = [
        ROOT / "icebroker.py",
        *ROOT.glob("cli/*.py"),
        *(ROOT / "turn").rglob("*.py"),
        *ROOT.glob("signaling/*.py"),
    ]
    assert any(words in _without_breaks(file) for file in sources)
    assert any(words in _without_breaks(guide) for guide in GUIDES)


def _without_breaks(file: Path) -> str:
    """The text, with strings and sentences that go on in the next line made whole."""
    return re.sub(r'"?\n\s*f?"?', " ", file.read_text("utf-8")).replace("  ", " ")


def test_every_alert_that_is_named_exists():
    alerts = (ROOT / "deploy/prometheus/alerts.yml").read_text()
    for guide in GUIDES:
        for name in re.findall(r"`(Icebroker[A-Z]\w+)`", guide.read_text("utf-8")):
            assert f"alert: {name}\n" in alerts
