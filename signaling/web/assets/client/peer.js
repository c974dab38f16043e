import { Emitter } from "./emitter.js";
import { IcebrokerError } from "./errors.js";
import { Link } from "./link.js";
import { Pacer } from "./pacing.js";
import { pathOf } from "./path.js";
import { Recovery } from "./recovery.js";

const CHECK_INTERVAL = 1_000;
const MOST_QUEUED = 256;
const MOST_ID = 64;
/** How long a call that has lost its signaling waits for the other side to come back, and for it to hear of our new id. */
const KEPT_FOR = 20_000;
const TELL_FOR = 1_000;
/**
 * Descriptions a second, and at once, that are taken from one peer: each is answered, and our share of
 * messages at the server is for all of them.
 */
const DESCRIPTIONS = [2, 20];

/**
 * Somebody else in the room, and the call with them.
 *
 * Events: `track` (stream, track), `data` (value), `state` (state), `path` (path), `error` (error).
 */
export class Peer extends Emitter {
  /** The stream that came last, with all its tracks; null before the first. */
  stream = null;
  /** See `pathOf`; null until it is known. */
  path = null;
  #context;
  #link = null;
  #recovery;
  #queue = [];
  #descriptions = new Pacer(...DESCRIPTIONS);
  #timer;
  #told = "new";
  #claim = null;
  #heard = () => {};
  #forget = null;
  #forgetting;
  #unconfirmed = null;

  /**
   * `entry` is the server's; `context` the room: signal(id, signal), configuration(), media(),
   * receive (kinds), connected(), confirmed(peer), mistaken(peer, entry, offer).
   */
  constructor(entry, context) {
    super();
    this.id = entry.id;
    this.polite = entry.polite;
    this.#context = context;
    this.#recovery = new Recovery(entry);
    this.away = false;
    this.update(entry);
    this.#open({ patient: this.polite });
    this.#timer = setInterval(() => this.#check(), CHECK_INTERVAL);
  }

  /** The connection itself, for what this class does not do; another one after a fresh start. */
  get pc() {
    return this.#link?.pc ?? null;
  }

  /** new, connecting, connected, disconnected, failed, or closed after a `bye`. */
  get state() {
    return this.#link?.pc.connectionState ?? "closed";
  }

