"""Loads the committed object: makes its maps, puts their descriptors into its code."""

import io
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, SymbolTableSection

from turn.kernel.bpf import Map, Shape, load_classifier
from turn.kernel.layout import INDEX, remainders

OBJECT = Path(__file__).with_name("relay.bpf.o")
MAP_DEFINITION = struct.Struct("=5I")
"""``struct map`` of relay.bpf.c: a ``Shape``."""
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


def read_object(data: bytes) -> Object:
    """Read an object that clang made of relay.bpf.c."""
    elf = ELFFile(io.BytesIO(data))
    sections: dict[str, Section] = {section.name: section for section in elf.iter_sections()}
    symbols, relocations = sections[".symtab"], sections[".reltc"]
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
    return Object(sections["tc"].data(), definitions, references, terms)


def link(found: Object, descriptors: Mapping[str, int]) -> bytes:
    """The code with the maps' descriptors where it names them."""
    code = bytearray(found.code)
    for offset, name in found.references:
        code[offset + 1] = (code[offset + 1] & 0x0F) | PSEUDO_MAP << 4
        struct.pack_into("=i", code, offset + 4, descriptors[name])
    return bytes(code)


def shapes(path: Path = OBJECT) -> dict[str, Shape]:
    """What the maps of the program are like."""
    return read_object(path.read_bytes()).definitions


def load(maps: dict[str, Map] | None = None, path: Path = OBJECT) -> Program:
    """Load the program, and make its maps where there are none. :raises BpfError: refused.

    :param maps: all of them, as they were pinned; still the caller's where this fails.
    """
    found = read_object(path.read_bytes())
    own = {} if maps else _make(found.definitions)
    used = maps or own
    try:
        code = link(found, {name: one.fd for name, one in used.items()})
        return Program(load_classifier("icebroker", code, found.terms), used)
    except OSError:
        for one in own.values():
            one.close()
        raise


def _make(definitions: Mapping[str, Shape]) -> dict[str, Map]:
    maps: dict[str, Map] = {}
    try:
        for name, shape in definitions.items():
            maps[name] = Map.create(name, shape)
        maps["remainders"].update(INDEX.pack(0), remainders())
    except OSError:
        for one in maps.values():
            one.close()
        raise
    return maps
