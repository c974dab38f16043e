"""The reference pages of ``deploy/docs/reference``, made from the code that they speak of."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from config.schema import Settings
from config.section import Section
from icebroker import app
from signaling.ice import IceProvider
from signaling.server import SignalingService
from turn.admin.journal import Journal
from turn.admin.listener import Admin
from turn.metrics import External, ProcessCollector, WorkerRow, worker_metrics
from turn.server import TurnService
from turn.stats import DropReason

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "deploy/docs/reference"
SAMPLE = ROOT / "config/icebroker.toml"
MADE = "<!-- Made from the code by `make docs`: change it there. -->\n"
OPEN_ENDED = {"version", "worker"}
"""Labels whose values are not listed."""
ABOUT_SETTINGS = f"""# Settings

{MADE}
A setting of `[turn]` named `secret` is `turn.secret` here. It may also come from the environment
variable `ICEBROKER_TURN__SECRET`, from the file that `ICEBROKER_TURN__SECRET_FILE` names, or from a
systemd credential `icebroker_turn__secret`. Times are seconds, or texts such as `90s`, `1h`, `7d`.

Most settings change while the service runs: change the file and send SIGHUP (`systemctl reload`).
Those marked **restart** do not. [`icebroker.toml`](../../../config/icebroker.toml) is the same as a
file.
"""
ABOUT_METRICS = f"""# Metrics

{MADE}
At `http://127.0.0.1:9641/metrics` (`admin.listen`). No label names a user, a room or an address.
Counters (their names end in `_total`) only grow; look at their `rate()`.
"""
ABOUT_API = f"""# Admin API

{MADE}
On `admin.listen`, where `admin.token` is set; send it as `Authorization: Bearer …`.
`/api/v1/openapi.json` describes parameters and answers, and needs no token.
"""


def pages() -> dict[str, str]:
    """Each page's name and text."""
    return {
        "settings.md": settings(),
        "metrics.md": metrics(),
        "commands.md": commands(),
        "api.md": api(),
    }


# Settings ------------------------------------------------------------------------------------


def settings() -> str:
    """Every setting, in the words of the sample configuration."""
    text = [ABOUT_SETTINGS]
    for name, field in Settings.model_fields.items():
        section = field.annotation
        assert isinstance(section, type)
        assert issubclass(section, Section)
        text.append(f"## {name}\n")
        text += _settings_of(name, section)
    return "\n".join(text)


def _settings_of(name: str, section: type[Section]) -> Iterator[str]:
    shown = re.split(r"(?m)^\[(\w+)\]", SAMPLE.read_text("utf-8"))
    body = shown[shown.index(name) + 1]
    for paragraph in re.split(r"\n\s*\n", body):
        keys = re.findall(r"(?m)^(\w+) = (.*)$", paragraph)
        if not keys:
            continue
        words = " ".join(re.findall(r"(?m)^# ?(.*)$", paragraph))
        for key, default in keys:
            restart = " · **restart**" if key in section.fixed else ""
            yield f"**`{name}.{key}`** = `{default}`{restart}  "
        yield f"{words}\n"


# Metrics -------------------------------------------------------------------------------------


def metrics() -> str:
    """Every metric, as the collectors of both services give it."""
    text = [ABOUT_METRICS]
    relay, signaling = _services()
    for service in (relay, signaling):  # else there is no such metric
        service.collector._gauges.certificate_expiry = lambda: 0.0
    relay.collector._gauges.external = lambda: External(0.0, 0)
    for title, families in (
        ("The relay", relay.collector.collect()),
        (
            "Its workers, where there are several",
            worker_metrics([WorkerRow(True, 0, 0, 0.0, 0, 0)]),
        ),
        ("Signaling", signaling.collector.collect()),
        ("The process", ProcessCollector("0", lambda: False, lambda: True).collect()),
    ):
        text.append(f"## {title}\n\n| Metric | Type | Labels | Meaning |\n|---|---|---|---|")
        text += [_row(family) for family in families]
        text.append("")
    text.append("## Why a packet was dropped\n")
    text.append("`icebroker_turn_dropped_packets_total{reason=…}`:\n")
    described = _docstrings(Path(__file__).parents[2] / "turn/stats.py", "DropReason")
    for reason in DropReason:
        about = described.get(reason.name, "")
        text.append(f"- `{reason}`{': ' + about if about else ''}")
    return "\n".join(text) + "\n"


def _services() -> tuple[Any, Any]:
    """Both, as they are before they start."""
    whole = Settings()
    ice = IceProvider(tuple, "", 3600)
    return TurnService(whole.turn), SignalingService(whole.signaling, ice, whole.redis)


def _row(family: Any) -> str:
    suffix = "_total" if family.type == "counter" else ""
    labels = []
    for label in getattr(family, "_labelnames", ()):
        seen = {sample.labels[label] for sample in family.samples if label in sample.labels}
        values = (
            ", ".join(f"`{value}`" for value in sorted(seen)) if label not in OPEN_ENDED else ""
        )
        labels.append(f"`{label}`: {values}" if values else f"`{label}`")
    name = f"`{family.name}{suffix}`"
    return f"| {name} | {family.type} | {'; '.join(labels)} | {family.documentation} |"


def _docstrings(file: Path, name: str) -> dict[str, str]:
    """The strings below the members of a class."""
    body = file.read_text("utf-8").split(f"class {name}(", 1)[1].split("\nclass ", 1)[0]
    found = re.findall(r'(?m)^    (\w+) = "\w+"\n    """((?:.|\n)*?)"""', body)
    return {member: " ".join(text.split()) for member, text in found}


# Admin API -----------------------------------------------------------------------------------


def api() -> str:
    """Every operation of the admin API."""
    admin = Admin(Settings().admin, _services(), Journal(), _NoControl())
    text = [
        ABOUT_API,
        "| | Path | What |\n|---|---|---|",
        *(f"| {each.method} | `{each.path}` | {each.about} |" for each in admin.operations),
    ]
    return "\n".join(text) + "\n"


class _NoControl:
    log_level = "info"
    reloaded = True

    def reload(self) -> list[str]:
        return []

    def set_log_level(self, level: str) -> None:
        self.log_level = level

    async def spread_revocation(self, user: str, until: float) -> bool:
        return False


# Commands ------------------------------------------------------------------------------------


def commands() -> str:
    """Every command with its arguments and options."""
    group: Any = typer.main.get_command(app)
    text = [f"# Commands\n\n{MADE}", "`icebroker --version` says the version.\n"]
    for name, command in group.commands.items():
        arguments = "".join(f" {_argument(each)}" for each in _parameters(command, "argument"))
        text.append(f"## icebroker {name}{arguments}\n\n{' '.join(command.help.split())}\n")
        options = _parameters(command, "option")
        text += [_option(option) for option in options if option.name != "help"]
        text.append("")
    return "\n".join(text).rstrip() + "\n"


def _parameters(command: Any, kind: str) -> list[Any]:
    return [each for each in command.params if each.param_type_name == kind]


def _argument(argument: Any) -> str:
    return str(argument.metavar) if argument.metavar else str(argument.name).upper()


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    about = " ".join((option.help or "").split())
    default = option.default
    shown = f" Default: `{default}`." if default not in (None, "", False, True) else ""
    variable = f" From the environment: `{option.envvar}`." if option.envvar else ""
    said = f"{about}{shown}{variable}".strip()
    return f"- {names}: {said}" if said else f"- {names}"


def write() -> None:
    """Write them all."""
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text, "utf-8")


if __name__ == "__main__":
    write()
