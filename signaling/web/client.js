/**
 * The Icebroker browser client: the four lines that make a call, and the parts that they are made of.
 *
 *   import { join } from "https://host/client.js";
 *   const room = await join("demo", { media: { video: true, audio: true } });
 *   room.on("track", (peer, stream) => { document.querySelector("video").srcObject = stream; });
 */

import { Room } from "./assets/client/room.js";
import { Signaler } from "./assets/client/signaler.js";

export { Emitter } from "./assets/client/emitter.js";
export { IcebrokerError } from "./assets/client/errors.js";
export { Peer } from "./assets/client/peer.js";
export { onlyTransport } from "./assets/client/ice.js";
export { pathOf } from "./assets/client/path.js";
export { Room, Signaler };

/** A server, and what every room on it shares; `options` as for `join`. */
export class Icebroker {
  #options;

  constructor(options = {}) {
    this.#options = { url: defaultUrl(), ...options };
  }

  /** A room that is not entered yet, so that handlers are there before the first event. */
  room(name, options = {}) {
    return new Room(name, { ...this.#options, ...options });
  }

  /** Enter a room and call everyone in it. Rejects with IcebrokerError. */
  join(name, options = {}) {
    return this.room(name, options).join();
  }

  /** Meet one other peer and get the bare signaling channel to it. Rejects with IcebrokerError. */
  pair(name, options = {}) {
    const { meta, ...rest } = { ...this.#options, ...options };
    return new Signaler({ ...rest, room: name }).open(name, { meta });
  }
}

/** Enter a room and call everyone in it. */
export function join(name, options = {}) {
  return new Icebroker(options).join(name);
}

/** Meet one other peer and get the bare signaling channel to it. */
export function pair(name, options = {}) {
  return new Icebroker(options).pair(name);
}

/** The WebSocket beside the place that this module was loaded from; an application that bundles it says `url`. */
function defaultUrl() {
  const here = new URL(import.meta.url);
  const base = here.pathname.replace(/(assets\/)?[^/]*$/, "");
  return `${here.protocol === "http:" ? "ws:" : "wss:"}//${here.host}${base}ws`;
}
