/** What a browser can find out about one ICE server by itself. Times are milliseconds. */

const GATHERING = 12_000;
const CONNECTING = 10_000;
const ECHOES = 20;
const ECHO_PAUSE = 25;
const ECHO_PATIENCE = 1_500;

/**
 * Gather candidates with one server alone; for a TURN server, relay candidates only.
 *
 * Resolves to `candidates` ({type, candidate, after}), `errors` ({code, text}) and `complete`: whether
 * the browser has finished in time.
 */
export async function gather(server) {
  const relay = isRelay(server);
  const pc = new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: relay ? "relay" : "all" });
  const started = performance.now();
  const candidates = [];
  const errors = [];
  pc.onicecandidateerror = ({ errorCode: code, errorText: text }) => {
    if (!errors.some((known) => known.code === code)) errors.push({ code, text });
  };
  const complete = new Promise((resolve) => {
    pc.onicecandidate = ({ candidate }) => {
      if (!candidate) return resolve(true);
      // Host candidates are the browser's own, whatever the server does.
      if (!candidate.candidate || candidate.type === "host") return undefined;
      const after = Math.round(performance.now() - started);
      return candidates.push({ type: candidate.type, candidate: candidate.candidate, after });
    };
  });
  try {
    pc.createDataChannel("probe");
    await pc.setLocalDescription();
    return { complete: await within(GATHERING, complete), candidates, errors };
  } finally {
    pc.close();
  }
}

/**
 * Send packets from this browser through its relay to itself, by two allocations on the same server,
 * over a data channel that repeats nothing.
 *
 * Resolves to `sent` and `received` (round trips), `median` (their time, null where none came back)
 * and `connected` (how long the path took, null where there is none).
 */
export async function echo(server) {
  const configuration = { iceServers: [server], iceTransportPolicy: "relay" };
  const near = new RTCPeerConnection(configuration);
  const far = new RTCPeerConnection(configuration);
  try {
    const started = performance.now();
    const channel = await within(CONNECTING, connect(near, far));
    if (!channel) return { sent: 0, received: 0, median: null, connected: null };
    const connected = Math.round(performance.now() - started);
    return { connected, ...(await bounce(channel)) };
  } finally {
    near.close();
    far.close();
  }
}

export function isRelay(server) {
  return /^turns?:/i.test([server.urls].flat()[0]);
}

/** Connect two connections of this page; resolves to an open channel whose other end sends everything back. */
async function connect(near, far) {
  const channel = near.createDataChannel("echo", { ordered: false, maxRetransmits: 0 });
  const open = new Promise((resolve) => (channel.onopen = () => resolve(channel)));
  far.ondatachannel = ({ channel: other }) => (other.onmessage = ({ data }) => other.send(data));
  exchange(near, far);
  exchange(far, near);
  await near.setLocalDescription();
  await far.setRemoteDescription(near.localDescription);
  await far.setLocalDescription();
  await near.setRemoteDescription(far.localDescription);
  return open;
}

/** Hand one side's candidates to the other, once it knows the description that they belong to. */
function exchange(from, to) {
  const early = [];
  const add = (candidate) => to.addIceCandidate(candidate).catch(() => {}); // one that does not fit is one path less
  from.onicecandidate = ({ candidate }) => {
    if (!candidate) return;
    if (to.remoteDescription) add(candidate);
    else early.push(candidate);
  };
  to.addEventListener("signalingstatechange", () => to.remoteDescription && early.splice(0).forEach(add));
}

async function bounce(channel) {
  const times = [];
  let sent = 0;
  const all = new Promise((resolve) => {
    channel.onmessage = ({ data }) => {
      times.push(performance.now() - Number(data));
      if (times.length === ECHOES) resolve();
    };
  });
  for (; sent < ECHOES; sent += 1) {
    channel.send(String(performance.now()));
    await pause(ECHO_PAUSE);
  }
  await within(ECHO_PATIENCE, all);
  times.sort((a, b) => a - b);
  const median = times.length ? times[Math.floor(times.length / 2)] : null;
  return { sent, received: times.length, median };
}

function pause(time) {
  return new Promise((resolve) => setTimeout(resolve, time));
}

/** What a promise resolves to, or null where that takes too long. */
function within(time, promise) {
  return Promise.race([promise, pause(time).then(() => null)]);
}
