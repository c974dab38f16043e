"""What the doctor finds, as people and as programs read it."""

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec
from msgspec import Struct

EXIT_WELL, EXIT_ILL, EXIT_NOT_TRIED = 0, 1, 2
"""Nothing failed (there may be warnings) · something failed · nothing could be tried."""
ARROW = "→"


class Status(StrEnum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"
    """It works, and will not for everyone or for long."""
    FAIL = "fail"
    SKIP = "skip"
    """It could not be tried; the sentence says why."""


class Finding(Struct, frozen=True):
    """One check and what came of it."""

    check: str
    status: Status
    says: str
    """What is so, in a sentence."""
    next: str = ""
    """What to do about it."""
    seconds: float | None = None


UNSAFE = frozenset({"open", "private"})
"""Checks that a server can fail while it works for everyone, strangers among them."""

DECISIVE = frozenset({"credentials", "ice-servers", "join"})
"""Checks without which nobody knows whether it works; for each something has to be given."""


class Section(Struct):
    """All that was found about one thing: a URL, or this machine."""

    about: str
    well: str = "works"
    """What is said of it where nothing is wrong."""
    findings: list[Finding] = []

    def ok(self, check: str, says: str, seconds: float | None = None) -> None:
        """It is as it should be."""
        self.findings.append(Finding(check, Status.OK, says, "", _round(seconds)))

    def warn(self, check: str, says: str, then: str) -> None:
        """It works, with a reservation."""
        self.findings.append(Finding(check, Status.WARN, says, then))

    def fail(self, check: str, says: str, then: str) -> None:
        """It does not work."""
        self.findings.append(Finding(check, Status.FAIL, says, then))

    def skip(self, check: str, says: str, then: str = "") -> None:
        """It was not tried."""
        self.findings.append(Finding(check, Status.SKIP, says, then))

    def take(self, found: Iterable[tuple[str, str, str, str]]) -> None:
        """Take over what was found elsewhere: check, status, sentence, next step."""
        for check, status, says, then in found:
            self.findings.append(Finding(check, Status(status), says, then))

    def of(self, status: Status) -> list[Finding]:
        """The findings that went so."""
        return [finding for finding in self.findings if finding.status is status]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.of(Status.FAIL)

    @property
    def works(self) -> bool:
        """Whether clients are served, safely or not."""
        return all(finding.check in UNSAFE for finding in self.of(Status.FAIL))

    @property
    def untried(self) -> list[Finding]:
        """What was left out, and whether it works depends on it."""
        return [finding for finding in self.of(Status.SKIP) if finding.check in DECISIVE]

    @property
    def verdict(self) -> str:
        """The whole in a sentence."""
        failed, warned = self.of(Status.FAIL), self.of(Status.WARN)
        if failed:
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            ill = f"{self.well}, and is not safe" if self.works else "does not work"
            worst = next((one for one in failed if one.check not in UNSAFE), failed[0])
            return f"{ill}: {worst.says}{more}"
        if self.untried and self.of(Status.OK):
            lacks = "; ".join(finding.says for finding in self.untried)
            then = self.untried[-1].next
            return f"{self.well} as far as it was tried, and that is not all: {lacks} ({then})"
        if warned:
            return f"{self.well}, with a reservation: {warned[0].says}"
        if not self.of(Status.OK):
            return "was not tried"
        return self.well


class Report(Struct):
    """Everything."""

    sections: list[Section]

    @property
    def exit_code(self) -> int:
        """What the process ends with."""
        return EXIT_WELL if all(section.passed for section in self.sections) else EXIT_ILL

    def text(self) -> str:
        """For people."""
        lines: list[str] = []
        for section in self.sections:
            lines += ["", section.about, *_lines(section.findings)]
        lines.append("")
        lines += [f"Verdict: {section.about} {section.verdict}" for section in self.sections]
        return "\n".join(lines)

    def json(self) -> str:
        """For programs."""
        body = {
            "passed": self.exit_code == EXIT_WELL,
            "sections": [
                {
                    "about": section.about,
                    "passed": section.passed,
                    "verdict": section.verdict,
                    "untried": [finding.check for finding in section.untried],
                    "findings": section.findings,
                }
                for section in self.sections
            ],
        }
        return msgspec.json.format(msgspec.json.encode(body), indent=2).decode()


def _lines(findings: Sequence[Finding]) -> Iterable[str]:
    width = max((len(finding.check) for finding in findings), default=0)
    for finding in findings:
        mark = finding.status.upper() if finding.status is Status.FAIL else finding.status
        yield f"  {mark:<5} {finding.check:<{width}}  {finding.says}"
        if finding.next:
            yield f"  {'':<5} {'':<{width}}  {ARROW} {finding.next}"


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
