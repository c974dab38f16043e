/** The call page: a lobby, a call, and back again. */

import { Icebroker, onlyTransport } from "../client.js";
import { LocalMedia } from "./call/media.js";
import { Side } from "./call/side.js";
import { Tiles, initials, nameOf } from "./call/tiles.js";
import { SIGNALING_STATES, errorWords, mediaWords } from "./call/words.js";
import { $, $$, copy, dismiss, icon, notify, setting } from "./page.js";

const media = new LocalMedia();
const tiles = new Tiles($("#tiles"));
const side = new Side((text) => room?.send({ kind: "chat", text }));
const root = document.documentElement;
const roomName = setting("room") || randomRoom();
let room = null;
let myName = "";

// The lobby ------------------------------------------------------------------------------------

function prepareLobby() {
  const url = new URL(location.href);
  url.searchParams.set("room", roomName);
  history.replaceState(null, "", url);
  for (const code of $$('[data-testid="room"], [data-testid="call-room"]')) code.textContent = roomName;
  $("#name").value = setting("name") || localStorage.getItem("icebroker-name") || "";
  $("#relay").checked = setting("relay") === "1";
  $("#start").onsubmit = (event) => {
    event.preventDefault();
    join();
  };
  $('[data-testid="screen"]').hidden = !navigator.mediaDevices?.getDisplayMedia;
  openMedia();
}

/** A name that nobody guesses, easy to read out: no l, 1, o or 0. */
function randomRoom() {
  const letters = "abcdefghijkmnpqrstuvwxyz23456789";
  const picked = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => letters[byte % 32]);
  return [picked.slice(0, 4), picked.slice(4, 8), picked.slice(8)].map((part) => part.join("")).join("-");
}

async function openMedia() {
  dismiss($("#lobby-notices"), "media");
  const problem = await media.open();
  root.dataset.media = problem ?? "ok";
  if (!problem) return;
  const again = problem === "insecure" ? undefined : { label: "Try again", run: openMedia };
  notify($("#lobby-notices"), "media", mediaWords(problem), { action: again });
}

function showMedia() {
  for (const video of $$(".tile.self video")) {
    if (video.srcObject !== media.stream) video.srcObject = media.stream;
    video.closest(".tile").classList.toggle("no-video", !media.sends("video"));
    video.closest(".tile").classList.toggle("screen", Boolean(media.screen));
  }
  for (const avatar of $$(".tile.self .avatar")) avatar.textContent = initials(myName || $("#name").value || "You");
  for (const [action, kind, there] of [["mic", "audio", media.microphone], ["camera", "video", media.camera]]) {
    for (const button of $$(`[data-action="${action}"]`)) {
      button.disabled = !there;
      const on = Boolean(there?.enabled);
      button.setAttribute("aria-pressed", String(on));
      button.firstElementChild.replaceWith(icon(on ? action : `${action}-off`));
      button.dataset.kind = kind;
    }
  }
  $('[data-action="screen"]').setAttribute("aria-pressed", String(Boolean(media.screen)));
}

// The call -------------------------------------------------------------------------------------

async function join() {
  myName = $("#name").value.trim();
  localStorage.setItem("icebroker-name", myName);
  $("#lobby-notices").replaceChildren();
  show("call");
  const transport = setting("transport");
  room = new Icebroker({ token: setting("token") || undefined }).room(roomName, {
    name: myName,
    media: media.stream,
    iceTransportPolicy: $("#relay").checked ? "relay" : "all",
    iceServers: (servers) => (transport ? onlyTransport(servers, transport) : servers),
  });
  globalThis.icebroker = { room }; // for the curious, in the console
  listen(room);
  render();
  try {
    await room.join();
  } catch {
    // `close` has said it already.
  }
}

function listen(room) {
  room.on("state", showSignaling);
  room.on("close", (error) => end(error));
  room.on("error", (error) => console.warn(error.code, error.message, error.cause ?? ""));
  room.on("join", (peer) => {
    peer.send(whatIShow());
    render(peer);
  });
  room.on("leave", (peer) => {
    tiles.remove(peer);
    render();
  });
  room.on("track", (peer, stream) => {
    render(peer);
    tiles.play(peer, stream);
    stream.onaddtrack = stream.onremovetrack = () => render(peer);
  });
  for (const event of ["update", "path", "peerstate", "bye"]) room.on(event, (peer) => room.peers.has(peer.id) && render(peer));
  room.on("data", (peer, value) => {
    if (value?.kind === "chat") side.say(nameOf(peer), String(value.text));
    if (value?.kind === "shows") {
      peer.shows = value;
      render(peer);
    }
  });
}

function whatIShow() {
  return { kind: "shows", mic: media.sends("audio"), camera: media.sends("video"), screen: Boolean(media.screen) };
}

function showSignaling(state) {
  const status = $('[data-testid="status"]');
  status.dataset.state = root.dataset.signaling = state;
  status.textContent = SIGNALING_STATES[state];
  if (state === "open") dismiss($("#call-notices"), "away");
  if (state === "waiting") {
    notify($("#call-notices"), "away", "The server is away. Calls that are up go on; reconnecting…");
  }
}

function render(peer) {
  if (peer) tiles.show(peer);
  const peers = [...room.peers.values()];
  $("#alone").hidden = peers.length > 0;
  side.list(myName || "Guest", peers);
  root.dataset.peers = peers.length;
  document.title = peers.length ? `${roomName} (${peers.length + 1}) · Icebroker` : "Icebroker call";
}

function end(error) {
  for (const peer of room.peers.values()) tiles.remove(peer);
  room = null;
  if (media.screen) media.toggleScreen();
  side.clear();
  $("#call-notices").replaceChildren();
  show("lobby");
  const [code, text] = error ? [error.code, errorWords(error)] : ["left", "You left the call."];
  notify($("#lobby-notices"), code, text, { kind: error ? "bad" : "good" });
  $('[data-testid="start"]').focus();
}

function show(view) {
  root.dataset.view = view;
  $("#lobby").hidden = view !== "lobby";
  $("#call").hidden = view !== "call";
}

// The buttons ----------------------------------------------------------------------------------

const ACTIONS = {
  mic: () => media.microphone && media.toggle("audio"),
  camera: () => media.camera && media.toggle("video"),
  screen: () => media.toggleScreen().catch(() => {}), // the person said no
  chat: () => side.toggle(),
  hangup: () => room?.leave(),
  copy: copyLink,
};
const KEYS = { m: "mic", v: "camera", s: "screen", c: "chat" };

async function copyLink(button) {
  const url = new URL(location.href);
  url.hash = "";
  url.search = new URLSearchParams({ room: roomName });
  const label = button?.lastChild;
  if (!(await copy(url.href))) return;
  const text = label.textContent;
  if (text === "Copied") return;
  label.textContent = "Copied";
  setTimeout(() => (label.textContent = text), 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-action]");
  if (button && !button.disabled) ACTIONS[button.dataset.action](button);
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && room && side.open) side.toggle(false);
  const writing = event.target.closest?.("input, textarea");
  if (!room || writing || event.ctrlKey || event.metaKey || event.altKey) return;
  const action = KEYS[event.key.toLowerCase()];
  if (action) ACTIONS[action]();
});

// A page that comes back out of the browser's cache has left its room.
addEventListener("pageshow", (event) => event.persisted && location.reload());

media.on("change", () => {
  showMedia();
  room?.setMedia(media.stream);
  room?.send(whatIShow());
});

prepareLobby();
showMedia();
root.dataset.ready = "true";
