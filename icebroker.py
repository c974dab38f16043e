"""The command line: one sub-command for each thing that a person does, and no logic.

Services are imported by the commands that run them, so that the others answer at once.
"""

import asyncio
import json
import os
import time
import warnings
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import (
    ConfigFile,
    Tenant,
    Ttl,
    check_tenant,
    fail,
    load,
    or_fail,
    seconds,
    user_id,
)
from config.load import DEFAULT_FILE, ConfigError
from config.load import load as load_settings
from config.schema import Settings
from config.systemd import Supervisor

app = typer.Typer(
    help="The self-hosted connection layer for WebRTC: a STUN/TURN relay and signaling.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def options(
    *, version: Annotated[bool, typer.Option("--version", help="Say the version.")] = False
) -> None:
    """Say the version, if asked to."""
    if version:
        core = find_spec("turn.routes")
        compiled = "" if core is None or str(core.origin).endswith(".py") else ", compiled"
        typer.echo(f"icebroker {version_of('icebroker')}{compiled}")
        raise typer.Exit


@app.command()
def serve(
    config: ConfigFile = None,
    *,
    lan: Annotated[
        bool, typer.Option("--lan", help="Open the pages to the local network, over HTTPS.")
    ] = False,
) -> None:
    """Run the relay and signaling in one process; without a configuration, for this machine."""
    from cli.machine import hosts, lan_certificate, relay_urls
    from cli.relay import Relay
    from cli.running import run
    from cli.signaling import Signaling
    from config import laptop
    from turn.admin.journal import Journal

    bare = config is None and not DEFAULT_FILE.exists()
    if lan and not bare:
        fail("--lan is for running without a configuration; this one says who may connect")
    defaults = laptop.defaults(lan=lan) if bare else {}

    def read(running: Settings | None = None) -> Settings:
        if lan:
            defaults["signaling"] |= lan_certificate()
        return load_settings(config, None, defaults, ("turn", "signaling"), running)

    settings, journal = or_fail(read), Journal()
    relay = Relay(settings, journal)
    rooms = Signaling(settings, journal, relay.service.resolved)
    rooms.service.on_revoked(relay.service.heed)
    relay.service.on_remembered = rooms.service.remember  # it starts first

    def ready(admin: tuple[str, int]) -> None:
        if Supervisor.of(os.environ).listens:
            return  # its log is for lines
        urls = relay_urls(relay.service.resolved(settings.turn))
        running = laptop.Running(
            version_of("icebroker"), admin, urls, relay.service.plane, relay.service.plane_reason
        )
        typer.echo(laptop.banner(settings, running, hosts(), bare=bare, lan=lan))

    run(settings, journal, [relay, rooms], read, ready=ready)


@app.command()
def turn(config: ConfigFile = None) -> None:
    """Run the STUN/TURN relay."""
    from cli.relay import Relay
    from cli.running import run
    from turn.admin.journal import Journal

    settings, journal = load(config, "turn"), Journal()
    relay = Relay(settings, journal)

    def read(running: Settings) -> Settings:
        return load_settings(config, services=["turn"], running=running)

    run(settings, journal, [relay], read, relay.watches(settings))


@app.command()
def kernel(
    config: ConfigFile = None,
    lend_to: Annotated[
        str, typer.Option(help="User, by name or number, who may then write the routes.")
    ] = "",
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Lend what another process has loaded, and end.")
    ] = False,
) -> None:
    """Load the relay's kernel program, so that the relay itself needs no rights."""
    from config.log import set_up
    from turn.kernel.service import LoaderError, LoaderService, lend

    settings = load(config)
    set_up(settings.log)
    directory, user = Path(settings.turn.kernel_directory), user_id(lend_to)
    try:
        if once:
            lend(directory, os.getuid() if user is None else user)
        else:
            loader = LoaderService(directory, settings.turn.kernel_hook, user)
            asyncio.run(loader.run(Supervisor.of(os.environ).ready))
    except LoaderError as error:
        fail(str(error))


@app.command()
def signaling(config: ConfigFile = None) -> None:
    """Run the signaling service and its pages."""
    from cli.running import run
    from cli.signaling import Signaling
    from turn.admin.journal import Journal

    settings, journal = load(config, "signaling"), Journal()

    def read(running: Settings) -> Settings:
        return load_settings(config, services=["signaling"], running=running)

    run(settings, journal, [Signaling(settings, journal)], read)