  /** Send over the data channel (as JSON, or binary as it is); what comes too early waits for it to open. */
  send(value) {
    if (this.#link?.send(value)) return;
    if (this.#queue.length >= MOST_QUEUED) throw new IcebrokerError("queue_full", { retryable: true });
    this.#queue.push(value);
  }

  /** Look for a new path now. */
  restartIce() {
    this.#link?.restartIce();
  }

  /** Start the call again after a `bye`. */
  call() {
    if (!this.#link) this.#open({ patient: false });
  }

  // From here on: for the room ---------------------------------------------------------------

  update({ name = this.name, meta = this.meta, state }) {
    this.name = name;
    this.meta = meta;
    const away = state ? state === "suspended" : this.away;
    if (this.away && !away) this.#recovery.hurry();
    this.away = away;
  }

  receive(signal) {
    if (!this.#link && signal.description?.type === "offer") this.#open({ patient: true });
    this.#link?.receive(signal);
  }

  // When a session is lost and the call is not -----------------------------------------------

  /** Whether the call goes on whatever became of signaling. */
  get lives() {
    return this.#link?.lives ?? false;
  }

  /** The id that the other side says it has now; it is theirs once they write from it, as ours in this very call. */
  get claim() {
    return this.#claim;
  }

  /** Tell the other side our new id, over the call; resolves when it knows, or soon. */
  announce(id) {
    return new Promise((resolve) => {
      this.#heard = resolve;
      setTimeout(resolve, TELL_FOR);
      this.#link.tell({ peer: id });
    });
  }

  /** Signaling does not reach them any more: wait for a while as long as the call lives; then `forget()`. */
  keep(forget) {
    if (this.#forget) return;
    this.#forget = forget;
    this.#forgetting = setTimeout(forget, KEPT_FOR);
  }

  get kept() {
    return this.#forget !== null;
  }

  /** They are back, as `entry`, where that is another than before only because they say so. */
  adopt(entry) {
    this.#remember();
    this.#unconfirmed = entry.id === this.id ? null : entry;
    this.#claim = null;
    this.id = entry.id;
    this.polite = entry.polite;
    this.away = entry.state === "suspended";
    this.#recovery = new Recovery(entry);
    this.#link.resume(this.polite);
    if (!this.#unconfirmed) this.update(entry);
  }

  #remember() {
    clearTimeout(this.#forgetting);
    this.#forget = null;
  }

  #aside(message) {
    if (typeof message?.peer === "string" && message.peer.length <= MOST_ID) {
      this.#claim = message.peer;
      this.#link.tell({ known: message.peer });
    } else if (message?.known) {
      this.#heard();
    }
  }

  #described() {
    const entry = this.#unconfirmed;
    if (!entry) return;
    this.#unconfirmed = null;
    this.update(entry);
    this.#context.confirmed(this);
  }

  // What the room has for it -------------------------------------------------------------------

  setMedia(stream) {
    this.#link?.setMedia(stream);
  }

  setIceServers(iceServers) {
    this.#link?.setIceServers(iceServers);
  }

  /** The call is over; the peer stays. */
  hangUp() {
    this.#link?.close();
    this.#link = null;
    this.stream = this.path = null;
    this.#changed();
  }

  close() {
    clearInterval(this.#timer);
    this.#remember();
    this.hangUp();
  }

  // The connection ---------------------------------------------------------------------------

  #open({ patient }) {
    this.#link?.close();
    const link = new Link({
      configuration: this.#context.configuration(),
      polite: this.polite,
      patient,
      media: this.#context.media(),
      receive: this.#context.receive,
      hooks: {
        send: (signal) => this.#context.signal(this.id, signal),
        restarted: (offer) => this.#restarted(offer),
        delay: () => this.#descriptions.wait(performance.now()),
        problem: (code, cause) => this.#problem(link, code, cause),
        track: (event) => this.#track(event),
        state: () => this.#changed(),
        data: (value) => this.emit("data", value),
        open: () => this.#flush(),
        aside: (message) => this.#aside(message),
        described: () => this.#described(),
      },
    });
    this.#link = link;
    this.#changed();
  }

  /** The other side has a new connection: a fresh one of ours takes its offer, or makes one. */
  #restarted(offer) {
    const entry = this.#unconfirmed;
    if (entry) return this.#context.mistaken(this, entry, offer);
    this.#open({ patient: offer !== null });
    if (offer) this.#link.receive({ description: offer });
    return undefined;
  }

  /** A description that does not fit is a reason for a fresh start, once: if that fails too, it is not our state. */
  #problem(link, code, cause) {
    this.emit("error", new IcebrokerError(code, { cause, retryable: true, peer: this.id }));
    if (code !== "negotiation_failed" || link !== this.#link || !link.facts.negotiated) return;
    this.#open({ patient: false });
  }

  #check() {
    if (!this.#link) return;
    this.#watchPath();
    const reachable = this.#context.connected() && !this.away && !this.kept;
    const action = this.#recovery.check(performance.now(), { ...this.#link.facts, reachable });
    if (action === "insist") this.#link.insist(this.#context.receive);
    else if (action === "restart") this.#link.restartIce();
    else if (action === "reset") this.#open({ patient: false });
    if (action && action !== "insist") {
      this.emit("error", new IcebrokerError("ice_failed", { retryable: true, peer: this.id }));
    }
  }

  #changed() {
    if (this.state !== this.#told) {
      this.#told = this.state;
      this.emit("state", this.state);
    }
    if (this.state === "connected") this.#watchPath();
    else this.#forget?.();
  }

  #track({ track, streams }) {
    this.stream = streams[0] ?? new MediaStream([track]);
    this.emit("track", this.stream, track);
  }

  #flush() {
    while (this.#queue.length && this.#link.send(this.#queue[0])) this.#queue.shift();
  }

  async #watchPath() {
    const link = this.#link;
    if (!link || link.pc.connectionState !== "connected") return;
    const path = await pathOf(link.pc);
    if (!path || link !== this.#link) return;
    const changed = JSON.stringify(path) !== JSON.stringify(this.path);
    this.path = path;
    if (changed) this.emit("path", path);
  }
}
