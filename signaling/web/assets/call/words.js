/** What the call page says, in one place. */

const PATHS = {
  host: ["Direct", "Packets go straight from browser to browser."],
  srflx: ["Direct through NAT", "Packets go straight from browser to browser, through an opened NAT."],
  // Found by the checks themselves: behind a NAT, or where browsers hide their addresses (mDNS).
  prflx: ["Direct", "Packets go straight from browser to browser."],
};

/** A label and an explanation for a path as `pathOf` gives it. */
export function pathWords({ path, via, local, remote, protocol, rtt }) {
  const [label, meaning] = PATHS[path] ?? relayWords(via);
  return {
    label: rtt === null ? label : `${label} · ${milliseconds(rtt)}`,
    meaning: `${meaning} Candidates: ${local} here, ${remote} there, ${protocol} between them.`,
  };
}

/** Browsers measure whole milliseconds. */
function milliseconds(seconds) {
  return seconds < 0.001 ? "< 1 ms" : `${Math.round(seconds * 1000)} ms`;
}

function relayWords(via) {
  const meaning = "No direct path works, or none is wanted: the relay passes the packets on, encrypted end to end.";
  return via ? [`Relayed over ${via.toUpperCase()}`, meaning] : ["Relayed by the other side", meaning];
}

export const PEER_STATES = {
  new: "Connecting…",
  connecting: "Connecting…",
  disconnected: "Connection lost, waiting…",
  failed: "Looking for another path…",
  closed: "Hung up",
};

export const SIGNALING_STATES = {
  idle: "",
  connecting: "Connecting…",
  waiting: "Reconnecting…",
  open: "Connected",
  closed: "Left",
};

const ERRORS = {
  room_full: "This room is full. Ask somebody to leave, or open another room.",
  unauthorized: "Your invitation was refused: it has expired, or it was changed. Ask for a new link.",
  forbidden: "Your invitation is for another room. Ask for the link of this one.",
  unreachable: "The server does not answer. Check your connection, then try again.",
  replaced: "The call goes on in another window.",
  removed: "An operator has ended your part in the call.",
  flood: "The server cut the connection: too many messages at once.",
  unavailable: "The server cannot let anybody in right now. Try again in a moment.",
};

/** A sentence for an error that ends or prevents the call. */
export function errorWords(error) {
  return ERRORS[error.code] ?? `The call ended: ${error.message}.`;
}

const MEDIA_ERRORS = {
  insecure:
    "Browsers give camera and microphone to secure pages only. Open this page over https (or on localhost). You can join all the same, and see and hear the others.",
  NotAllowedError:
    "Camera and microphone are blocked. Allow them beside the address bar and try again, or join without.",
  NotFoundError: "No camera or microphone found. You can join all the same, and see and hear the others.",
  NotReadableError: "Another application is using the camera or microphone. Close it and try again, or join without.",
  no_camera: "No camera that works: the others will hear you.",
  no_microphone: "No microphone that works: the others will see you.",
};

export function mediaWords(code) {
  return MEDIA_ERRORS[code] ?? "Camera and microphone do not work. You can join all the same, and see and hear the others.";
}
