/** The tiles: what two looks at the status, one after the other, say of the load. */

import { duration, scaled, tile } from "./draw.js";

const KEPT = 60;
const history = { bits: [], allocations: [], connections: [] };
let before;

/** The tiles of a status. */
export function tiles(status) {
  const seconds = before ? (Date.parse(status.now) - Date.parse(before.now)) / 1000 : 0;
  const since = (read) => (seconds > 0 ? Math.max(0, read(status) - read(before)) / seconds : 0);
  const { turn, signaling } = status.services;
  const found = [...(turn ? relay(turn, since) : []), ...(signaling ? rooms(signaling) : []), process(status, since)];
  before = status;
  return found;
}

function remember(name, value) {
  history[name].push(value);
  history[name].splice(0, history[name].length - KEPT);
  return history[name];
}

function relay(turn, since) {
  const planes = Object.keys(turn.relayed);
  const rate = (plane, what) => since((status) => status.services.turn.relayed[plane][what]);
  const bits = planes.map((plane) => 8 * rate(plane, "bytes"));
  const packets = planes.reduce((sum, plane) => sum + rate(plane, "packets"), 0);
  const whole = bits.reduce((sum, each) => sum + each, 0);
  const inKernel = whole ? Math.round((100 * bits[planes.indexOf("kernel")]) / whole) : 0;
  const free = turn.ports ? turn.ports_free / turn.ports : 1;
  const refused = most(turn.responses, (code) => since((status) => status.services.turn.responses[code] ?? 0), ["200", "401", "438"]);
  const dropped = most(turn.dropped, (reason) => since((status) => status.services.turn.dropped[reason] ?? 0));
  return [
    tile({ name: "Allocations", value: scaled(turn.allocations), note: `${scaled(turn.created)} since the start`, history: remember("allocations", turn.allocations) }),
    tile({ name: "Relayed", value: scaled(whole, "bit/s"), note: `${scaled(packets)} packets/s`, history: remember("bits", whole) }),
    tile({ name: "Data plane", value: turn.plane, note: turn.plane === "kernel" ? `carries ${inKernel} % now; ${turn.plane_reason}` : turn.plane_reason }),
    tile({ name: "Relay ports free", value: `${Math.floor(100 * free)} %`, note: `${turn.ports_free} of ${turn.ports}`, mood: free < 0.05 ? "bad" : free < 0.2 ? "warn" : "" }),
    tile({ name: "Refused", value: `${refused.rate.toFixed(1)} /s`, note: `requests${refused.mostly}`, mood: refused.rate > 5 ? "warn" : "" }),
    tile({ name: "Dropped", value: `${dropped.rate.toFixed(1)} /s`, note: `packets${dropped.mostly}`, mood: dropped.rate > 50 ? "warn" : "" }),
    certificate("Certificate", turn.certificate_not_after),
  ];
}

/** How fast counts grow together, and which of them grows most. */
function most(counts, rateOf, without = []) {
  const rates = Object.keys(counts).filter((name) => !without.includes(name)).map((name) => [name, rateOf(name)]);
  const [name, top] = rates.reduce((one, other) => (other[1] > one[1] ? other : one), ["", 0]);
  return { rate: rates.reduce((sum, [, rate]) => sum + rate, 0), mostly: top ? `, mostly ${name.replaceAll("_", " ")}` : "" };
}

function certificate(name, notAfter) {
  if (notAfter === null) return tile({ name, value: "none", note: "the relay has no TLS" });
  const days = Math.floor((notAfter * 1000 - Date.now()) / 86_400_000);
  const note = new Date(notAfter * 1000).toLocaleDateString();
  const mood = days < 7 ? "bad" : days < 21 ? "warn" : "";
  return tile({ name, value: days < 0 ? "expired" : `${days} days`, note, mood });
}

function rooms(signaling) {
  const { host, srflx, prflx, relay: relayed } = signaling.paths;
  const direct = host + srflx + prflx;
  const all = direct + relayed;
  return [
    tile({ name: "Connections", value: scaled(signaling.connections), note: "WebSockets", history: remember("connections", signaling.connections) }),
    tile({ name: "Rooms", value: scaled(signaling.rooms), note: `${scaled(signaling.peers)} peers` }),
    tile({
      name: "Direct, not relayed", value: all ? `${Math.round((100 * direct) / all)} %` : "–", share: [direct, relayed],
      note: all ? `of ${scaled(all)} calls told of` : "no call told of yet",
    }),
    ...(signaling.certificate_not_after === null ? [] : [certificate("Certificate of the pages", signaling.certificate_not_after)]),
    tile({ name: "Broker", value: signaling.broker_up ? "up" : "away", note: signaling.broker, mood: signaling.broker_up ? "" : "bad" }),
  ];
}

function process(status, since) {
  const cpu = 100 * since((each) => each.process.cpu_seconds);
  const up = (Date.parse(status.now) - Date.parse(status.started)) / 1000;
  return tile({ name: "CPU", value: `${cpu.toFixed(0)} %`, note: `up ${duration(up)}, ${scaled(status.process.largest_resident_bytes, "B")} at most`, mood: cpu > 90 ? "warn" : "" });
}
