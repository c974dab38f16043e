"""Revocations outlive the relay that was told of them, where no Redis tells it again."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.turn.live import UDP, Client, port_of, settings
from tests.turn.workers.live import LOGS
from turn.codec import registry
from turn.codec.registry import Method
from turn.common import alone
from turn.revoked import SPARE_LINES, RevokedFile
from turn.server import TurnService
from turn.workers.pool import WorkerPool

NOW = 1_800_000_000.0


def again(file: Path, now: float = NOW) -> dict[str, tuple[float, float]]:
    """What the next process knows."""
    return RevokedFile(file, lambda: now).open()


@pytest.fixture(name="file")
def file_fixture(tmp_path: Path) -> Path:
    return tmp_path / "state" / "revoked"


def test_what_holds_still_holds_and_nothing_else(file: Path):
    record = RevokedFile(file, lambda: NOW)
    assert record.open() == {}
    record.put("anna", NOW + 100, 0)
    record.put("bert", NOW + 100, 0)
    record.put("carl", 0, NOW + 50)
    record.put("bert", 0, 0)
    assert again(file) == {"anna": (NOW + 100, 0), "carl": (0, NOW + 50)}
    assert again(file, NOW + 60) == {"anna": (NOW + 100, 0)}
    assert again(file, NOW + 100) == {}


def test_a_line_that_was_being_written_costs_no_other(file: Path):
    RevokedFile(file).put("anna", NOW + 100, 0)
    with file.open("ab") as opened:
        opened.write(b'["bert", 18000')
    record = RevokedFile(file, lambda: NOW)
    assert record.open() == {"anna": (NOW + 100, 0)}
    record.put("carl", NOW + 100, 0)
    assert again(file) == {"anna": (NOW + 100, 0), "carl": (NOW + 100, 0)}


def test_what_cannot_be_read_is_told_and_costs_nothing_else(file: Path):
    record = RevokedFile(file)
    record.put("anna", NOW + 100, 0)
    with file.open("ab") as opened:
        opened.write(b'{"x": 1}\n\xff\xfe\n["bert", "soon", 0]\n')
    record.put("carl", NOW + 100, 0)
    with capture_logs() as told:
        assert again(file) == {"anna": (NOW + 100, 0), "carl": (NOW + 100, 0)}
    warnings = [line for line in told if line["log_level"] == "warning"]
    assert [(line["file"], line["lines"]) for line in warnings] == [(str(file), 3)]


def test_the_file_does_not_grow_with_what_is_over(file: Path):
    record = RevokedFile(file, lambda: NOW)
    for _ in range(3 * SPARE_LINES):
        record.put("anna", NOW + 100, 0)
    assert file.read_bytes().count(b"\n") <= SPARE_LINES + 3
    assert again(file) == {"anna": (NOW + 100, 0)}


def test_what_others_may_have_written_is_not_believed(file: Path):
    RevokedFile(file).put("anna", NOW + 100, 0)
    file.chmod(0o666)
    assert again(file) == {}


def test_a_folder_that_cannot_be_written_is_told_once(file: Path, capsys, monkeypatch):
    record = RevokedFile(file)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "open", full)
        record.put("anna", NOW + 100, 0)
        record.put("bert", NOW + 100, 0)
    assert capsys.readouterr().out.count("revocations are not recorded") == 1
    record.put("carl", NOW + 100, 0)
    assert set(again(file)) == {"anna", "bert", "carl"}


async def refusal(service: TurnService | WorkerPool) -> int:
    """The code of an Allocate of alice's; 0: it is granted."""
    client = await Client().connect(port_of(service))
    reply = await client.request(Method.ALLOCATE, UDP)
    await client.request(Method.REFRESH, (registry.LIFETIME, 0))
    client.close()
    return (reply.get(registry.ERROR_CODE) or (0, ""))[0]


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_restart_lets_nobody_in(file: Path, workers: int):
    def relay() -> TurnService | WorkerPool:
        record = RevokedFile(file)
        if workers > 1:
            return WorkerPool(settings(workers=workers), LOGS, revoked=record)
        return TurnService(settings(), common=alone(revoked=record))

    codes = []
    for step in ("revoke", "nothing", "restore", "nothing"):
        service = relay()
        await service.start()
        codes.append(await refusal(service))
        if step == "revoke":
            await service.revoke("alice", 4e9)
        elif step == "restore":
            await service.restore("alice")
        await service.stop()
    assert codes == [0, 403, 403, 0]
