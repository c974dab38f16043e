/** What the ICE tester says of a result, in one place. */

import { kindOf } from "../client/ice.js";

/** STUN and TURN error codes (RFC 8489 §14.8, RFC 8656 §19) and the browser's own 701 (W3C WebRTC §5.7). */
const ERRORS = {
  400: "The server calls the request bad: is this really a TURN server?",
  401: "The server refuses these credentials: they are wrong or expired, or its clock is.",
  403: "The server forbids this.",
  438: "The server refuses these credentials as stale, again and again: do its clocks differ?",
  437: "The server took the allocation for another one.",
  440: "The server does not relay for this address family.",
  442: "The server does not relay over this transport.",
  486: "This user has as many allocations as the server allows: wait, or raise the quota.",
  500: "The server has a fault; its log says which.",
  508: "The server has no relay port left, or is about to stop (it drains).",
  701: "No answer: the name is not known here, the address or port is wrong, a firewall drops the packets, or the certificate does not fit.",
};

/** As Chromium ends for a TCP or TLS port that is closed. */
const NO_REASON = "No relay address, and no reason from the browser: most often nothing listens at this address and port.";

const TRANSPORTS = { udp: "UDP", tcp: "TCP", tls: "TLS" };

/** good, warn or bad: for one server's result. */
export function gradeOf({ url, candidates, errors, complete, echo }) {
  if (isRelay(url)) {
    if (!candidates.length) return "bad";
    return echo?.received && echo.received > echo.sent * 0.9 ? "good" : "warn";
  }
  return candidates.length || (complete && !errors.length) ? "good" : "bad";
}

/** One or two sentences for one server's result. */
export function judge(result) {
  const { url, candidates, errors, complete } = result;
  if (!candidates.length && errors.length) return errors.map(errorWords).join(" ");
  if (!candidates.length && !complete) return ERRORS[701];
  if (isRelay(url)) return candidates.length ? relayWords(result) : NO_REASON;
  if (!candidates.length) return "Answers, and sees the address that this device has itself: no NAT in between.";
  return `Answers: from outside, this device is ${[...new Set(candidates.map(addressOf))].join(" and ")}.`;
}

/** A grade and a sentence over all results. */
export function verdictOf(results) {
  const relays = results.filter(({ url }) => isRelay(url));
  const working = relays.filter((result) => gradeOf(result) === "good");
  const stun = results.some((result) => !isRelay(result.url) && gradeOf(result) === "good");
  const failing = results.filter((result) => gradeOf(result) !== "good");
  if (!results.length) return { grade: "bad", words: "The list of ICE servers is empty: calls connect within one network only." };
  if (working.length) {
    const over = [...new Set(working.map(({ url }) => TRANSPORTS[kindOf(url).transport]))];
    const words = `A call connects from here, also where no direct path works: the relay carries over ${list(over)}.`;
    if (!failing.length) return { grade: "good", words };
    return { grade: "warn", words: `${words} ${count(failing.length)} not work as it should; see below.` };
  }
  if (relays.some(({ candidates }) => candidates.length)) {
    return { grade: "bad", words: "The relay gives addresses but does not carry packets: are its relay ports (UDP) open, is its external address right, and does it relay from one client to another?" };
  }
  if (stun) {
    const why = relays.length ? "no relay works" : "there is no relay in the list";
    return { grade: relays.length ? "bad" : "warn", words: `Calls connect from here only where a direct path works: ${why}.` };
  }
  return { grade: "bad", words: "No server answers: calls connect within one network only." };
}

function relayWords({ candidates, echo }) {
  const address = `Relay address ${[...new Set(candidates.map(addressOf))].join(" and ")}.`;
  if (!echo || echo.connected === null) return `${address} But packets do not come through it: are the relay's UDP ports open?`;
  if (!echo.received) return `${address} A path was found, but none of ${echo.sent} packets came back.`;
  return `${address} Echo: ${echo.received} of ${echo.sent} packets came back, in ${time(echo.median)} each.`;
}

function errorWords({ code, text }) {
  return `${ERRORS[code] ?? `The server answered: ${text || "no reason given"}.`} (${code})`;
}

/** Address and port of a candidate line (RFC 8839 §5.1). */
function addressOf({ candidate }) {
  const [, , , , address, port] = candidate.split(" ");
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

function isRelay(url) {
  return kindOf(url).scheme.startsWith("turn");
}

function time(milliseconds) {
  return milliseconds < 1 ? "under 1 ms" : `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
}

function count(number) {
  return number === 1 ? "One server does" : `${number} servers do`;
}

function list(words) {
  return words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words.at(-1)}` : words[0];
}
