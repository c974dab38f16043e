import { Connection } from "./connection.js";
import { Emitter } from "./emitter.js";
import { IcebrokerError, hasGone } from "./errors.js";
import { Peer } from "./peer.js";
import { streamFrom } from "./media.js";

const JOIN_TIMEOUT = 20_000;
/** Why somebody leaves who did not mean to. */
const SESSION_ENDS = new Set(["lost", "timeout"]);
/** Events of a peer that the room passes on, with the peer before the values. */
const PEER_EVENTS = ["track", "data", "state", "path", "error"];

/**
 * A room, the people in it, and a call with each of them.
 *
 * Events: `join` (peer), `leave` (peer, reason), `update` (peer), `track` (peer, stream, track), `data`
 * (peer, value), `message` (peer, value), `bye` (peer), `path` (peer, path), `peerstate` (peer, state),
 * `state` (connecting, open, waiting, closed), `error` (error), `close` (error, or nothing after `leave()`).
 */
export class Room extends Emitter {
  peers = new Map();
  iceServers = [];
  #options;
  #connection;
  #media = null;
  #joined = null;
  #early = [];
  #expiresAt = Infinity;
  #reported = new WeakMap();
  #unload = () => this.leave();

  /** See `JoinOptions` in client.d.ts. Nothing happens before `join()`. */
  constructor(name, options = {}) {
    super();
    this.name = name;
    this.#options = { receive: ["audio", "video"], timeout: JOIN_TIMEOUT, ...options };
    this.#connection = new Connection({ ...this.#options, room: name });
    this.#connection.on("state", (state) => this.emit("state", state));
    this.#connection.on("error", (error) => this.emit("error", error));
    this.#connection.on("welcome", (welcome) => this.#welcome(welcome));
    this.#connection.on("message", (message) => this.#receive(message));
    this.#connection.on("close", (error) => this.#closed(error));
  }

  /** Our own peer id, as the others see it; another one after a lost session. */
  get self() {
    return this.#connection.peer;
  }

  /** connecting, open, waiting (for the next try), closed. */
  get state() {
    return this.#connection.state;
  }

  /** What is sent to everyone. */
  get media() {
    return this.#media;
  }

