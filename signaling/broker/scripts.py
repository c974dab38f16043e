"""The Lua scripts: each is one step of the broker that Redis does whole or not at all."""

import hashlib
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "lua"
NEED_MEMORY = frozenset({"open", "join", "send", "broadcast"})
"""What is refused while Redis is at its ``maxmemory``; all else frees or only moves something."""

WEBHOOKS = {
    True: "true",
    False: "false",
    None: "redis.call('EXISTS', string.match(KEYS[1], '^{[^}]*}:') .. 'w:count') == 1",
}


class Script(NamedTuple):
    """A script as Redis knows it."""

    text: str
    sha: str
    """SHA-1 of the text, in hex: Redis's name for it."""


def load_scripts(*, webhooks: bool | None = False) -> dict[str, Script]:
    """Every script by its file's name, each with what they share before it.

    :param webhooks: keep what becomes of rooms and peers for whoever delivers it; None: where
        nodes do so, which whatever was kept of late tells.
    """
    common = f"local WEBHOOKS = {WEBHOOKS[webhooks]}\n"
    common += (FOLDER / "common.lua").read_text("utf-8")
    found = {}
    for path in sorted(FOLDER.glob("*.lua")):
        if path.stem != "common":
            flags = "" if path.stem in NEED_MEMORY else " flags=allow-oom"
            text = f"#!lua{flags}\n{common}\n{path.read_text('utf-8')}"
            sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            found[path.stem] = Script(text, sha)
    return found
