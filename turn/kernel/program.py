"""Loads the committed objects: makes their maps, puts their descriptors into the code."""

import io
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, SymbolTableSection

from turn.kernel.bpf import CLASSIFIER, RAW_TRACEPOINT, XDP, Map, Shape, load_program
from turn.kernel.layout import INDEX, LEAST_PLACES, SEED, remainders


class Source(NamedTuple):
    """One of our programs: its object file, the section that it is in, its type."""

    file: Path
    section: str
    kind: int


RELAY = Source(Path(__file__).with_name("relay.bpf.o"), "tc", CLASSIFIER)
FRAMES = Source(Path(__file__).with_name("frames.bpf.o"), "xdp", XDP)
WATCH = Source(Path(__file__).with_name("watch.bpf.o"), "raw_tracepoint", RAW_TRACEPOINT)
MAP_DEFINITION = struct.Struct("=5I")
"""``struct map`` of helpers.h: a ``Shape``."""
INSTRUCTION_BYTES = 8
PSEUDO_MAP = 1
"""BPF_PSEUDO_MAP_FD: the constant of this instruction is a map's descriptor."""


class Object(NamedTuple):
    """What an object file holds."""

    code: bytes
    definitions: dict[str, Shape]
    """Of each map."""
    references: list[tuple[int, str]]
    """Offset of an instruction, and the map that it names."""
    terms: str
    """The license, as the kernel is told."""


class Program(NamedTuple):
    """A program in the kernel, and its maps."""

    fd: int
    maps: dict[str, Map]

    def close(self) -> None:
        """Let go of all; it ends where nothing runs it any more."""
        os.close(self.fd)
        for one in self.maps.values():
            one.close()


def read_object(source: Source, data: bytes | None = None) -> Object:
    """Read an object that clang made.

    :param data: in place of the file's.
    """
    elf = ELFFile(io.BytesIO(data or source.file.read_bytes()))
    sections: dict[str, Section] = {section.name: section for section in elf.iter_sections()}
    symbols, relocations = sections[".symtab"], sections[f".rel{source.section}"]
    assert isinstance(symbols, SymbolTableSection)
    assert isinstance(relocations, RelocationSection)
    maps, place = sections["maps"].data(), list(sections).index("maps")
    definitions = {
        symbol.name: Shape(*MAP_DEFINITION.unpack_from(maps, symbol["st_value"]))
        for symbol in symbols.iter_symbols()
        if symbol["st_shndx"] == place and symbol.name
    }
    references = [
        (entry["r_offset"], symbols.get_symbol(entry["r_info_sym"]).name)
        for entry in relocations.iter_relocations()
    ]
    terms = sections["license"].data().rstrip(b"\0").decode()
    return Object(sections[source.section].data(), definitions, references, terms)


def link(found: Object, descriptors: Mapping[str, int]) -> bytes:
    """The code with the maps' descriptors where it names them."""
    code = bytearray(found.code)
    for offset, name in found.references:
        code[offset + 1] = (code[offset + 1] & 0x0F) | PSEUDO_MAP << 4
        struct.pack_into("=i", code, offset + 4, descriptors[name])
    return bytes(code)


def shapes() -> dict[str, Shape]:
    """What the maps of the program are like."""
    return read_object(RELAY).definitions


def load(maps: dict[str, Map] | None = None, source: Source = RELAY) -> Program:
    """Load a program, and make its maps where there are none. :raises BpfError: refused.

    :param maps: all of them, as they were pinned or made for another program; still the caller's
        where this fails.
    """
    found = read_object(source)
    own = {} if maps else _make(found.definitions)
    used = maps or own
    try:
        code = link(found, {name: one.fd for name, one in used.items()})
        return Program(load_program(source.kind, "icebroker", code, found.terms), used)
    except OSError:
        for one in own.values():
            one.close()
        raise


def _make(definitions: Mapping[str, Shape]) -> dict[str, Map]:
    maps: dict[str, Map] = {}
    try:
        for name, shape in definitions.items():
            maps[name] = Map.create(name, shape)
        if "remainders" in maps:
            maps["remainders"].update(INDEX.pack(0), remainders())
        if "seeds" in maps:
            drawn = SEED.pack(os.urandom(64), LEAST_PLACES, LEAST_PLACES)
            maps["seeds"].update(INDEX.pack(0), drawn)
    except OSError:
        for one in maps.values():
            one.close()
        raise
    return maps
