import { Emitter } from "./emitter.js";
import { IcebrokerError, closeError, mayReconnect } from "./errors.js";
import { Pacer, backoff } from "./pacing.js";
import { Session } from "./session.js";

const SUBPROTOCOL = "icebroker.v1";
const LEAVE_FOR_GOOD = 1000;
const RECONNECT = 4000;
const DIAL_TIMEOUT = 10_000;
const PROBE_TIMEOUT = 4_000;
/** Close codes: the session goes on over another socket; and of a socket that ended without one. */
const REPLACED = 4501;
const WITHOUT_A_WORD = 1006;
const ACK_DELAY = 200;
const MOST_UNACKNOWLEDGED = 32;
const MOST_REFUSALS = 8;
/** A connection that lasted this long was a good one: the next loss starts at the shortest delay. */
const STABLE_AFTER = 5_000;

/**
 * One session with the signaling server, over as many sockets as it takes.
 *
 * Events: `state` (connecting, open, waiting, closed), `welcome` (message), `message` (each event of
 * the server, once), `error`, `close` (error, or nothing after `close()`).
 */
export class Connection extends Emitter {
  state = "idle";
  /** The latest round trip to the server in milliseconds. */
  latency = null;
  #options;
  #session = new Session();
  #socket = null;
  #attempts = 0;
  #openedAt = 0;
  #timers = new Map();
  #queue = [];
  #pacer = new Pacer();
  #asked = false;
  /**
   * Hellos of sockets that ended without an answer. Each may still be heard, by a node that sleeps, and would
   * take the session to a socket that is no more.
   */
  #unheard = 0;
  #heartbeat = 25_000;
  #mostBytes = 65_536;
  #unlisten = () => {};

  /**
   * `options`: url, token (text, or a function that fetches one), name, room (that will be joined: a back end that
   * decides who may is asked about it), and for tests WebSocket and random.
   */
  constructor(options) {
    super();
    this.#options = { WebSocket: globalThis.WebSocket, random: Math.random, ...options };
  }

  get peer() {
    return this.#session.peer;
  }

  open() {
    if (this.state !== "idle") return;
    this.#listenToTheNetwork();
    this.#dial();
  }

