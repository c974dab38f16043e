import { IcebrokerError } from "./errors.js";

const MOST_WAITING = 256;

/** What answers a request that carries an `id`. */
const ANSWERS = new Set(["ok", "joined", "ice", "error"]);

/** What a new session can still be asked after the old one was lost; the rest was for peers of the old one. */
const OUTLIVES_SESSION = new Set(["join", "ice"]);

/**
 * The client's half of a session, without sockets or clocks: what has arrived (`seq`), and what was
 * asked and not answered yet, to be sent again with the same `id` after a resume.
 */
export class Session {
  /** This client's own peer id; the others see it as `from`. */
  peer = null;
  /** The number of the last event that was handled. */
  seen = 0;
  #id = null;
  #secret = null;
  #acknowledged = 0;
  #waiting = new Map();
  #lastRequest = 0;

  hello({ token, name, room }) {
    const hello = { type: "hello" };
    if (token) hello.token = token;
    if (name) hello.name = name;
    if (room) hello.room = room;
    if (this.#id) hello.resume = { session: this.#id, secret: this.#secret, seq: this.seen };
    return hello;
  }

  /** Enter the session that the server granted; returns the requests to send (again), in order. */
  welcome({ session, secret, peer, resumed }) {
    this.#id = session;
    this.#secret = secret;
    this.peer = peer;
    if (!resumed) {
      this.seen = 0;
      this.#loseWhatWasForTheOldSession();
    }
    this.#acknowledged = this.seen;
    return this.requests();
  }

  /** Give a request its id and keep it until it is answered; `frame` is what goes to the wire. */
  request(message) {
    if (this.#waiting.size >= MOST_WAITING) {
      throw new IcebrokerError("queue_full", { retryable: true });
    }
    const id = String(++this.#lastRequest);
    const frame = { ...message, id };
    const answer = new Promise((resolve, reject) => {
      this.#waiting.set(id, { frame, resolve, reject, refusals: 0 });
    });
    return { frame, answer };
  }

  /** Whether an event is new: a replayed one that was handled before is not handled again. */
  accept({ seq }) {
    if (!seq) return true;
    if (seq <= this.seen) return false;
    this.seen = seq;
    return true;
  }

  /**
   * Settle the request that this message answers. Returns false where it answers none, or, for an
   * error that may pass, how often the request has been refused: it stays, to be sent again.
   */
  settle(message, mostRefusals) {
    const request = ANSWERS.has(message.type) && this.#waiting.get(message.id);
    if (!request) return false;
    if (message.type === "error") {
      request.refusals += 1;
      if (message.retryable && request.refusals < mostRefusals) return request.refusals;
      this.#waiting.delete(message.id);
      request.reject(new IcebrokerError(message.code, message));
    } else {
      this.#waiting.delete(message.id);
      request.resolve(message);
    }
    return true;
  }

  /** The requests without an answer, oldest first. */
  requests() {
    return [...this.#waiting.values()].map((request) => request.frame);
  }

  waits(id) {
    return this.#waiting.has(id);
  }

  /** How many events were handled and not acknowledged. */
  get unacknowledged() {
    return this.seen - this.#acknowledged;
  }

  ack() {
    this.#acknowledged = this.seen;
    return { type: "ack", seq: this.seen };
  }

  /** The end: everything that waits fails with `error`, and nothing is left to resume. */
  end(error) {
    for (const request of this.#waiting.values()) request.reject(error);
    this.#waiting.clear();
    this.#id = this.#secret = null;
  }

  #loseWhatWasForTheOldSession() {
    for (const [id, request] of this.#waiting) {
      if (OUTLIVES_SESSION.has(request.frame.type)) continue;
      this.#waiting.delete(id);
      if (request.frame.type === "leave") request.resolve({ type: "ok", id, status: "delivered" });
      else request.reject(new IcebrokerError("session_lost", { retryable: true }));
    }
  }
}
