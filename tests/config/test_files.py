"""Files that the service's user may not read: the first start of many a service."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import need_root

AS_NOBODY = """
import os, sys
from pathlib import Path
from config.load import ConfigError, load
load(None, {})  # whatever is imported late: nobody may not read it where the checkout is root's
os.setuid(65534)
try:
    load(Path(sys.argv[1]), {})
except ConfigError as error:
    print(error)
"""


def test_who_may_not_read_it_is_named_in_one_line(tmp_path: Path):
    need_root("to be somebody else")
    file = tmp_path / "icebroker.toml"
    file.touch(mode=0o600)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(file)], capture_output=True, text=True, check=False
    )
    assert done.stdout == (
        f"{file}: cannot be read: Permission denied for user nobody "
        "(let its group have it: chgrp, chmod 640; the folder: 750)\n"
    ), done.stderr
