import { Connection } from "./connection.js";
import { IcebrokerError } from "./errors.js";

/**
 * The signaling channel between two peers, in the shape of the W3C perfect-negotiation sample: `send`,
 * `onmessage`, and this side's `polite`. For applications that keep the RTCPeerConnection to themselves.
 */
export class Signaler {
  /** Called when the other side has gone; `pair` again for the next one. */
  onclose = null;
  onerror = null;
  iceServers = [];
  peer = null;
  #connection;
  #onmessage = null;
  #waiting = [];

  /** Use `pair()`. */
  constructor(options) {
    this.#connection = new Connection(options);
  }

  /** Enter the room and wait for somebody to be there too. Rejects with IcebrokerError. */
  open(room, { meta } = {}) {
    return new Promise((resolve, reject) => {
      this.#connection.on("message", (message) => this.#receive(message, resolve));
      this.#connection.on("error", (error) => this.onerror?.(error));
      this.#connection.on("welcome", ({ resumed }) => this.peer && !resumed && this.close());
      this.#connection.on("close", (error) => this.#closed(error, reject));
      this.#connection.open();
      this.#connection.request({ type: "join", room, meta }).then((joined) => {
        this.iceServers = joined.iceServers;
        if (joined.peers.length) this.#meet(joined.peers[0], resolve);
      }, reject);
    });
  }

  /** This side's role toward the other: the polite one gives way when both offer at once. */
  get polite() {
    return this.peer?.polite ?? null;
  }

  /** Called with `{data: {description}}` or `{data: {candidate}}`; what came before it was set is kept for it. */
  set onmessage(handler) {
    this.#onmessage = handler;
    while (handler && this.#waiting.length) handler(this.#waiting.shift());
  }

  get onmessage() {
    return this.#onmessage;
  }

  /** Send `{description}` or `{candidate}`; kept and sent again until the server has it. */
  send({ description, candidate }) {
    const signal = description ? { description } : { candidate };
    return this.#connection.request({ type: "signal", to: this.peer.id, ...signal });
  }

  close() {
    this.#connection.close();
  }

  #meet(entry, resolve) {
    this.peer = entry;
    resolve(this);
  }

  #receive(message, resolve) {
    if (message.type === "ice") this.iceServers = message.iceServers;
    if (message.type === "peer" && message.event === "join" && !this.peer) this.#meet(message, resolve);
    if (message.type === "peer" && message.event === "leave" && message.id === this.peer?.id) this.close();
    if (message.type !== "signal" || message.from !== this.peer?.id) return;
    const { description, candidate, candidates } = message;
    const parts = description ? [{ description }] : (candidates ?? [candidate]).map((each) => ({ candidate: each }));
    for (const data of parts) this.#hand({ data });
  }

  #hand(event) {
    if (this.#onmessage) this.#onmessage(event);
    else this.#waiting.push(event);
  }

  #closed(error, reject) {
    reject(error ?? new IcebrokerError("closed"));
    this.onclose?.(error);
  }
}
