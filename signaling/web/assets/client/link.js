import { Negotiator } from "./negotiator.js";
import { receiveToo, sendTracks } from "./media.js";

/** Both ends open this channel by its number, so that it needs no negotiation of its own. */
const CHANNEL = { negotiated: true, id: 0 };

/** What the two clients tell each other beside the server; far from the numbers that applications take. */
const ASIDE = { negotiated: true, id: 250 };

/**
 * One RTCPeerConnection to a peer with its negotiation and its data channel; thrown away as a whole
 * when the other side starts afresh.
 *
 * `hooks`: those of Negotiator, and `track(event)`, `state()`, `data(value)`, `open()`, `aside(message)`.
 */
export class Link {
  #negotiator;
  #aside;
  #closed = false;

  constructor({ configuration, polite, patient, media, receive, hooks }) {
    const pc = new RTCPeerConnection(configuration);
    this.pc = pc;
    this.#negotiator = new Negotiator(pc, { polite, patient, hooks });
    pc.ontrack = (event) => hooks.track(event);
    pc.onconnectionstatechange = pc.oniceconnectionstatechange = () => this.#closed || hooks.state();
    this.channel = pc.createDataChannel("icebroker", CHANNEL);
    this.channel.binaryType = "arraybuffer";
    this.channel.onopen = () => hooks.open();
    this.channel.onmessage = ({ data }) => hooks.data(decode(data));
    this.#aside = pc.createDataChannel("icebroker-aside", ASIDE);
    this.#aside.onmessage = ({ data }) => hooks.aside(decode(data));
    sendTracks(pc, media);
    if (!patient) receiveToo(pc, receive);
  }

  /** What Recovery wants to know. */
  get facts() {
    return {
      ice: this.pc.iceConnectionState,
      connection: this.pc.connectionState,
      signaling: this.pc.signalingState,
      negotiated: this.#negotiator.negotiated,
    };
  }

  /** Whether it carries something, whatever became of signaling. */
  get lives() {
    return this.pc.connectionState === "connected" && this.#aside.readyState === "open";
  }

  /** Tell the other client something, over the connection itself. */
  tell(message) {
    if (this.lives) this.#aside.send(JSON.stringify(message));
  }

  /** Go on over another session: the newcomer there, who is impolite, looks for a path anew. */
  async resume(polite) {
    await this.#negotiator.resume(polite);
    if (!polite && !this.#closed) this.restartIce();
  }

  receive(signal) {
    return this.#negotiator.receive(signal);
  }

  insist(receive) {
    receiveToo(this.pc, receive);
    this.#negotiator.insist();
  }

  restartIce() {
    this.pc.restartIce();
  }

  setMedia(stream) {
    sendTracks(this.pc, stream);
  }

  setIceServers(iceServers) {
    this.pc.setConfiguration({ ...this.pc.getConfiguration(), iceServers });
  }

  /** Send over the data channel; false where it is not open. */
  send(value) {
    if (this.channel.readyState !== "open") return false;
    this.channel.send(encode(value));
    return true;
  }

  close() {
    this.#closed = true;
    this.#negotiator.close();
    this.pc.close();
  }
}

function encode(value) {
  const binary = value instanceof ArrayBuffer || ArrayBuffer.isView(value) || value instanceof Blob;
  return binary ? value : JSON.stringify(value);
}

/** Text that is not JSON comes from another kind of client, and is handed on as it is. */
function decode(data) {
  if (typeof data !== "string") return data;
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
}