  /** Send a request and keep at it, over reconnects, until the server answers. Rejects with IcebrokerError. */
  request(message) {
    if (this.state === "closed") return Promise.reject(new IcebrokerError("closed"));
    try {
      const { frame, answer } = this.#session.request(message);
      if (this.#tooLarge(frame)) {
        this.#session.settle({ type: "error", code: "too_large", id: frame.id }, 0);
      } else if (this.state === "open") {
        this.#enqueue(frame);
      }
      return answer;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Send something that is worth nothing later; while there is no connection it is dropped. */
  notify(message) {
    if (this.state === "open") this.#enqueue(message);
  }

  /** Leave for good: the others see `leave` at once. */
  close() {
    if (this.state === "closed") return;
    this.#pump({ hurry: true });
    this.#end();
  }

  /** Drop the socket and come back at once, as after a change of network. */
  reconnect() {
    if (this.state === "closed") return;
    this.#attempts = 0;
    this.#drop(RECONNECT);
    this.#dial();
  }

  // A socket's life, in its order ------------------------------------------------------------

  async #dial() {
    this.#clear("dial");
    this.#setState("connecting");
    this.#timer("dial", DIAL_TIMEOUT, () => this.#lost());
    let token;
    try {
      token = await this.#token();
    } catch (cause) {
      this.emit("error", new IcebrokerError("no_token", { retryable: true, cause }));
      return this.#lost();
    }
    if (this.state !== "connecting" || this.#socket) return undefined;
    let socket;
    try {
      socket = new this.#options.WebSocket(this.#options.url, SUBPROTOCOL);
    } catch (cause) {
      return this.#end(new IcebrokerError("bad_url", { cause }));
    }
    this.#socket = socket;
    const ours = (handler) => (event) => socket === this.#socket && handler(event);
    const hello = { token, name: this.#options.name, room: this.#options.room };
    socket.onopen = ours(() => {
      socket.send(JSON.stringify(this.#session.hello(hello)));
      this.#asked = true;
    });
    socket.onmessage = ours(({ data }) => this.#receive(data));
    socket.onclose = ours(({ code, reason }) => this.#closed(code, reason));
    return undefined;
  }

  #receive(text) {
    this.#clear("probe");
    let message;
    try {
      message = JSON.parse(text);
    } catch (cause) {
      return this.emit("error", new IcebrokerError("bad_frame", { cause }));
    }
    if (message.type === "welcome") return this.#welcome(message);
    if (message.type === "pong") {
      this.latency = performance.now() - message.t;
      return undefined;
    }
    return this.#handle(message);
  }

  #welcome(message) {
    this.#clear("dial");
    this.#asked = false;
    this.#openedAt = performance.now();
    this.#heartbeat = message.heartbeat * 1000 || this.#heartbeat;
    const { messagesPerSecond, burst, messageBytes } = message.limits ?? {};
    this.#pacer = new Pacer(messagesPerSecond, burst);
    this.#mostBytes = messageBytes ?? this.#mostBytes;
    this.#timer("beat", this.#heartbeat, () => this.#beat());
    this.state = "open";
    // What was asked before goes out before anything that a handler of these events may ask.
    for (const frame of this.#session.welcome(message)) this.#enqueue(frame);
    this.emit("welcome", message);
    this.emit("state", this.state);
  }

  #handle(message) {
    if (!this.#session.accept(message)) return this.#acknowledgeSoon();
    if (message.seq) this.#acknowledgeSoon();
    const settled = this.#session.settle(message, MOST_REFUSALS);
    if (typeof settled === "number") this.#sendAgainLater(message.id, settled);
    else if (settled || message.type === "ok") return undefined;
    else if (message.type === "goaway") this.#leaveBefore(message.deadline);
    else if (message.type === "error") this.emit("error", new IcebrokerError(message.code, message));
    else this.emit("message", message);
    return undefined;
  }

  #closed(code, reason) {
    if (code !== WITHOUT_A_WORD) this.#asked = false;
    const byOurselves = code === REPLACED && this.#unheard > 0;
    if (byOurselves) this.#unheard--;
    if (byOurselves || mayReconnect(code)) this.#lost();
    else this.#end(closeError(code, reason, { expired: this.#mayHaveExpired() }));
  }

  /** Whether a token that is a text was good once: a lost session begins anew, and needs it again. */
  #mayHaveExpired() {
    return this.state !== "open" && this.peer !== null && typeof this.#options.token === "string";
  }

  /** The socket is gone or of no use: forget it, and dial again after a while. */
  #lost() {
    const lasted = performance.now() - this.#openedAt;
    if (this.state === "open" && lasted > STABLE_AFTER) this.#attempts = 0;
    this.#drop(RECONNECT);
    this.#setState("waiting");
    const delay = backoff(this.#attempts++, this.#options.random);
    this.#timer("dial", delay, () => this.#dial());
  }

  #drop(code) {
    const socket = this.#socket;
    this.#socket = null;
    if (this.#asked) this.#unheard++;
    this.#asked = false;
    this.#queue.length = 0;
    for (const name of [...this.#timers.keys()]) this.#clear(name);
    if (socket && socket.readyState < 2) socket.close(code);
  }

  #end(error) {
    this.#drop(LEAVE_FOR_GOOD);
    this.#unlisten();
    this.#session.end(error ?? new IcebrokerError("closed"));
    this.#setState("closed");
    this.emit("close", error);
  }

  // What a living socket carries -------------------------------------------------------------

  #enqueue(frame) {
    this.#queue.push(frame);
    this.#pump();
  }

  #pump({ hurry = false } = {}) {
    while (this.#queue.length && this.#socket?.readyState === 1) {
      const wait = hurry ? 0 : this.#pacer.wait(performance.now());
      if (wait) return this.#timer("pump", wait, () => this.#pump());
      this.#socket.send(JSON.stringify(this.#queue.shift()));
    }
    return undefined;
  }

  #tooLarge(frame) {
    return new TextEncoder().encode(JSON.stringify(frame)).length > this.#mostBytes;
  }

  #sendAgainLater(id, refusals) {
    const frame = this.#session.requests().find((waiting) => waiting.id === id);
    setTimeout(() => {
      if (this.state === "open" && this.#session.waits(id)) this.#enqueue(frame);
    }, 100 + backoff(refusals, this.#options.random));
  }

  #acknowledgeSoon() {
    if (this.#session.unacknowledged >= MOST_UNACKNOWLEDGED) this.#acknowledge();
    else if (!this.#timers.has("ack")) this.#timer("ack", ACK_DELAY, () => this.#acknowledge());
  }

  #acknowledge() {
    this.#clear("ack");
    this.notify(this.#session.ack());
  }

  #beat() {
    this.#probe();
    this.#timer("beat", this.#heartbeat, () => this.#beat());
  }

  /** Ask for a sign of life: a network that went away silently closes no socket. */
  #probe() {
    this.notify({ type: "ping", t: performance.now() });
    if (!this.#timers.has("probe")) this.#timer("probe", PROBE_TIMEOUT, () => this.reconnect());
  }

  /** The node is about to stop: be elsewhere in time, but not all at once. */
  #leaveBefore(seconds) {
    const delay = this.#options.random() * 0.8 * 1000 * seconds;
    this.#timer("goaway", delay, () => this.reconnect());
  }

  // The surroundings -------------------------------------------------------------------------

  async #token() {
    const { token } = this.#options;
    return typeof token === "function" ? token() : token;
  }

  #listenToTheNetwork() {
    const wake = () => this.#wake();
    const seen = () => globalThis.document?.visibilityState === "visible" && this.#wake();
    globalThis.addEventListener?.("online", wake);
    globalThis.document?.addEventListener("visibilitychange", seen);
    this.#unlisten = () => {
      globalThis.removeEventListener?.("online", wake);
      globalThis.document?.removeEventListener("visibilitychange", seen);
    };
  }

  #wake() {
    if (this.state === "waiting") this.reconnect();
    else if (this.state === "open") this.#probe();
  }

  #setState(state) {
    if (state === this.state) return;
    this.state = state;
    this.emit("state", state);
  }

  #timer(name, delay, action) {
    this.#clear(name);
    const run = () => {
      this.#timers.delete(name);
      action();
    };
    this.#timers.set(name, setTimeout(run, delay));
  }

  #clear(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}
