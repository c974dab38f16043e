"""A guide as the tests read it: its blocks, its links, and the names that it speaks of."""

import json
import re
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "deploy/docs"
SECRET = "thirty-two bytes out of openssl rand"
GUIDES = sorted(DOCS.glob("*.md"))
FENCE = re.compile(r"(?ms)^( *)```(\w+)\n(.*?)^\1```$")


class Block(NamedTuple):
    """Lines that a guide gives people to paste."""

    guide: str
    number: int
    """Of its kind in this guide."""
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.guide}-{self.number}"


def blocks(kind: str) -> list[Block]:
    """Every block of a kind."""
    found = []
    for guide in GUIDES:
        texts = [text for _, name, text in FENCE.findall(guide.read_text("utf-8")) if name == kind]
        found += [
            Block(guide.stem, number, kind, textwrap.dedent(text))
            for number, text in enumerate(texts, 1)
        ]
    return found


def kinds() -> set[str]:
    """The kinds of blocks that there are."""
    return {kind for guide in GUIDES for _, kind, _ in FENCE.findall(guide.read_text("utf-8"))}


def links(page: Path) -> list[tuple[Path, str]]:
    """Where a page's links into the repository lead: file and heading."""
    text = FENCE.sub("", page.read_text("utf-8"))
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            file, _, heading = target.partition("#")
            found.append((page.parent / file if file else page, heading))
    return found


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text("utf-8"))
    titles = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def example(guide: str, kind: str) -> dict[str, Any]:
    """The JSON that a guide shows, of this ``type``."""
    shown = [json.loads(block.text) for block in blocks("json") if block.guide == guide]
    (found,) = [one for one in shown if one.get("type") == kind]
    return dict(found)


def with_secrets(toml: str) -> str:
    """A configuration in which each ``…`` is a secret."""
    numbers = iter(range(100))
    return re.sub(r'"…[^"]*"', lambda _: f'"{SECRET} {next(numbers)}"', toml)
