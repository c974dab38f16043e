"""The committed object is what its source makes, and the layout is the same in C and in Python."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.turn.kernel.hosts import source_of
from turn.kernel import layout
from turn.kernel.bpf import PER_CPU_ARRAY
from turn.kernel.program import FRAMES, RELAY, WATCH, read_object

ROOT = Path(__file__).parents[3]
OBJECTS = [pytest.param(source, id=source.section) for source in (RELAY, FRAMES, WATCH)]
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
    "hop": (layout.HOP.size, {"device": 0, "mtu": 4, "head": 8, "road": 20}),
    "meter": (
        layout.METER.size,
        {
            "expires": 8 * layout.EXPIRES,
            "packets": 8 * layout.PACKETS,
            "bytes": 8 * layout.BYTES,
            "spoiled": 8 * layout.SPOILED,
            "frames": 8 * layout.FRAMES,
            "buckets": 8 * layout.LIMITS,
        },
    ),
    "bucket": (
        layout.BUCKET.size,
        {
            "full": 8 * layout.FULL,
            "lent": 8 * layout.LENT,
            "price": 8 * layout.PRICE,
            "refused": 8 * layout.REFUSED,
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
    for number in (
        "LAYOUT",
        "MOST_WAYS",
        "MOST_BUCKETS",
        "PRICE_SHIFT",
        "TICKS",
        "MOST_HOPS",
        "MOST_DEVICES",
        "PORT_WORDS",
    ):
        lines.append(f'_Static_assert({number} == {getattr(layout, number)}, "{number}");')
    file = tmp_path / "layout.c"
    file.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["gcc", "-fsyntax-only", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_maps_hold_what_is_written_to_them():
    maps = read_object(RELAY).definitions
    for family in (4, 6):
        for name, keyed in (("ways", layout.TUPLE), ("names", layout.NAME)):
            _, key, value, entries, _ = maps[f"{name}{family}"]
            assert key == keyed[family].size
            assert value == layout.TUPLE[family].size + layout.WAY_END[family].size
            assert entries == layout.MOST_WAYS
    assert maps["hops"][1:4] == (layout.INDEX.size, layout.HOP.size, layout.MOST_HOPS)
    assert maps["meters"][1:4] == (layout.INDEX.size, layout.METER.size, layout.MOST_WAYS)
    assert maps["buckets"][1:4] == (layout.INDEX.size, layout.BUCKET.size, layout.MOST_BUCKETS)
    assert maps["ports"][1:4] == (layout.INDEX.size, layout.WORD.size, layout.PORT_WORDS)
    assert maps["remainders"][1:4] == (layout.INDEX.size, len(layout.remainders()), 1)
    assert maps["scratch"][0] == PER_CPU_ARRAY
    assert maps["devices"][1:4] == (layout.INDEX.size, layout.INDEX.size, layout.MOST_DEVICES)


def test_both_programs_have_the_same_maps():
    assert read_object(FRAMES).definitions == read_object(RELAY).definitions


@pytest.fixture(name="made", scope="module")
def made_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    subprocess.run(["make", "-s", "kernel", f"KERNEL_OBJECTS={folder}"], cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize("source", OBJECTS)
def test_the_object_is_what_its_source_makes(need, made, source):
    need("clang")
    # Another compiler makes other code; what it makes has to have the same maps all the same.
    data, committed = (made / source.file.name).read_bytes(), source.file.read_bytes()
    assert read_object(source, data).definitions == read_object(source).definitions
    version = subprocess.run(["clang", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"version (\d+)", version.stdout)
    if found and found[1] == source_of("COMPILER").read_text().strip():
        assert data == committed, "make kernel, and commit it"


@pytest.mark.parametrize("source", OBJECTS)
def test_no_helper_is_called_that_only_gpl_programs_may(source):
    assert read_object(source).terms == "Apache-2.0"


@pytest.mark.parametrize("source", OBJECTS)
@pytest.mark.parametrize("number", [0, 1, 4097])
def test_a_maps_descriptor_is_put_where_it_is_named(source, number):
    from turn.kernel.program import link  # noqa: PLC0415

    found = read_object(source)
    code = link(found, dict.fromkeys(found.definitions, number))
    assert len(code) == len(found.code)
    for offset, _ in found.references:
        assert code[offset] == 0x18  # a 64-bit constant
        assert code[offset + 1] >> 4 == 1
        assert int.from_bytes(code[offset + 4 : offset + 8], "little") == number
