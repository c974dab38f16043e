"""The committed object is what its source makes, and the layout is the same in C and in Python."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.turn.kernel.hosts import source_of
from turn.kernel import layout
from turn.kernel.bpf import PER_CPU_ARRAY
from turn.kernel.program import OBJECT, read_object

ROOT = Path(__file__).parents[3]
# Each struct of layout.h: its parts as layout.py packs them, by name of the first field of each.
STRUCTS = {
    "key4": (
        layout.TUPLE[4].size,
        {"source": 0, "destination": 4, "source_port": 8, "channel": 12},
    ),
    "key6": (layout.TUPLE[6].size, {"source": 0, "destination": 16, "channel": 36}),
    "name4": (layout.NAME[4].size, {"source_port": 8, "peer": 12, "peer_port": 16}),
    "name6": (layout.NAME[6].size, {"source_port": 32, "peer": 36, "peer_port": 52}),
    "way4": (
        layout.TUPLE[4].size + layout.WAY_END[4].size,
        {"source_port": 8, "channel": 12, "meter": 16, "behind": 20, "ahead": 22, "header": 24},
    ),
    "way6": (
        layout.TUPLE[6].size + layout.WAY_END[6].size,
        {"source_port": 32, "channel": 36, "meter": 40, "behind": 44, "ahead": 46, "header": 48},
    ),
    "hop": (layout.HOP.size, {"device": 0, "mtu": 4, "head": 8, "local": 20}),
    "meter": (
        layout.METER.size,
        {
            "expires": 8 * layout.EXPIRES,
            "packets": 8 * layout.PACKETS,
            "bytes": 8 * layout.BYTES,
            "spoiled": 8 * layout.SPOILED,
        },
    ),
}


def test_the_layout_is_the_same_in_c(need, tmp_path):
    need("gcc")
    lines = [f'#include "{source_of("layout.h")}"', "#include <stddef.h>"]
    for name, (size, fields) in STRUCTS.items():
        lines.append(f'_Static_assert(sizeof(struct {name}) == {size}, "{name}");')
        lines += [
            f'_Static_assert(offsetof(struct {name}, {field}) == {at}, "{name}.{field}");'
            for field, at in fields.items()
        ]
    for number in ("LAYOUT", "MOST_WAYS", "MOST_HOPS", "PORT_WORDS"):
        lines.append(f'_Static_assert({number} == {getattr(layout, number)}, "{number}");')
    file = tmp_path / "layout.c"
    file.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["gcc", "-fsyntax-only", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_maps_hold_what_is_written_to_them():
    maps = read_object(OBJECT.read_bytes()).definitions
    for family in (4, 6):
        for name, keyed in (("ways", layout.TUPLE), ("names", layout.NAME)):
            _, key, value, entries, _ = maps[f"{name}{family}"]
            assert key == keyed[family].size
            assert value == layout.TUPLE[family].size + layout.WAY_END[family].size
            assert entries == layout.MOST_WAYS
    assert maps["hops"][1:4] == (layout.INDEX.size, layout.HOP.size, layout.MOST_HOPS)
    assert maps["meters"][1:4] == (layout.INDEX.size, layout.METER.size, layout.MOST_WAYS)
    assert maps["ports"][1:4] == (layout.INDEX.size, layout.WORD.size, layout.PORT_WORDS)
    assert maps["remainders"][1:4] == (layout.INDEX.size, len(layout.remainders()), 1)
    assert maps["scratch"][0] == PER_CPU_ARRAY


def test_the_object_is_what_its_source_makes(need, tmp_path):
    need("clang")
    # Another compiler makes other code; what it makes has to have the same maps all the same.
    subprocess.run(
        ["make", "-s", "kernel", f"KERNEL_OBJECT={tmp_path / 'relay.bpf.o'}"], cwd=ROOT, check=True
    )
    made, committed = read_object((tmp_path / "relay.bpf.o").read_bytes()), OBJECT.read_bytes()
    assert made.definitions == read_object(committed).definitions
    version = subprocess.run(["clang", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"version (\d+)", version.stdout)
    if found and found[1] == source_of("COMPILER").read_text().strip():
        assert (tmp_path / "relay.bpf.o").read_bytes() == committed, "make kernel, and commit it"


def test_no_helper_is_called_that_only_gpl_programs_may():
    assert read_object(OBJECT.read_bytes()).terms == "Apache-2.0"


@pytest.mark.parametrize("number", [0, 1, 4097])
def test_a_maps_descriptor_is_put_where_it_is_named(number):
    from turn.kernel.program import link  # noqa: PLC0415

    found = read_object(OBJECT.read_bytes())
    code = link(found, dict.fromkeys(found.definitions, number))
    assert len(code) == len(found.code)
    for offset, _ in found.references:
        assert code[offset] == 0x18  # a 64-bit constant
        assert code[offset + 1] >> 4 == 1
        assert int.from_bytes(code[offset + 4 : offset + 8], "little") == number
