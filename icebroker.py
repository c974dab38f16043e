"""The command line: one sub-command for each thing that a person does, and no logic.

Services are imported by the commands that run them, so that the others answer at once.
"""

import asyncio
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from config.load import DEFAULT_FILE, ConfigError
from config.load import load as load_settings
from config.schema import Settings
from config.systemd import DescriptorStore, Supervisor
from config.values import parse_duration

app = typer.Typer(
    help="The self-hosted connection layer for WebRTC: a STUN/TURN relay and signaling.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ConfigFile = Annotated[
    Path | None,
    # Whether it can be read is config.load's to say, in one line.
    typer.Option(
        "-c", "--config", help="TOML file; default: icebroker.toml here, if any.", readable=False
    ),
]
Ttl = Annotated[str, typer.Option(help="How long it is good: seconds, or 90s, 15m, 1h, 7d.")]


@app.callback(invoke_without_command=True)
def options(
    *, version: Annotated[bool, typer.Option("--version", help="Say the version.")] = False
) -> None:
    """Say the version, if asked to."""
    if version:
        typer.echo(f"icebroker {version_of('icebroker')}")
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
    from config import laptop

    bare = config is None and not DEFAULT_FILE.exists()
    if lan and not bare:
        _fail("--lan is for running without a configuration; this one says who may connect")
    defaults = laptop.defaults(lan=lan) if bare else {}

    def load(running: Settings | None = None) -> Settings:
        if lan:
            defaults["signaling"] |= _lan_certificate()
        return load_settings(config, None, defaults, ("turn", "signaling"), running)

    settings = _or_fail(load)
    journal = _journal()
    turn_service, signaling_service = _turn(settings, journal), _signaling(settings, journal)
    signaling_service.on_revoked(turn_service.heed)
    turn_service.on_remembered = signaling_service.remember  # it starts first

    def ready(admin: tuple[str, int]) -> None:
        if Supervisor.of(os.environ).listens:
            return  # its log is for lines
        running = laptop.Running(
            version_of("icebroker"), admin, _relay_urls(settings), turn_service.plane,
            turn_service.plane_reason,
        )  # fmt: skip
        typer.echo(laptop.banner(settings, running, _machine_hosts(), bare=bare, lan=lan))

    def reload(running: Settings) -> Settings:
        new = load(running)
        _reload_turn(turn_service, new)
        _reload_signaling(signaling_service, new)
        return new

    _run(settings, journal, [turn_service, signaling_service], reload, ready=ready)


@app.command()
def turn(config: ConfigFile = None) -> None:
    """Run the STUN/TURN relay."""
    settings, journal = _load(config, "turn"), _journal()
    service = _turn(settings, journal)

    def reload(running: Settings) -> Settings:
        new = load_settings(config, services=["turn"], running=running)
        _reload_turn(service, new)
        return new

    _run(settings, journal, [service], reload, _watches(settings, service))


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

    settings = _load(config)
    set_up(settings.log)
    directory, user = Path(settings.turn.kernel_directory), _user(lend_to)
    try:
        if once:
            lend(directory, os.getuid() if user is None else user)
        else:
            loader = LoaderService(directory, settings.turn.kernel_hook, user)
            asyncio.run(loader.run(Supervisor.of(os.environ).ready))
    except LoaderError as error:
        _fail(str(error))


@app.command()
def signaling(config: ConfigFile = None) -> None:
    """Run the signaling service and its pages."""
    settings, journal = _load(config, "signaling"), _journal()
    service = _signaling(settings, journal)

    def reload(running: Settings) -> Settings:
        new = load_settings(config, services=["signaling"], running=running)
        _reload_signaling(service, new)
        return new

    _run(settings, journal, [service], reload)


@app.command()
def check(
    config: ConfigFile = None,
    only: Annotated[
        str, typer.Option(help="Check for what runs: turn, signaling, or serve (both).")
    ] = "",
) -> None:
    """Validate a configuration; exit code 1 and file:line for each problem."""
    if only not in {"", "serve", "turn", "signaling"}:
        _fail("--only is turn, signaling or serve")
    _load(config, *([only] if only in {"turn", "signaling"} else ["turn", "signaling"]))
    typer.echo(f"ok: {config or (DEFAULT_FILE if DEFAULT_FILE.exists() else 'the defaults')}")


@app.command()
def credentials(name: str, config: ConfigFile = None, ttl: Ttl = "1h") -> None:
    """Print ICE servers with time-limited credentials for NAME, as JSON."""
    settings = _load(config)
    if not settings.turn.secret:
        _fail(
            "turn.secret is not set here, so there is nothing to make credentials with: name the "
            "relay's configuration with -c"
        )
    provider = _ice(settings, ttl=_seconds(ttl))
    typer.echo(json.dumps(provider.issue(name, time.time()).document(), indent=2))


