/** The tables: allocations, rooms and peers by the page; refusals, errors, events, revocations. */

import { ask } from "./api.js";
import { clock, duration, fill, scaled } from "./draw.js";

const $ = (id) => document.getElementById(id);
const MOST_EVENTS = 100;
const PAGE = 12;
const cursors = { allocations: "", rooms: "", peers: "" };
const following = { allocations: null, rooms: null, peers: null };
const recent = [];
let drawn = null;  // many events come at once, and are drawn once

/** What a table's buttons do: `end(kind, id, question)` asks first, `look(kind, id)` shows all of one. */
export function makeLists({ look, end, restore, failed }) {
  const columns = {
    allocations: [
      { name: "User", of: (a) => a.user },
      { name: "Client", of: (a) => a.client, mono: true },
      { name: "", of: (a) => a.transport },
      { name: "Relayed address", of: (a) => a.relayed.join(" "), mono: true },
      { name: "Age", of: (a) => duration(a.age), number: true },
      { name: "To peers", of: (a) => scaled(a.sent_bytes, "B"), number: true },
      { name: "From peers", of: (a) => scaled(a.received_bytes, "B"), number: true },
      { name: "Peers", of: (a) => a.permissions, number: true },
      { name: "", button: "Details", of: (a) => look("allocations", a.id) },
      { name: "", button: "End", of: (a) => end("allocations", a.id, `End the allocation of ${a.user} at ${a.client}? Its call goes on only if it finds another path.`) },
    ],
    rooms: [
      { name: "Room", of: (r) => r.id },
      { name: "Peers", of: (r) => r.peers, number: true },
      { name: "Connected", of: (r) => r.connected, number: true },
      { name: "", button: "Who", of: (r) => only("peers", { rooms: r.id }) },
      { name: "", button: "Close", of: (r) => end("rooms", r.id, `Remove everyone from the room ${r.id}?`) },
    ],
    peers: [
      { name: "Name", of: (p) => p.name || "–" },
      { name: "User", of: (p) => p.user, mono: true },
      { name: "Rooms", of: (p) => p.rooms.join(", ") },
      { name: "", of: (p) => (p.connected ? "" : "away") },
      { name: "", button: "Relay", of: (p) => only("allocations", { user: p.user }) },
      { name: "", button: "Details", of: (p) => look("peers", p.id) },
      { name: "", button: "Remove", of: (p) => end("peers", p.id, `Remove ${p.name || p.user}?`) },
    ],
  };
  const refusals = [
    { name: "Time", of: (e) => clock(e.time) },
    { name: "Code", of: (e) => e.facts.code },
    { name: "Who", of: (e) => who(e.facts) },
    { name: "What", of: (e) => e.facts.method ?? e.kind.replace("_refused", "") },
    { name: "Why", of: (e) => [e.facts.why, ...(e.facts.peers ?? [])].filter(Boolean).join(" · ") },
  ];
  const errors = [
    { name: "Time", of: (e) => clock(e.time) },
    { name: "", of: (e) => e.facts.level },
    { name: "What", of: ({ facts: { level, logger, text, ...rest } }) => [text, ...Object.values(rest)].join(" · ") },
  ];
  const events = [
    { name: "Time", of: (e) => clock(e.time) },
    { name: "What", of: (e) => e.kind.replaceAll("_", " ") },
    { name: "Who", of: (e) => who(e.facts) },
    { name: "", of: (e) => e.facts.why ?? e.facts.reason ?? e.facts.room ?? e.facts.action ?? e.facts.text ?? "" },
  ];
  const revocations = [
    { name: "User", of: (r) => r.user },
    { name: "Until", of: (r) => new Date(r.until).toLocaleString() },
    { name: "Where", of: (r) => (r.everywhere ? "everywhere" : "this process") },
    { name: "", button: "Restore", of: (r) => restore(r.user) },
  ];

  async function list(kind) {
    const form = document.querySelector(`form[data-list=${kind}]`);
    const filters = form ? Object.fromEntries(new FormData(form)) : {};
    const page = await ask(kind, { query: { ...filters, limit: PAGE, after: cursors[kind] } });
    following[kind] = page.next;
    $(`n-${kind}`).textContent =
      page.total === page.unfiltered ? scaled(page.total) : `${scaled(page.total)} of ${scaled(page.unfiltered)}`;
    const part = $(`p-${kind}`);
    if (part) part.textContent = page.part ?? "";
    fill($(`t-${kind}`), columns[kind], page[kind], page.unfiltered ? "none that the filter lets through" : "none now");
    document.querySelector(`[data-next=${kind}]`).disabled = page.next === null;
    document.querySelector(`[data-first=${kind}]`).disabled = !cursors[kind];
    document.querySelector(`[data-next=${kind}]`).parentElement.hidden = page.next === null && !cursors[kind];
  }

  /** Filter a list, and bring it into view. */
  function only(kind, filters) {
    const form = document.querySelector(`form[data-list=${kind}]`);
    form.reset();
    for (const [name, value] of Object.entries(filters)) form.elements[name].value = value;
    form.requestSubmit();
    $(`s-${kind}`).scrollIntoView({ block: "nearest" });
  }

  for (const kind of Object.keys(cursors)) {
    const show = (after) => {
      cursors[kind] = after;
      list(kind).catch(failed);
    };
    document.querySelector(`[data-first=${kind}]`).onclick = () => show("");
    document.querySelector(`[data-next=${kind}]`).onclick = () => show(following[kind] ?? "");
    document.querySelector(`form[data-list=${kind}]`)?.addEventListener("submit", (event) => {
      event.preventDefault();
      show("");
    });
  }

  $("why").addEventListener("submit", (event) => {
    event.preventDefault();
    returned.history().catch(failed);
  });
  document.querySelector("select[name=sort]").onchange = (event) => event.target.form.requestSubmit();

  const returned = {
    list,
    async history() {
      const query = Object.fromEntries(new FormData($("why")));
      const [refused, wrong, revoked] = await Promise.all([ask("refusals", { query }), ask("errors"), ask("revocations")]);
      const empty = Object.values(query).some(Boolean) ? "nothing of that was refused lately" : "nothing was refused";
      fill($("t-refusals"), refusals, refused.refusals.slice(0, MOST_EVENTS), empty);
      fill($("t-errors"), errors, wrong.errors, "none");
      fill($("t-revocations"), revocations, revoked.revocations, "nobody is revoked");
    },
    happened(event) {
      recent.unshift(event);
      recent.splice(MOST_EVENTS);
      drawn ??= requestAnimationFrame(() => {
        drawn = null;
        fill($("t-events"), events, recent, "nothing yet");
      });
    },
    nothingYet: () => fill($("t-events"), events, recent, "nothing yet"),
  };
  return returned;
}

const who = (facts) => [facts.user || facts.name, facts.client].filter(Boolean).join(" · ");
