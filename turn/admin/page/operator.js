/** The operator's page: what this process does, and what may be done to it. */

import { ask, events, forgetToken, keepToken, takeToken } from "./api.js";
import { duration } from "./draw.js";
import { makeLists } from "./lists.js";
import { tiles } from "./load.js";

const $ = (id) => document.getElementById(id);
const LOOK = 2000;
let stopping = new AbortController();
let stale = true;
let status;

const lists = makeLists({
  failed: tell,
  look: (kind, id) => inspect(kind, id).catch(tell),
  end: (kind, id, question) => act(question, () => ask(kind.slice(0, -1), { method: "DELETE", query: { id } })),
  restore: (user) => act(`Let ${user} begin again?`, () => ask("revocation", { method: "DELETE", query: { user } })),
});

async function look() {
  status = await ask("status");
  $("tiles").replaceChildren(...tiles(status));
  const { drain, problems, ready } = status;
  const left = Object.entries(drain.left).map(([what, count]) => `${count} ${what}`).join(", ");
  const reasons = Object.values(problems).flat().join(", ");
  const [words, mood] = drain.draining
    ? [drain.done ? "drained: safe to stop" : `draining: ${left} left, ${duration(drain.seconds_left)}`, "warn"]
    : ready ? ["ready", "good"] : [`not ready: ${reasons}`, "bad"];
  $("state").textContent = words;
  $("state").className = `badge ${mood}`;
  $("drain").textContent = drain.draining ? "Take work again" : "Drain";
  $("about").textContent = `${status.version} · ${Object.keys(status.services).join(" and ")}`;
  document.title = `${ready ? "" : "⚠ "}Icebroker operator`;
}

/** One look at everything that is on the page; lists only where something has happened. */
async function refresh() {
  await look();
  if (!stale) return;
  stale = false;
  const { turn, signaling } = status.services;
  $("s-allocations").hidden = !turn;
  $("s-rooms").hidden = $("s-peers").hidden = !signaling;
  const kinds = [...(turn ? ["allocations"] : []), ...(signaling ? ["rooms", "peers"] : [])];
  await Promise.all([...kinds.map(lists.list), lists.history()]);
}

async function watch(signal) {
  for await (const { kind, data } of events(signal)) {
    stale = true;
    if (kind !== "lost") lists.happened(data);
  }
}

async function run() {
  const { signal } = (stopping = new AbortController());
  watch(signal).catch(tell);
  let looks = 0;
  while (!signal.aborted) {
    try {
      // What grows by itself (ages, bytes) is looked at now and then, too.
      stale ||= looks++ % 5 === 0;
      if (!document.hidden) await refresh();
      $("notice").hidden ||= $("notice").dataset.lost === "yes";
    } catch (error) {
      if (error.status === 401 || error.status === 404) return signOut(error.message);
      tell(error, true);
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK));
  }
}

function tell(error, lost = false) {
  $("notice").textContent = error.status ? error.message : `The process does not answer: ${error.message}`;
  $("notice").dataset.lost = lost ? "yes" : "";
  $("notice").hidden = false;
  if (!error.status) $("state").className = "badge bad";
  if (!error.status) $("state").textContent = "no answer";
}

async function inspect(kind, id) {
  const found = await ask(kind.slice(0, -1), { query: { id } });
  $("details-name").textContent = `${kind.slice(0, -1)} ${id}`;
  $("details-text").textContent = JSON.stringify(found, null, 2);
  $("details").showModal();
}

async function act(question, doing) {
  $("question").textContent = question;
  $("ask").returnValue = "";
  $("ask").showModal();
  await new Promise((resolve) => $("ask").addEventListener("close", resolve, { once: true }));
  if ($("ask").returnValue !== "yes") return;
  $("notice").hidden = true;
  try {
    await doing();
  } catch (error) {
    tell(error);
  }
  stale = true;
  refresh().catch(tell);
}

async function signIn() {
  try {
    const { level } = await ask("log");
    $("level").value = level;
  } catch (error) {
    return signOut(error.status === 401 ? "That is not the token." : error.message);
  }
  $("entry").hidden = true;
  $("main").hidden = $("controls").hidden = false;
  lists.nothingYet();
  run();
}

function signOut(why = "") {
  stopping.abort();
  forgetToken();
  $("main").hidden = $("controls").hidden = true;
  $("state").textContent = "not connected";
  $("state").className = "badge";
  $("refused").textContent = why;
  $("entry").hidden = false;
  $("token").value = "";
  $("token").focus();
}

$("entry").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken($("token").value.trim());
  signIn();
});
$("forget").onclick = () => signOut();
$("reload").onclick = () => act("Read the configuration again? Calls go on; a configuration with a fault is refused.", () => ask("reload", { method: "POST" }));
$("drain").onclick = () => status.drain.draining
  ? act("Take new work again?", () => ask("drain", { method: "DELETE" }))
  : act("Turn new work away, and ask clients to leave within 30 seconds? Nothing is cut.", () => ask("drain", { method: "POST" }));
$("level").onchange = () => ask("log", { method: "PUT", body: { level: $("level").value } }).catch(tell);
$("revoke").addEventListener("submit", (event) => {
  event.preventDefault();
  const { user, seconds } = Object.fromEntries(new FormData(event.target));
  act(`End everything of ${user}, and refuse it anything new?`, async () => {
    await ask("revocation", { method: "PUT", query: { user }, body: { seconds: Number(seconds) } });
    event.target.reset();
  });
});

if (takeToken()) signIn();
else signOut();