@app.command()
def token(
    room: str,
    config: ConfigFile = None,
    name: Annotated[str, typer.Option(help="What the others see.")] = "",
    ttl: Ttl = "1h",
) -> None:
    """Print a token that lets its holder join ROOM."""
    from signaling.auth import Tokens

    settings = _load(config)
    secrets = [secret.get_secret_value() for secret in settings.signaling.token_secret]
    if not secrets:
        _fail(
            "signaling.token_secret is not set here: name the service's configuration with -c; if "
            "it has none, rooms are open, and no token is needed"
        )
    claims: dict[str, Any] = {"room": room, "exp": int(time.time()) + _seconds(ttl)}
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
    from config.log import set_up
    from config.schema import LogSettings
    from turn.doctor.examine import Options, examine_all
    from turn.doctor.report import EXIT_NOT_TRIED, Report
    from turn.doctor.target import Credentials, parse_url

    try:
        settings = load_settings(config)
        wanted = urls or [url for group in _relay_urls(settings) for url in group]
        pages = [url for url in wanted if url.startswith(("http://", "https://"))]
        targets = [parse_url(url) for url in wanted if url not in pages]
    except (ConfigError, ValueError) as error:
        _fail(*getattr(error, "problems", [str(error)]), code=EXIT_NOT_TRIED)
    set_up(LogSettings(level="error"))
    known = Credentials(username, password) if password else _credentials(settings, username)
    options = Options(known, ca, load, patience=timeout)

    async def examine() -> list[Any]:
        sections = [] if urls else await _examine_here(settings)
        for page in pages:
            shown = token or _doctors_token(settings)
            sections += await _examine_signaling(page, shown, options)
        return sections + await examine_all(targets, options)

    report = Report(asyncio.run(examine()))
    typer.echo(report.json() if as_json else report.text())
    raise typer.Exit(report.exit_code)


def _credentials(settings: Settings, name: str = "") -> Any:
    """What our own relay takes."""
    from turn.doctor.target import Credentials

    if settings.turn.secret:
        return Credentials(name, "", settings.turn.secret[0].get_secret_value())
    for user, password in settings.turn.users.items():
        return Credentials(user, password.get_secret_value())
    return Credentials()


def _doctors_token(settings: Settings) -> str:
    """What opens a room of its own for a moment, where we know the secret; else nothing."""
    from signaling.auth import Tokens
    from signaling.rehearsal import NAME, room_of

    secrets = [secret.get_secret_value() for secret in settings.signaling.token_secret]
    claims = {"room": room_of(""), "name": NAME, "exp": int(time.time()) + 120}
    return Tokens(secrets).mint(claims) if secrets else ""


async def _examine_here(settings: Settings) -> list[Any]:
    """What this machine lacks, and the signaling that runs on it."""
    from signaling.examine import examine_own, examine_redis
    from turn.doctor import host
    from turn.doctor.report import Section

    machine = Section("this machine", "has what it needs")
    host.relay(machine, settings.turn)
    machine.take([await examine_redis(settings.redis)])
    place, findings = await examine_own(settings.signaling, _doctors_token(settings))
    pages = Section(place)
    pages.take(findings)
    return [machine, pages]


async def _examine_page(page: str, token: str, authority: Path | None = None) -> tuple[Any, Any]:
    """Signaling, and the ICE servers that it hands out."""
    from signaling.examine import examine_signaling
    from turn.doctor.report import Section

    examined = await examine_signaling(page, token, authority)
    section = Section(page)
    section.take(examined.findings)
    return section, examined.ice_servers


async def _examine_signaling(page: str, token: str, options: Any) -> list[Any]:
    """Signaling, and each ICE server that it hands out, with the credentials that it gives."""
    from turn.doctor.examine import examine_all
    from turn.doctor.target import Credentials, parse_url

    section, ice_servers = await _examine_page(page, token, options.authority)
    sections = [section]
    for server in ice_servers:
        shown = Credentials(server.username, server.credential)
        try:
            targets = [parse_url(url) for url in server.urls]
        except ValueError as error:
            section.fail("ice-servers", str(error), "mend signaling.ice_servers")
            continue
        sections += await examine_all(targets, options._replace(credentials=shown))
    return sections


# Composition ---------------------------------------------------------------------------------


def _journal() -> Any:
    from turn.admin.journal import Journal

    return Journal()


def _turn(settings: Settings, journal: Any) -> Any:
    from turn import assemble
    from turn.common import alone
    from turn.relay.shelf import NO_SHELF
    from turn.server import TurnService

    shelf = DescriptorStore.of(os.environ) or NO_SHELF
    redis = settings.redis.address()
    ports = {settings.signaling.listen.port, 6379}
    ports |= {endpoint.port for endpoint in settings.admin.listen}
    ports |= {host.port for host in redis.hosts} if redis else set()
    # Redis tells of revocations again, and of those that were taken back meanwhile.
    revoked = None if redis else assemble.revoked(settings.turn)
    if settings.turn.workers > 1:
        from turn.workers.pool import WorkerPool

        shelf.clean()  # of a single process before; workers do without
        return WorkerPool(settings.turn, settings.log, ports, journal, revoked)
    return TurnService(settings.turn, ports, alone(shelf, revoked), tell=journal.tell)