@app.command()
def check(
    config: ConfigFile = None,
    only: Annotated[
        str, typer.Option(help="Check for what runs: turn, signaling, or serve (both).")
    ] = "",
) -> None:
    """Validate a configuration; exit code 1 and file:line for each problem."""
    if only not in {"", "serve", "turn", "signaling"}:
        fail("--only is turn, signaling or serve")
    load(config, *([only] if only in {"turn", "signaling"} else ["turn", "signaling"]))
    typer.echo(f"ok: {config or (DEFAULT_FILE if DEFAULT_FILE.exists() else 'the defaults')}")


@app.command()
def credentials(name: str, config: ConfigFile = None, ttl: Ttl = "1h", tenant: Tenant = "") -> None:
    """Print ICE servers with time-limited credentials for NAME, as JSON."""
    from cli.ice import provider
    from turn.auth.ephemeral import name_in

    settings = load(config)
    check_tenant(settings.turn, tenant)
    if not settings.turn.secret_of(tenant):
        key = f"turn.tenants.{tenant}.secret" if tenant else "turn.secret"
        is_anybodys = not tenant and settings.turn.tenants
        which = "name one of turn.tenants with --tenant" if is_anybodys else ""
        then = which or "set it, or name the relay's configuration with -c"
        fail(f"{key} is not set here, so there is nothing to make credentials with: {then}")
    grant = provider(settings, seconds(ttl), tenant=tenant).issue(
        name_in(tenant, name), time.time()
    )
    typer.echo(json.dumps(grant.document(), indent=2))


@app.command()
def token(
    room: str,
    config: ConfigFile = None,
    name: Annotated[str, typer.Option(help="What the others see.")] = "",
    ttl: Ttl = "1h",
) -> None:
    """Print a token that lets its holder join ROOM."""
    from signaling.auth import Tokens

    settings = load(config)
    secrets = [secret.get_secret_value() for secret in settings.signaling.token_secret]
    if not secrets:
        fail(
            "signaling.token_secret is not set here: name the service's configuration with -c; if "
            "it has none, rooms are open, and no token is needed"
        )
    claims: dict[str, Any] = {"room": room, "exp": int(time.time()) + seconds(ttl)}
    if name:
        claims |= {"name": name, "sub": name}
    typer.echo(Tokens(secrets).mint(claims))


@app.command()
def doctor(
    urls: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[URL]...",
            help="turn:HOST:PORT?transport=udp, turns:…, https:…",
        ),
    ] = None,
    config: ConfigFile = None,
    *,
    username: Annotated[str, typer.Option(help="For another's server; ours: from -c.")] = "",
    password: Annotated[str, typer.Option(envvar="DOCTOR_PASSWORD")] = "",
    tenant: Tenant = "",
    token: Annotated[
        str, typer.Option(help="A join token, for https: with tokens; ours: from -c.")
    ] = "",
    ca: Annotated[Path | None, typer.Option(help="PEM file of an authority to trust.")] = None,
    load: Annotated[
        bool, typer.Option(help="Send 1.6 Mbit/s through it for a second, and try more ports.")
    ] = True,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds an answer may take.")] = 4.0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Try a server as its clients do, and say what is wrong.

    Without a URL: our own server, and what it needs of this machine.

    Exit code 0: nothing failed (read the warnings). 1: something failed. 2: nothing could be tried.
    """
    from cli import doctor as ours
    from config.log import set_up
    from config.schema import LogSettings
    from turn.doctor.examine import Options
    from turn.doctor.report import EXIT_NOT_TRIED, Report
    from turn.doctor.target import Credentials

    try:
        settings = load_settings(config)
        wanted = ours.Wanted.of(urls) if urls else ours.Wanted.own(settings)
    except (ConfigError, ValueError) as error:
        fail(*getattr(error, "problems", [str(error)]), code=EXIT_NOT_TRIED)
    set_up(LogSettings(level="error"))
    check_tenant(settings.turn, tenant, code=EXIT_NOT_TRIED)
    own = ours.credentials(settings, username, tenant)
    known = Credentials(username, password) if password else own
    options = Options(known, ca, load, patience=timeout)

    async def examine() -> list[Any]:
        here = [] if urls else await ours.examine_here(settings)
        shown = token or ours.join_token(settings)
        return here + await ours.examine_wanted(wanted, shown, options)

    report = Report(asyncio.run(examine()))
    typer.echo(report.json() if as_json else report.text())
    raise typer.Exit(report.exit_code)


def main() -> None:
    """Run the command line."""
    # PyJWT's word on a token_secret of 16 to 31 bytes: config.signaling says how long.
    warnings.filterwarnings("ignore", message="The HMAC key is .* bytes long")
    app()


if __name__ == "__main__":
    main()
