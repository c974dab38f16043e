"""What several commands are given, how it is read, and how a command ends that cannot go on."""

import pwd
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from config.load import ConfigError
from config.load import load as load_settings
from config.schema import Settings
from config.turn import TurnSettings
from config.values import parse_duration

ConfigFile = Annotated[
    Path | None,
    # Whether it can be read is config.load's to say, in one line.
    typer.Option(
        "-c", "--config", help="TOML file; default: icebroker.toml here, if any.", readable=False
    ),
]
Ttl = Annotated[str, typer.Option(help="How long it is good: seconds, or 90s, 15m, 1h, 7d.")]

Tenant = Annotated[str, typer.Option(help="One of turn.tenants, whose user it is for.")]


def load(config: Path | None, *services: str) -> Settings:
    """The settings for what these services run; ends the command where they are wrong."""
    return or_fail(lambda: load_settings(config, services=services))


def or_fail(read: Callable[[], Settings]) -> Settings:
    """What is read; ends the command where it is wrong."""
    try:
        return read()
    except ConfigError as error:
        fail(*error.problems)


def seconds(text: str) -> int:
    """How long ``--ttl`` says; ends the command where it says nothing of the kind."""
    try:
        return int(parse_duration(text))
    except ValueError as error:
        fail(f"--ttl: {error}")


def check_tenant(turn: TurnSettings, tenant: str, code: int = 1) -> None:
    """End the command where ``--tenant`` names none."""
    if tenant and tenant not in turn.tenants:
        known = f": there are {', '.join(turn.tenants)}" if turn.tenants else ""
        fail(f"--tenant: turn.tenants has no {tenant!r} here{known}", code=code)


def user_id(name: str) -> int | None:
    """The number of the user that ``--lend-to`` names; None for no name; else ends the command."""
    try:
        return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid if name else None
    except KeyError:
        fail(f"--lend-to: there is no user {name}")


def fail(*problems: str, code: int = 1) -> NoReturn:
    """Say what is wrong, a line each, and end the command."""
    for problem in problems:
        typer.echo(f"icebroker: {problem}", err=True)
    sys.exit(code)
