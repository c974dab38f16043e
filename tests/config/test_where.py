"""The line of a TOML text that an operator has to edit: ``# <- path`` marks where it should be."""

import re

import pytest

from config.where import Location, Places

TEXT = '''\
# a comment
top = 1                             # <- top

[turn]                              # <- turn.not_there
listen = "x"                        # <- turn.listen
relay.ports = "y"                   # <- turn.relay.ports
"quoted key" = 1                    # <- turn.quoted key
'literal.key' = 1                   # <- turn.literal\\.key
inline = {a = 1, b = {c = 2}}       # <- turn.inline.b.c
one_line = ["a", "b"]               # <- turn.one_line.1
many_lines = [                      # <- turn.many_lines
  "zero",                           # <- turn.many_lines.0
  # a comment, and an empty line

  "one", "two",                     # <- turn.many_lines.2
  {three = 3},                      # <- turn.many_lines.3.three
]
text = """                          # <- turn.text
[signaling]
listen = "not a key, but text"
"""
after = 1                           # <- turn.after

[turn.users]
alice = "pw"                        # <- turn.users.alice
[signaling]
listen = "z"                        # <- signaling.listen
   [[signaling.ice_servers]]
   urls = "stun:a"                  # <- signaling.ice_servers.0.urls
[[signaling.ice_servers]] # second
urls = [                            # <- signaling.ice_servers.1.urls
  "stun:b",                         # <- signaling.ice_servers.1.urls.0
  "stun:c"]                         # <- signaling.ice_servers.1.urls.1
[ "admin" ]
"listen" = "w"                      # <- admin.listen
'''


def marks() -> list[tuple[int, str]]:
    found = [(n, re.search(r"# <- (.*)", line)) for n, line in enumerate(TEXT.splitlines(), 1)]
    return [(number, match[1]) for number, match in found if match]


def location(path: str) -> Location:
    parts = [part.replace("\\", "") for part in re.split(r"(?<!\\)\.", path)]
    return tuple(int(part) if part.isdigit() else part for part in parts)


@pytest.mark.parametrize(("line", "path"), marks())
def test_a_setting_is_found(line: int, path: str):
    assert Places(TEXT).line_of(location(path)) == line


@pytest.mark.parametrize(
    ("text", "where", "line"),
    [
        ("", ("turn", "listen"), 0),
        ("[turn]\nlisten = 1", ("turn", "secret"), 1),
        ("[turn]\n[log]\nlevel = 1", ("signaling", "listen"), 0),
        ("turn = {listen = 1}", ("turn", "listen"), 1),
        ("turn.listen = 1\nturn.secret = 2", ("turn", "secret"), 2),
        ("[a]\nx = 1\n[b]\nx = 2", ("b", "x"), 4),
        ("[turn]\r\nx = [\r\n 1,\r\n 2,\r\n]\r\ny = 3\r\n", ("turn", "y"), 6),
        ("[turn] # \u2028 ends no line of TOML\nx = 1", ("turn", "x"), 2),
        ('x = """\\\n  one\n"""\ny = 1', ("y",), 4),
        ("x = '''\n[y]\n'''\ny = 1", ("y",), 4),
        ("[turn]", ("turn",), 1),
        ("turn.list = [\n 1,\n 2]", ("turn", "list"), 1),
        ("turn.list = [\n 1,\n 2]", ("turn", "list", 0), 2),
        ("turn.list = [\n 1,\n 2]", ("turn", "list", 1), 3),
        ('turn.text = """\none\n"""', ("turn", "text", 0), 1),  # a text that becomes a list
        ('x = "a]b"\ny = "#"', ("y",), 2),
    ],
)
def test_edges(text: str, where: Location, line: int):
    assert Places(text).line_of(where) == line


@pytest.mark.timeout(20)
@pytest.mark.parametrize("row", ['"10.0.0.0/24", # office', '["a]b"],', '{ urls = ["a", "b"] },'])
def test_a_list_of_thousands_of_lines_is_searched_at_once(row: str):
    """The time that the sum of all its beginnings takes is several minutes."""
    text = "[turn]\nallow_peers = [\n" + f"{row}\n" * 3000 + "]\nafter = 1\n"
    places = Places(text)
    height = row.count("\n") + 1
    assert places.line_of(("turn", "allow_peers", 2999)) == 3 + 2999 * height
    assert places.line_of(("turn", "after")) == 4 + 3000 * height
