"""What the Redis user may not do, although the broker has to: told before a client notices it."""

import re

from redis.asyncio.connection import Connection

from signaling.broker.primary import ask
from signaling.broker.scripts import FOLDER

LISTENING = frozenset({"ssubscribe", "sunsubscribe"})
"""What a link does outside of the scripts, beside what it takes to get here."""
CHECK = """#!lua flags=no-writes
local lacks = {}
for _, command in ipairs(ARGV) do
    if not redis.acl_check_cmd(command, KEYS[1], KEYS[1], KEYS[1]) then
        lacks[#lacks + 1] = command
    end
end
return lacks
"""


def commands() -> frozenset[str]:
    """Every command that the broker's scripts call and its links listen by, in lower case."""
    texts = [path.read_text("utf-8") for path in FOLDER.glob("*.lua")]
    called = {name.lower() for text in texts for name in re.findall(r"redis\.call\('(\w+)'", text)}
    return frozenset(called) | LISTENING


async def lacking(connection: Connection, tag: str) -> list[str]:
    """The commands that this user may not run on our keys and channels; nothing is run.

    :param tag: what our keys begin with, as in "{icebroker}".
    :raises RedisError: not even that may be asked: scripts, or keys of this name, are refused.
    """
    sha = (await ask(connection, "SCRIPT", "LOAD", CHECK)).decode()
    found = await ask(connection, "EVALSHA", sha, 1, f"{tag}:doctor", *sorted(commands()))
    return [name.decode() for name in found]
