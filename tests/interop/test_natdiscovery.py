"""coturn's discovery client against our relay: it gets each answer from the right address."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import need
from tests.interop.process import free_port, relay


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """A relay on two addresses with two ports."""
    first, second = free_port(), free_port("127.0.0.2")
    with relay(
        tmp_path_factory.mktemp("relay"),
        listen=[f"127.0.0.1:{first}"],
        nat_discovery=[f"127.0.0.1:{first}", f"127.0.0.2:{second}"],
    ):
        yield first, second


def discover(port: int, *arguments: str) -> str:
    """What the client prints."""
    command = [need("turnutils_natdiscovery"), *arguments, "-L", "127.0.0.1", "-p", str(port)]
    done = subprocess.run(
        [*command, "127.0.0.1"], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout + done.stderr


def origins(output: str) -> list[str]:
    """Where each response came from, in order."""
    parts = output.split("RFC 5780 response")[1:]
    return [re.findall(r"Response origin: : (\S+)", part)[0] for part in parts]


@pytest.mark.parametrize("padding", [[], ["-P"]])
def test_mapping(ports: tuple[int, int], padding: list[str]) -> None:
    output = discover(ports[0], "-m", *padding)
    assert "NAT with Endpoint Independent Mapping!" in output
    assert origins(output) == [f"127.0.0.1:{ports[0]}", f"127.0.0.2:{ports[0]}"]
    assert "Not received" not in output


@pytest.mark.parametrize("padding", [[], ["-P"]])
def test_filtering(ports: tuple[int, int], padding: list[str]) -> None:
    output = discover(ports[0], "-f", *padding)
    assert "NAT with Endpoint Independent Filtering!" in output
    assert origins(output) == [f"127.0.0.1:{ports[0]}", f"127.0.0.2:{ports[1]}"]


def test_hairpinning(ports: tuple[int, int]) -> None:
    assert "successful hairpinning" in discover(ports[0], "-H")


def test_collision(ports: tuple[int, int]) -> None:
    output = discover(ports[0], "-c", "-A", "127.0.0.3")
    assert len(origins(output)) == 2
    assert "127.0.0.3:" in output
