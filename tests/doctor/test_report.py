"""What is printed, and what the process ends with."""

import json

import pytest

from turn.doctor.report import Finding, Report, Section, Status
from turn.doctor.target import Target, parse_url
from turn.routes import Transport


def section(*statuses: Status, check: str = "echo") -> Section:
    made = Section("turn:relay.example.org")
    for number, status in enumerate(statuses):
        made.findings.append(Finding(check, status, f"sentence {number}", "do this"))
    return made


@pytest.mark.parametrize(
    ("statuses", "code", "verdict"),
    [
        ([], 0, "was not tried"),
        ([Status.SKIP], 0, "was not tried"),
        ([Status.OK, Status.SKIP], 0, "works"),
        ([Status.OK, Status.WARN], 0, "works, with a reservation: sentence 1"),
        ([Status.OK, Status.FAIL], 1, "does not work: sentence 1"),
        ([Status.FAIL, Status.WARN, Status.FAIL], 1, "does not work: sentence 0 (and 1 more)"),
    ],
)
def test_a_verdict(statuses: list[Status], code: int, verdict: str) -> None:
    one = section(*statuses)
    assert (Report([one]).exit_code, one.verdict) == (code, verdict)


def test_what_works_for_strangers_too_is_not_called_broken() -> None:
    one = section(Status.OK, Status.FAIL, check="private")
    assert one.verdict == "works, and is not safe: sentence 1"
    assert Report([one]).exit_code == 1


def test_what_it_depends_on_was_not_tried() -> None:
    one = section(Status.OK, Status.SKIP, Status.WARN, check="join")
    assert one.verdict == "works as far as it was tried, and that is not all: sentence 1 (do this)"
    body = json.loads(Report([one]).json())
    assert body["sections"][0]["untried"] == ["join"]


def test_text_and_json_say_the_same() -> None:
    one = section(Status.OK, Status.FAIL)
    text = Report([one]).text().splitlines()
    assert text == [
        "",
        "turn:relay.example.org",
        "  ok    echo  sentence 0",
        "              → do this",
        "  FAIL  echo  sentence 1",
        "              → do this",
        "",
        "Verdict: turn:relay.example.org does not work: sentence 1",
    ]
    body = json.loads(Report([one]).json())
    assert (body["passed"], body["sections"][0]["verdict"]) == (False, one.verdict)
    assert [each["status"] for each in body["sections"][0]["findings"]] == ["ok", "fail"]


@pytest.mark.parametrize(
    ("text", "host", "port", "transport", "relays"),
    [
        ("turn:a.example", "a.example", 3478, Transport.UDP, True),
        ("turn:a.example:80?transport=tcp", "a.example", 80, Transport.TCP, True),
        ("TURNS:a.example", "a.example", 5349, Transport.TLS, True),
        ("turns:[2001:db8::1]:443?transport=tcp", "2001:db8::1", 443, Transport.TLS, True),
        ("turns:a?transport=udp", "a", 5349, Transport.DTLS, True),
        ("stun:192.0.2.1", "192.0.2.1", 3478, Transport.UDP, False),
    ],
)
def test_urls(text: str, host: str, port: int, transport: Transport, *, relays: bool) -> None:
    assert parse_url(text) == Target(text, host, port, transport, relays)


@pytest.mark.parametrize(
    "text",
    ["", "a.example", "http://a", "turn:", "turn:a:0", "turn:a:70000", "turn:2001:db8::1",
     "turn:a?transport=sctp", "turn:a b", "turn:[::1"],
)  # fmt: skip
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(ValueError, match=r"write turn:|is no port"):
        parse_url(text)
