"""Where settings come from: a TOML file, the environment, files with secrets.

The strongest first: environment variables ``ICEBROKER_<SECTION>__<KEY>``, the same with ``_FILE``
behind (the value is that file's content), files of that name in ``$CREDENTIALS_DIRECTORY``
(systemd's LoadCredential), the TOML file, the defaults.
"""

import os
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from config.schema import Section, Settings
from config.where import Location, line_of

DEFAULT_FILE = Path("icebroker.toml")
PREFIX = "ICEBROKER_"


class ConfigError(Exception):
    """The settings are not usable; the message has a line for each problem: where, what, how."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(
    path: Path | None = None,
    environment: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    services: Collection[str] = (),
) -> Settings:
    """Read and validate the settings.

    :param path: a TOML file that must exist; None: ``icebroker.toml`` in this folder, if any.
    :param environment: the variables to read; None: the process's own.
    :param defaults: what holds where neither the environment nor the file says anything.
    :param services: the sections of the services that are to run; what would make running one
        of them dangerous is a problem too.
    :raises ConfigError: with file and line, or the variable's name, for each problem.
    """
    variables = _with_secret_files(os.environ if environment is None else environment)
    file = path or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    text = _read(file) if file else ""
    toml = _parse(text, file)

    class Sources(BaseSettings, Settings):
        model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__")

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (
                _Environment(settings_cls, variables),
                InitSettingsSource(settings_cls, init_kwargs=toml),
                InitSettingsSource(settings_cls, init_kwargs=dict(defaults or {})),
            )

    unknown = [name for name in variables if not _names_a_section(name)]
    if unknown:
        raise ConfigError(
            [f"{name}: no such setting; sections are {_sections()}" for name in unknown]
        )
    where = _Where(file, text, variables)
    try:
        settings = Sources()
    except ValidationError as error:
        raise ConfigError(
            [where.tell(details["loc"], _sentence(details)) for details in error.errors()]
        ) from None
    except SettingsError as error:
        raise ConfigError([str(error.__cause__ or error)]) from None
    sections: dict[str, Section] = {name: getattr(settings, name) for name in Settings.model_fields}
    dangers = [
        where.tell((name, danger.key), danger.text)
        for name in services
        for danger in sections[name].dangers()
    ]
    if dangers:
        raise ConfigError(dangers)
    return Settings.model_validate(sections)


class _Environment(EnvSettingsSource):
    """Environment variables; each is a text that its field's own parser reads (config/values)."""

    def __init__(self, settings_class: type[BaseSettings], variables: Mapping[str, str]) -> None:
        self._variables = {name.lower(): value for name, value in variables.items()}
        super().__init__(settings_class)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._variables

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        return value


class _Where:
    """Finds what an operator has to edit to mend a problem."""

    def __init__(self, file: Path | None, text: str, variables: Mapping[str, str]) -> None:
        self._file = file
        self._text = text
        self._variables = {name.upper() for name in variables}

    def tell(self, location: Location, sentence: str) -> str:
        key = _dotted(location)
        variable = PREFIX + "__".join(str(part).upper() for part in location[:2])
        named = next((n for n in (variable, f"{variable}_FILE") if n in self._variables), "")
        line = line_of(self._text, location) if self._file and not named else 0
        source = named or (f"{self._file}:{line}" if line else str(self._file or "settings"))
        return f"{source}: {key}: {sentence}"


def _dotted(location: Location) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".")


def _sentence(details: ErrorDetails) -> str:
    if details["type"] == "extra_forbidden":
        return "no such key; `config/icebroker.toml` shows every one"
    message = details["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:] if message.startswith("Input should") else message


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{file}: is not UTF-8 text"]) from None


def _parse(text: str, file: Path | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        place = f"{file}:{line[1]}" if line else str(file)
        raise ConfigError([f"{place}: not valid TOML: {error}"]) from None


def _with_secret_files(environment: Mapping[str, str]) -> dict[str, str]:
    """Our variables, with what ``_FILE`` variables and ``$CREDENTIALS_DIRECTORY`` point to."""
    variables: dict[str, str] = {}
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if directory and Path(directory).is_dir():
        for file in sorted(Path(directory).iterdir()):
            if file.name.upper().startswith(PREFIX):
                variables[file.name.upper()] = _read(file).strip()
    for name, value in environment.items():
        if not name.upper().startswith(PREFIX):
            continue
        if name.upper().endswith("_FILE") and _names_a_section(name):
            variables[name.upper().removesuffix("_FILE")] = _read(Path(value)).strip()
        else:
            variables[name.upper()] = value
    return variables


def _names_a_section(variable: str) -> bool:
    section, separator, _ = variable.upper().removeprefix(PREFIX).partition("__")
    return bool(separator) and section.lower() in Settings.model_fields


def _sections() -> str:
    return ", ".join(f"{PREFIX}{name.upper()}__…" for name in Settings.model_fields)
