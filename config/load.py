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
from typing import Any, NamedTuple

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

from config.collisions import collisions
from config.files import reason
from config.schema import Settings
from config.section import Section
from config.where import Location, Places

DEFAULT_FILE = Path("icebroker.toml")
SAMPLE = Path(__file__).with_name("icebroker.toml")
"""Wherever we are installed: a wheel has it, too."""
PREFIX = "ICEBROKER_"
# Kubernetes tells every pod of its services by such variables; of one named icebroker, with our
# prefix.
NOT_OURS = re.compile(rf"(?!.*__){PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT|PORT)(_\w+)?")
# What pydantic says of a value in Python's words, in those of TOML.
MOST_PROBLEMS = 50
"""That are told at once; nobody reads more, and each has to be looked for."""
PLAIN_WORDS = {
    "extra_forbidden": f"no such key; {SAMPLE} shows every one",
    "missing": "is missing",
    "too_short": "is empty",
    "string_too_short": "is empty",
    "tuple_type": "expected a list",
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "string_type": "expected a text in quotes",
    "path_type": "expected the name of a file, in quotes",
}


class _Variable(NamedTuple):
    value: str
    source: str
    """What an operator has to edit: a variable's name, or a file."""


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
    running: Settings | None = None,
) -> Settings:
    """Read and validate the settings.

    :param path: a TOML file that must exist; None: ``icebroker.toml`` in this folder, if any.
    :param environment: the variables to read; None: the process's own.
    :param defaults: what holds where neither the environment nor the file says anything.
    :param services: the sections of the services that are to run; what would make running one
        of them dangerous is a problem too, and so is a port that two listeners want.
    :param running: the settings that are in use, to be changed without a restart; what cannot
        be changed so is a problem too.
    :raises ConfigError: with file and line, or the variable's name, for each problem.
    """
    variables = _variables(os.environ if environment is None else environment)
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

    where = _Where(file, text, variables)
    try:
        settings = Sources()
    except ValidationError as error:
        told = error.errors()[:MOST_PROBLEMS]
        problems = [where.tell(details["loc"], _sentence(details)) for details in told]
        if more := error.error_count() - len(told):
            problems.append(f"{file or 'settings'}: and {more} more")
        raise ConfigError(problems) from None
    except SettingsError as error:
        raise ConfigError([str(error.__cause__ or error)]) from None
    sections: dict[str, Section] = {name: getattr(settings, name) for name in Settings.model_fields}
    found = [
        where.tell((name, *danger.location), danger.text)
        for name in (*services, *(["redis"] if services else []))
        for danger in sections[name].dangers()
    ]
    found += [
        where.tell((name, problem.key), problem.text)
        for name, problem in collisions(settings, services)
    ]
    if running is not None:
        found += [
            where.tell((name, problem.key), problem.text)
            for name in (*services, "redis", "admin")
            for problem in getattr(running, name).needs_restart(sections[name])
        ]
    if found:
        raise ConfigError(found)
    return Settings.model_validate(sections)


class _Environment(EnvSettingsSource):
    """Environment variables; each is a text that its field's own parser reads (config/values)."""

    def __init__(
        self, settings_class: type[BaseSettings], variables: Mapping[str, _Variable]
    ) -> None:
        self._variables = {name.lower(): variable.value for name, variable in variables.items()}
        super().__init__(settings_class)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._variables

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        return value


class _Where:
    """Finds what an operator has to edit to mend a problem."""

    def __init__(self, file: Path | None, text: str, variables: Mapping[str, _Variable]) -> None:
        self._file = file
        self._places = Places(text)
        self._variables = variables

    def tell(self, location: Location, sentence: str) -> str:
        key = _dotted(location)
        line = self._places.line_of(location) if self._file else 0
        in_file = f"{self._file}:{line}" if line else ""
        source = self._variable(location) or in_file or self._parts(location)
        return f"{source or self._file or 'settings'}: {key}: {sentence}"

    def _variable(self, location: Location) -> str:
        """The variable that sets the location or, for one user of many, its parent."""
        for depth in range(len(location), 1, -1):
            if found := self._variables.get(_variable_name(location[:depth])):
                return found.source
        return ""

    def _parts(self, location: Location) -> str:
        """A variable that sets something inside the location."""
        inside = _variable_name(location) + "__"
        return next(
            (v.source for name, v in self._variables.items() if name.startswith(inside)), ""
        )


def _dotted(location: Location) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".")


def _sentence(details: ErrorDetails) -> str:
    if plain := PLAIN_WORDS.get(details["type"]):
        return plain
    message = details["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:] if message.startswith("Input should") else message


def _read(file: Path, named_by: str = "") -> str:
    try:
        return file.read_text("utf-8-sig")  # some editors begin a file with a mark
    except OSError as error:
        raise ConfigError([f"{named_by}{file}: cannot be read: {reason(error)}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{named_by}{file}: is not UTF-8 text"]) from None


def _parse(text: str, file: Path | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        line = re.search(r"at line (\d+)", str(error))
        place = f"{file}:{line[1]}" if line else str(file)
        raise ConfigError([f"{place}: not valid TOML: {error}"]) from None
    except RecursionError:
        raise ConfigError([f"{file}: lists or tables are nested too deep"]) from None


def _variables(environment: Mapping[str, str]) -> dict[str, _Variable]:
    """Our variables, with what ``_FILE`` variables and ``$CREDENTIALS_DIRECTORY`` point to."""
    named = {
        name.upper(): value
        for name, value in environment.items()
        if name.upper().startswith(PREFIX) and not NOT_OURS.fullmatch(name.upper())
    }
    files = {
        name: path
        for name, path in named.items()
        if name.endswith("_FILE") and _names_a_section(name)
    }
    direct = named.keys() - files.keys()
    # The strongest last.
    variables = {
        file.name.upper(): _Variable(_read(file).strip(), str(file))
        for file in _credentials(environment.get("CREDENTIALS_DIRECTORY"))
    }
    for name, path in files.items():
        if (key := name.removesuffix("_FILE")) not in direct:
            variables[key] = _Variable(_read(Path(path), f"{name}: ").strip(), name)
    variables |= {name: _Variable(named[name], name) for name in named if name in direct}
    if unknown := [v.source for name, v in variables.items() if not _names_a_section(name)]:
        raise ConfigError(
            [f"{source}: no such setting; sections are {_sections()}" for source in unknown]
        )
    return variables


def _credentials(directory: str | None) -> list[Path]:
    """The files of ``$CREDENTIALS_DIRECTORY`` that are settings."""
    try:
        files = sorted(Path(directory).iterdir()) if directory else []
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(
            [f"CREDENTIALS_DIRECTORY: {directory}: cannot be read: {error.strerror}"]
        ) from None
    return [file for file in files if file.name.upper().startswith(PREFIX)]


def _variable_name(location: Location) -> str:
    return PREFIX + "__".join(str(part).upper() for part in location)


def _names_a_section(variable: str) -> bool:
    section, separator, _ = variable.upper().removeprefix(PREFIX).partition("__")
    return bool(separator) and section.lower() in Settings.model_fields


def _sections() -> str:
    return ", ".join(f"{PREFIX}{name.upper()}__…" for name in Settings.model_fields)
