import { Connection } from "./connection.js";
import { IcebrokerError, hasGone } from "./errors.js";

const REACH_TIMEOUT = 20_000;
/** Parts of the negotiation that wait for the handler. */
const MOST_WAITING = 1024;

/**
 * The signaling channel between two peers, in the shape of the W3C perfect-negotiation sample: `send`,
 * `onmessage`, and this side's `polite`. For applications that keep the RTCPeerConnection to themselves.
 */
export class Signaler {
  /** Called when the other side has gone; `pair` again for the next one. */
  onclose = null;
  /** Called with what fails, a `send` that nobody awaits too. */
  onerror = null;
  /** Called with fresh `iceServers`, before the old ones end: `pc.setConfiguration({ iceServers })`. */
  oniceservers = null;
  iceServers = [];
  peer = null;
  #connection;
  #timeout;
  #onmessage = null;
  #waiting = [];
  #handing = false;
  #unload = () => this.close();

  /** Use `pair()`. */
  constructor({ timeout = REACH_TIMEOUT, ...options }) {
    this.#connection = new Connection(options);
    this.#timeout = timeout;
  }

  /** Enter the room and wait for somebody to be there too. Rejects with IcebrokerError. */
  open(room, { meta } = {}) {
    return new Promise((resolve, reject) => {
      const fail = (error) => {
        reject(error);
        this.close();
      };
      const late = setTimeout(() => fail(new IcebrokerError("unreachable", { retryable: true })), this.#timeout);
      globalThis.addEventListener?.("pagehide", this.#unload);
      this.#connection.on("message", (message) => this.#receive(message, resolve));
      this.#connection.on("error", (error) => this.#failed(error));
      this.#connection.on("welcome", ({ resumed }) => this.peer && !resumed && this.close());
      this.#connection.on("close", (error) => this.#closed(error, reject, late));
      this.#connection.open();
      this.#connection.request({ type: "join", room, meta }).then((joined) => {
        clearTimeout(late);
        this.iceServers = joined.iceServers;
        // Whoever is suspended may never come back: a page that was reloaded, and is here anew.
        const there = joined.peers.find(({ state }) => state === "present");
        if (there) this.#meet(there, resolve);
      }, fail);
    });
  }

  /** This side's role toward the other: the polite one gives way when both offer at once. */
  get polite() {
    return this.peer?.polite ?? null;
  }

  /**
   * Called with `{data: {description}}` or `{data: {candidate}}`, one after the other: the next once a promise that the
   * handler returns has settled. What came before it was set is kept for it.
   */
  set onmessage(handler) {
    this.#onmessage = handler;
    this.#handOn();
  }

  get onmessage() {
    return this.#onmessage;
  }

  /**
   * Send `{description}` or `{candidate}`; kept and sent again until the server has it. Rejects with IcebrokerError;
   * whoever does not await it, as in the sample, hears by `onclose` that it came to its end, and else by `onerror`.
   */
  send({ description, candidate }) {
    const signal = description ? { description } : { candidate };
    const sent = this.#connection.request({ type: "signal", to: this.peer.id, ...signal });
    sent.catch((error) => hasGone(error) || this.#failed(error));
    return sent;
  }

  close() {
    this.#connection.close();
  }

  #meet(entry, resolve) {
    this.peer = entry;
    resolve(this);
  }

  #receive(message, resolve) {
    if (message.type === "ice") {
      this.iceServers = message.iceServers;
      this.oniceservers?.(this.iceServers);
    }
    const comes = message.event === "join" || message.event === "resumed";
    if (message.type === "peer" && comes && !this.peer) this.#meet(message, resolve);
    if (message.type === "peer" && message.event === "leave" && message.id === this.peer?.id) this.close();
    if (message.type !== "signal" || message.from !== this.peer?.id) return;
    const { description, candidate, candidates } = message;
    const parts = description ? [{ description }] : (candidates ?? [candidate]).map((each) => ({ candidate: each }));
    for (const data of parts) this.#hand({ data });
  }

  #hand(event) {
    if (this.#waiting.length >= MOST_WAITING) return this.#failed(new IcebrokerError("queue_full"));
    this.#waiting.push(event);
    return this.#handOn();
  }

  async #handOn() {
    if (this.#handing) return;
    this.#handing = true;
    while (this.#onmessage && this.#waiting.length) {
      try {
        await this.#onmessage(this.#waiting.shift());
      } catch (error) {
        (globalThis.reportError ?? console.error)(error);
      }
    }
    this.#handing = false;
  }

  #failed(error) {
    if (this.onerror) this.onerror(error);
    else console.warn("icebroker:", error);
  }

  #closed(error, reject, late) {
    clearTimeout(late);
    globalThis.removeEventListener?.("pagehide", this.#unload);
    reject(error ?? new IcebrokerError("closed"));
    this.onclose?.(error);
  }
}
