"""A configuration as an operator has it: a file, variables, and what is said of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from config.load import ConfigError, load
from config.schema import Settings


class Operator:
    """Writes a file, sets variables, starts; ``problems`` are told without the file's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "icebroker.toml"

    def settings(
        self, toml: str = "", environment: Mapping[str, str] | None = None, **more: Any
    ) -> Settings:
        """What holds. :raises ConfigError: nothing does."""
        self.file.write_text(toml, "utf-8")
        return load(self.file, environment or {}, **more)

    def problems(
        self, toml: str = "", environment: Mapping[str, str] | None = None, **more: Any
    ) -> list[str]:
        """The lines that are told."""
        with pytest.raises(ConfigError) as caught:
            self.settings(toml, environment, **more)
        return [problem.replace(f"{self.folder}/", "") for problem in caught.value.problems]

    def value(self, settings: Settings, path: str) -> Any:
        """What a setting such as ``turn.listen`` is."""
        section, _, key = path.partition(".")
        return getattr(getattr(settings, section), key)

    def put(self, name: str, content: str | bytes) -> str:
        """Write another file; gives its path."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """An operator at a terminal."""
    return Operator(tmp_path)
