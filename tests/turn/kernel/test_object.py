"""The committed object is what its source makes, and the layout is the same in C and in Python."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.turn.kernel.hosts import source_of
from turn.bandwidth import SMALLEST
from turn.kernel import layout
from turn.kernel.bpf import PER_CPU_ARRAY
from turn.kernel.program import FRAMES, RELAY, WATCH, read_object

ROOT = Path(__file__).parents[3]
OBJECTS = [pytest.param(source, id=source.section) for source in (RELAY, FRAMES, WATCH)]


# Each struct of layout.h: its parts as layout.py packs them, by name of the first field of each.
def _way(family: int, source_port: int) -> tuple[int, dict[str, int]]:
    parts = layout.PARTS[family]
    return 8 * parts.size, {
        "source": 0,
        "source_port": source_port,
        "new_source": source_port + 8,
        "behind": 4 * parts.hops,
        "ahead": 4 * parts.hops + 2,
    } | {
        field: 8 * getattr(parts, field) for field in ("expires", "packets", "bytes", "frames")
    } | {"source_port": 8 * parts.ports}


def _rest(family: int) -> tuple[int, dict[str, int]]:
    parts = layout.PARTS[family]
    return 8 * parts.rest, {
        "header": 8 * parts.header, "buckets": 4 * parts.buckets, "spoiled": 8 * parts.spoiled
    }  # fmt: skip


STRUCTS = {
    "key4": (8 + layout.PORTS.size + layout.PEER[4].size, {"channel": 12, "peer": 16}),
    "key6": (32 + layout.PORTS.size + layout.PEER[6].size, {"channel": 36, "peer": 40}),
    "seed": (layout.SEED.size, {"words": 0, "places4": 64, "places6": 68}),
    "way4": _way(4, 8),
    "way6": _way(6, 32),
    "rest4": _rest(4),
    "rest6": _rest(6),
    "hop": (layout.HOP.size, {"device": 0, "mtu": 4, "head": 8, "road": 20}),
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
        "MOST_WAYS4",
        "MOST_WAYS6",
        "ROW",
        "LEAST_PLACES",
        "FIRST_PLACE",
        "SECOND_PLACE",
        "MIX",
        "NAMED",
        "LIMITED",
        "MOST_BUCKETS",
        "PRICE_SHIFT",
        "TICKS",
        "MOST_HOPS",
        "MOST_DEVICES",
        "PORT_WORDS",
    ):
        lines.append(f'_Static_assert({number} == {getattr(layout, number)}, "{number}");')
    lines.append(f'_Static_assert(SMALLEST == {SMALLEST}, "SMALLEST");')
    file = tmp_path / "layout.c"
    file.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["gcc", "-fsyntax-only", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_maps_hold_what_is_written_to_them():
    maps = read_object(RELAY).definitions
    for family in (4, 6):
        parts, entries = layout.PARTS[family], layout.MOST_WAYS[family]
        # All that ChannelData needs and counts is in as few cache lines as can be.
        assert 8 * parts.size == (64 if family == 4 else 128)
        for name, size in (("ways", 8 * parts.size), ("rests", 8 * parts.rest)):
            assert maps[f"{name}{family}"][1:4] == (layout.INDEX.size, size, entries)
        assert 8 * (parts.size + parts.rest) == layout.WAY[family].size
    assert maps["seeds"][1:4] == (layout.INDEX.size, layout.SEED.size, 1)
    assert maps["hops"][1:4] == (layout.INDEX.size, layout.HOP.size, layout.MOST_HOPS)
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