def _reload_turn(service: Any, settings: Settings) -> None:
    if settings.turn.workers > 1:
        service.reload(settings.turn, settings.log)
    else:
        service.reload(settings.turn)


def _watches(settings: Settings, relay: Any) -> list[Any]:
    """What tells a relay of processes elsewhere, and them of it, if there is a Redis between."""
    from signaling.revocations import RevocationWatch

    return [RevocationWatch(settings.redis, relay.heed)] if settings.redis.address() else []


def _signaling(settings: Settings, journal: Any) -> Any:
    from signaling.server import SignalingService

    ice = _ice(settings, int(settings.signaling.ice_ttl))
    return SignalingService(settings.signaling, ice, settings.redis, journal.tell)


def _reload_signaling(service: Any, settings: Settings) -> None:
    service.reload(settings.signaling)
    service.ice.replace(*_ice_servers(settings), int(settings.signaling.ice_ttl))


def _ice(settings: Settings, ttl: int) -> Any:
    from signaling.ice import IceProvider

    return IceProvider(*_ice_servers(settings), ttl)


def _ice_servers(settings: Settings) -> tuple[Callable[[], list[Any]], str]:
    """What to hand out, and the secret that signs credentials for our own relay."""
    from signaling.ice import Server

    configured = [
        Server(entry.urls, entry.username, entry.credential.get_secret_value())
        for entry in settings.signaling.ice_servers
    ]
    secret = settings.turn.secret[0].get_secret_value() if settings.turn.secret else ""
    return lambda: configured or [Server(urls) for urls in _relay_urls(settings)], secret


def _relay_urls(settings: Settings) -> list[tuple[str, ...]]:
    from config.ice import relay_urls

    return relay_urls(settings.turn, _machine_hosts())


def _machine_hosts() -> list[str]:
    """What a wildcard stands for, the best address first."""
    from turn.transport.addresses import local_addresses, relay_candidates

    return [host for hosts in relay_candidates(local_addresses()).values() for host in hosts]


def _lan_certificate() -> dict[str, Path]:
    """A certificate for this machine in its network. :raises ConfigError: it cannot be kept."""
    from config.certificate import self_signed
    from turn.transport.addresses import local_addresses

    try:
        certificate, key = self_signed(local_addresses())
    except OSError as error:
        raise ConfigError([f"the certificate for --lan cannot be kept: {error}"]) from None
    return {"tls_certificate": certificate, "tls_key": key}


# Running -------------------------------------------------------------------------------------


def _run(
    settings: Settings,
    journal: Any,
    services: Sequence[Any],
    reload: Callable[[Settings], Settings],
    beside: Sequence[Any] = (),
    ready: Callable[[tuple[str, int]], None] = lambda _: None,
) -> None:
    """Run services until a signal ends them. :param ready: told where the admin listener is."""
    from config.section import StartError
    from turn.admin.life import run
    from turn.admin.process import Process

    async def probe(url: str) -> bytes:
        from turn.doctor.prometheus import probe

        return await probe(_probe(url, process.settings))

    process = Process(settings, journal, services, reload, probe, beside)
    try:
        run(process, lambda: ready(process.admin.address))
    except (OSError, StartError) as error:
        _fail(getattr(error, "strerror", None) or str(error))


async def _probe(url: str, settings: Settings) -> Any:
    """What a scrape asks for: signaling or a relay, tried with what our own take."""
    from turn.doctor.examine import Options, examine
    from turn.doctor.target import parse_url

    if url.startswith(("http://", "https://")):
        section, _ = await _examine_page(url, _doctors_token(settings))
        return section
    return await examine(parse_url(url), Options(_credentials(settings), load=False))


def _load(config: Path | None, *services: str) -> Settings:
    return _or_fail(lambda: load_settings(config, services=services))


def _or_fail(load: Callable[[], Settings]) -> Settings:
    try:
        return load()
    except ConfigError as error:
        _fail(*error.problems)


def _user(name: str) -> int | None:
    """A user's number."""
    import pwd

    try:
        return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid if name else None
    except KeyError:
        _fail(f"--lend-to: there is no user {name}")


def _seconds(text: str) -> int:
    try:
        return int(parse_duration(text))
    except ValueError as error:
        _fail(f"--ttl: {error}")


def _fail(*problems: str, code: int = 1) -> NoReturn:
    for problem in problems:
        typer.echo(f"icebroker: {problem}", err=True)
    sys.exit(code)


def main() -> None:
    """Run the command line."""
    # PyJWT's word on a token_secret of 16 to 31 bytes: config.signaling says how long.
    warnings.filterwarnings("ignore", message="The HMAC key is .* bytes long")
    app()


if __name__ == "__main__":
    main()