  /** Enter. Rejects with IcebrokerError: room_full, unauthorized, unreachable, ... */
  async join() {
    this.#media = await streamFrom(this.#options.media);
    globalThis.addEventListener?.("pagehide", this.#unload);
    this.#connection.open();
    const late = setTimeout(() => this.#fail(new IcebrokerError("unreachable", { retryable: true })), this.#options.timeout);
    try {
      await this.#enter();
    } catch (error) {
      this.#fail(error);
      throw this.failure ?? error;
    } finally {
      clearTimeout(late);
    }
    return this;
  }

  /** Leave the room and end every call. The media stays the application's. */
  leave() {
    this.#connection.close();
  }

  /** Send this stream (or nothing: null) to everyone from now on. */
  setMedia(stream) {
    this.#media = stream;
    for (const peer of this.peers.values()) peer.setMedia(stream);
  }

  /** Send a value to everyone over the data channels: peer to peer, not through the server. */
  send(value) {
    for (const peer of this.peers.values()) peer.send(value);
  }

  /** Send a value through the server, to one peer or to everyone; resolves to "delivered" or "queued". */
  async post(data, to) {
    const message = { type: "message", data };
    if (to) message.to = to.id ?? to;
    return (await this.#connection.request(message)).status;
  }

  /** End the call with one peer; both stay in the room, and `peer.call()` starts it again. */
  bye(peer) {
    this.#connection.notify({ type: "bye", to: peer.id });
    peer.hangUp();
  }

  /** Drop the socket and resume over a new one. */
  reconnect() {
    this.#connection.reconnect();
  }

  // Entering, once and again -----------------------------------------------------------------

  async #enter() {
    const join = { type: "join", room: this.name, meta: this.#options.meta };
    const joined = await this.#connection.request(join);
    this.#setIceServers(joined.iceServers, joined.iceExpiresAt);
    this.#joined = joined;
    for (const entry of joined.peers) this.#add(entry);
    for (const message of this.#early.splice(0)) this.#receive(message);
  }

  #welcome({ resumed }) {
    if (!resumed && this.#joined) this.#enterAgain();
    else if (!resumed) this.#announce();
    else if (this.#joined && Date.now() > this.#expiresAt) this.#askForIceServers();
  }

  /**
   * The server knows us no more, so that the others see a newcomer. Calls whose connection lives go on as soon as
   * both sides know each other again; the other ones start afresh.
   */
  async #enterAgain() {
    this.#joined = null;
    const before = [...this.peers.values()];
    const living = before.filter((peer) => peer.lives);
    for (const peer of living) this.#keep(peer, "session lost");
    try {
      if (living.length) await this.#announce();
      const entering = this.#enter();
      for (const peer of before) if (!living.includes(peer)) this.#remove(peer, "session lost");
      await entering;
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Have those whose calls go on know our new id, before they hear of it as of a newcomer's. */
  #announce() {
    const living = [...this.peers.values()].filter((peer) => peer.lives);
    return Promise.all(living.map((peer) => peer.announce(this.self)));
  }

  #fail(error) {
    this.failure ??= error;
    this.leave();
  }

  #closed(error) {
    globalThis.removeEventListener?.("pagehide", this.#unload);
    this.failure ??= error;
    for (const peer of [...this.peers.values()]) this.#remove(peer, "closed");
    this.emit("close", this.failure);
  }

  // What the server says ---------------------------------------------------------------------

  #receive(message) {
    if (message.type === "ice") return this.#setIceServers(message.iceServers, message.expiresAt);
    // A replay may overtake the answer to a join that is asked again.
    if (!this.#joined) return this.#early.push(message);
    if (message.type === "peer") return this.#presence(message);
    const peer = this.peers.get(message.from);
    if (!peer) return undefined;
    if (message.type === "signal") peer.receive(message);
    else if (message.type === "message") this.emit("message", peer, message.data);
    else if (message.type === "bye") {
      peer.hangUp();
      this.emit("bye", peer);
    }
    return undefined;
  }

  #presence({ event, reason, room, ...entry }) {
    const peer = this.peers.get(entry.id);
    if (event === "join") {
      this.#add(entry);
    } else if (peer && event === "leave") {
      // Whoever did not mean to go may be back in a moment, under another id.
      if (SESSION_ENDS.has(reason) && peer.lives) this.#keep(peer, reason);
      else this.#remove(peer, reason);
    } else if (peer) {
      const state = { suspended: "suspended", resumed: "present" }[event];
      peer.update({ ...entry, state });
      this.emit("update", peer);
    }
  }

  #add(entry) {
    const known = this.peers.get(entry.id);
    const living = known?.kept && known.lives;
    // Whose id it is for sure goes before whoever says that it is theirs.
    if (living && !known.claim) return this.#adopt(known, entry);
    const claimant = [...this.peers.values()].find((peer) => peer.claim === entry.id && peer.lives);
    if (claimant) return this.#adopt(claimant, entry);
    if (living) return undefined; // it has another id by now: this is what is left of its old session
    if (known) this.#remove(known, "replaced");
    const peer = new Peer(entry, {
      signal: (to, signal) => this.#signal(to, signal),
      configuration: () => this.#configuration(),
      media: () => this.#media,
      receive: this.#options.receive,
      connected: () => this.state === "open",
      confirmed: (confirmed) => this.emit("update", confirmed),
      mistaken: (...found) => this.#mistaken(...found),
    });
    for (const event of PEER_EVENTS) {
      peer.on(event, (...values) => this.#passOn(event, peer, values));
    }
    this.peers.set(peer.id, peer);
    this.emit("join", peer);
    return undefined;
  }

  #keep(peer, reason) {
    peer.keep(() => this.#remove(peer, reason));
  }

  /** Somebody whose call goes on is back with a new session. */
  #adopt(peer, entry) {
    this.peers.delete(peer.id);
    peer.adopt(entry);
    this.peers.set(peer.id, peer);
  }

  /** It was somebody else: whoever writes from that id has another connection. */
  #mistaken(peer, entry, offer) {
    this.#remove(peer, "session lost");
    this.#add(entry);
    if (offer) this.peers.get(entry.id).receive({ description: offer });
  }

  #remove(peer, reason) {
    peer.close();
    if (this.peers.get(peer.id) === peer) this.peers.delete(peer.id);
    this.emit("leave", peer, reason);
  }

  #passOn(event, peer, values) {
    if (event === "error") this.emit("error", values[0]);
    else this.emit(event === "state" ? "peerstate" : event, peer, ...values);
    if (event === "path") this.#reportPath(peer);
  }

  #signal(to, signal) {
    this.#connection.request({ type: "signal", to, ...signal }).catch((error) => {
      if (!hasGone(error)) this.emit("error", error);
    });
  }

  // ICE servers and paths --------------------------------------------------------------------

  #configuration() {
    const { iceTransportPolicy = "all", rtc } = this.#options;
    return { ...rtc, iceServers: this.iceServers, iceTransportPolicy };
  }

  #setIceServers(iceServers, expiresAt) {
    const choose = this.#options.iceServers ?? ((servers) => servers);
    this.iceServers = choose(iceServers);
    this.#expiresAt = Date.parse(expiresAt) || Infinity;
    for (const peer of this.peers.values()) peer.setIceServers(this.iceServers);
  }

  async #askForIceServers() {
    try {
      const { iceServers, expiresAt } = await this.#connection.request({ type: "ice" });
      this.#setIceServers(iceServers, expiresAt);
    } catch (error) {
      this.emit("error", error);
    }
  }

  #reportPath(peer) {
    const { path, rtt } = peer.path;
    if (this.#reported.get(peer) === path || rtt === null) return;
    this.#reported.set(peer, path);
    this.#connection.notify({ type: "stats", peer: peer.id, path, rtt });
  }
}
