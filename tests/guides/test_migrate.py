"""The guide for those who come from coturn knows every option that coturn has."""

import re
import subprocess

from tests.conftest import need
from tests.guides.guide import DOCS

GUIDE = DOCS / "migrate.md"
IN_PASSING = {"no_dtls", "prod"}
"""Words of coturn's help that are no options: a misspelt one, and an old name."""
ELSEWHERE = {"prometheus"}
"""An option of its configuration file that Debian's help does not have."""


def options() -> set[str]:
    """Long options, as the installed coturn names them."""
    done = subprocess.run([need("turnserver"), "-h"], capture_output=True, text=True, check=False)
    return set(re.findall(r"(?<![\w-])--([A-Za-z][\w-]*)", done.stdout)) - IN_PASSING


def named() -> set[str]:
    """What the first columns of its tables name."""
    text = GUIDE.read_text("utf-8").partition("## From coturn")[2].partition("## From eturnal")[0]
    cells = re.findall(r"(?m)^\| ([^|]*) \|", text)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell) if name[:4] != "turn"}


def test_every_option_has_a_line():
    found = options()
    assert len(found) > 100
    assert not found - named()


def test_no_line_is_about_an_option_that_there_is_not():
    flags = {name for name in named() if name.startswith("-")}  # turnadmin's
    assert not named() - flags - options() - ELSEWHERE
