"""Files that the service's user may not read: the first start of many a service."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_who_may_not_read_it_is_named_in_one_line(tmp_path: Path):
    file = tmp_path / "icebroker.toml"
    file.touch(mode=0o600)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    program = "import icebroker, os; os.setuid(65534); icebroker.main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "check", "-c", str(file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        f"icebroker: {file}: cannot be read: Permission denied for user nobody "
        "(let its group have it: chgrp, chmod 640; the folder: 750)\n"
    )
