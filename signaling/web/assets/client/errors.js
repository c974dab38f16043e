/** What can go wrong, for programs (`code`) and for people (`message`); one table, beside the server's own codes. */

const MEANINGS = {
  unreachable: "the signaling server does not answer, or lets no pages of this origin in (signaling.allowed_origins)",
  bad_url: "no WebSocket can be opened to the `url` that was given: it is none, or not secure where the page is",
  no_token: "the application could not fetch a token; trying again",
  closed: "the connection was closed",
  session_lost: "the server no longer has this session: what was on its way is lost",
  too_large: "the message is longer than the server takes",
  queue_full: "too many messages wait for the server",
  bad_frame: "the server sent something that is not icebroker.v1",
  negotiation_failed: "a description could not be applied; the call with this peer starts afresh",
  candidate_failed: "a candidate could not be added",
  ice_failed: "no path to this peer; trying again",
  hello_timeout: "the server heard no hello in time",
  unauthorized: "the token was refused",
  replaced: "the session goes on over another connection",
  flood: "too many messages: the server cut the connection",
  removed: "an operator has ended the session",
  too_many_connections: "the token's user has as many connections open as it may",
  refused: "the server closed the connection for good",
};

const TOKEN_MAY_HAVE_EXPIRED = "it was taken before, and may have expired; give a function that fetches a fresh one";

const CLOSE_CODES = {
  4501: "replaced",
  4502: "hello_timeout",
  4503: "unauthorized",
  4504: "flood",
  4505: "too_large",
  4506: "bad_frame",
  4507: "removed",
  4508: "too_many_connections",
};

/** An error with a stable `code`; `retryable` tells whether the same may succeed a little later. */
export class IcebrokerError extends Error {
  constructor(code, { message = MEANINGS[code] ?? code, retryable = false, cause, peer } = {}) {
    super(message, { cause });
    this.name = "IcebrokerError";
    this.code = code;
    this.retryable = retryable;
    this.peer = peer;
  }
}

/** Of requests to a peer: they, or we, are here no more, which is told by itself. */
const GONE = new Set(["closed", "session_lost", "not_found"]);

/** Whether a request to a peer failed only because one side has gone. */
export function hasGone({ code }) {
  return GONE.has(code);
}

/** Close codes 3500-3999 and 4500-4999 mean: do not come back. Every other end of a socket is an accident. */
export function mayReconnect(closeCode) {
  return !((closeCode >= 3500 && closeCode < 4000) || (closeCode >= 4500 && closeCode < 5000));
}

/**
 * The error that a final close code stands for. `expired`: a token that is a text was not taken, and had been
 * before.
 */
export function closeError(closeCode, reason, { expired = false } = {}) {
  const code = CLOSE_CODES[closeCode] ?? "refused";
  const message = reason || MEANINGS[code];
  return new IcebrokerError(code, {
    message: expired && code === "unauthorized" ? `${message}: ${TOKEN_MAY_HAVE_EXPIRED}` : message,
  });
}
