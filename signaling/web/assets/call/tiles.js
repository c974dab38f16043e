import { $, element, icon } from "../page.js";
import { PEER_STATES, pathWords } from "./words.js";

/** Columns of the grid for so many tiles, on a wide screen. */
const COLUMNS = [[1, 1], [4, 2], [9, 3], [Infinity, 4]];

/** The pictures of the others. */
export class Tiles {
  #area;
  #tiles = new Map();

  constructor(area) {
    this.#area = area;
  }

  get size() {
    return this.#tiles.size;
  }

  /** Show a peer as it is now. */
  show(peer) {
    if (!this.#tiles.has(peer.id)) this.#add(peer);
    const tile = this.#tiles.get(peer.id);
    const { camera = true, screen = false, mic = true } = peer.shows ?? {};
    const hasVideo = peer.stream?.getVideoTracks().length > 0 && camera;
    tile.classList.toggle("no-video", !hasVideo);
    tile.classList.toggle("screen", screen);
    const name = nameOf(peer);
    $(".avatar", tile).textContent = initials(name);
    $(".tile-name", tile).replaceChildren(...(mic ? [] : [icon("mic-off")]), name);
    this.#showState(tile, peer);
    this.#showPath(tile, peer.path);
  }

  play(peer, stream) {
    const video = $("video", this.#tiles.get(peer.id));
    if (video.srcObject !== stream) video.srcObject = stream;
    video.play().catch(() => {}); // the browser plays it at the next click
  }

  remove(peer) {
    const tile = this.#tiles.get(peer.id);
    if (!tile) return;
    $("video", tile).srcObject = null;
    tile.remove();
    this.#tiles.delete(peer.id);
    this.#arrange();
  }

  #add(peer) {
    const video = element("video", { autoplay: "", playsinline: "" });
    const tile = element(
      "section",
      { class: "tile", data: { testid: "peer", peer: peer.id } },
      video,
      element("span", { class: "avatar", "aria-hidden": "true" }),
      element("span", { class: "tile-state", data: { testid: "peer-state" } }),
      element("span", { class: "path", hidden: "", data: { testid: "path" } }),
      element("span", { class: "tile-name", data: { testid: "peer-name" } }),
    );
    this.#tiles.set(peer.id, tile);
    this.#area.append(tile);
    this.#arrange();
  }

  #arrange() {
    const [, columns] = COLUMNS.find(([most]) => this.size <= most);
    this.#area.dataset.columns = columns;
  }

  #showState(tile, peer) {
    const text = peer.away && peer.state !== "connected" ? "Reconnecting…" : PEER_STATES[peer.state];
    tile.dataset.state = peer.state;
    tile.setAttribute("aria-label", nameOf(peer));
    $(".tile-state", tile).hidden = !text;
    $(".tile-state", tile).textContent = text ?? "";
  }

  #showPath(tile, path) {
    const pill = $(".path", tile);
    pill.hidden = !path;
    if (!path) return;
    const { label, meaning } = pathWords(path);
    pill.textContent = label;
    pill.title = meaning;
    Object.assign(pill.dataset, { path: path.path, via: path.via ?? "", rtt: path.rtt ?? "" });
  }
}

export function nameOf(peer) {
  return peer.name || "Guest";
}

export function initials(name) {
  const words = name.trim().split(/\s+/);
  return words.slice(0, 2).map((word) => [...word][0]).join("").toUpperCase();
}
