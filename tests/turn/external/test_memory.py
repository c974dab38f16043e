"""What outlives the process: what was found, and nothing that could harm the next one."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from turn.external.memory import Memory

FOUND = {"10.0.0.5": "203.0.113.7", "2001:db8::5": "2001:db8:1::7"}


def test_the_next_process_knows_it(tmp_path: Path):
    folder = str(tmp_path / "state")
    assert Memory(folder).load() == {}
    Memory(folder).save(FOUND)
    assert Memory(folder).load() == FOUND
    Memory(folder).save({})
    assert Memory(folder).load() == {}
    assert [file.name for file in (tmp_path / "state").iterdir()] == ["external"]


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[1]", b'{"10.0.0.5": 7}', b'{"10.0.0.5": "nat"}', b'{"a": "10.0.0.5"}'],
)
def test_what_is_no_record_is_nothing(tmp_path: Path, content: bytes):
    Memory(str(tmp_path)).save(FOUND)
    (tmp_path / "external").write_bytes(content)
    assert Memory(str(tmp_path)).load() == {}


def test_a_link_is_not_followed(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text('{"10.0.0.5": "203.0.113.7"}')
    for name in ("external", "external.new"):
        (tmp_path / name).symlink_to(elsewhere)
    assert Memory(str(tmp_path)).load() == {}
    Memory(str(tmp_path)).save({})
    assert elsewhere.read_text() == '{"10.0.0.5": "203.0.113.7"}'


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Memory("").save(FOUND)
    assert Memory("").load() == {}
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with capture_logs() as told:
        Memory(str(tmp_path / "file")).save(FOUND)
    (line,) = told
    assert line["log_level"] == "warning"
    assert line["reason"] in {"Not a directory", "File exists"}
