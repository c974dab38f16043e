/** The ICE tester: each server of a list by itself, and a verdict in words. */

import { echo, gather } from "./trickle/probe.js";
import { gradeOf, judge, verdictOf } from "./trickle/words.js";
import { $, copy, element, setting } from "./page.js";

/** Tries at a time: a browser has few ports to spare, and a relay counts allocations per user. */
const AT_ONCE = 3;

const root = document.documentElement;
let run = 0;
let report = null;

/** The server's own list; throws with a sentence for the person. */
async function ownServers() {
  const token = setting("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch("ice", { headers, cache: "no-store" });
  } catch {
    throw new Error("The server does not answer. Check your connection, then test again.");
  }
  if (response.status === 401) {
    throw new Error("This server gives its ICE servers only to those with a token: open this page with #token=… behind its address.");
  }
  if (!response.ok) throw new Error(`The server answered ${response.status} instead of a list of ICE servers.`);
  return (await response.json()).iceServers;
}

/** What a person wrote; throws with a sentence for them. */
function writtenServers(text) {
  let servers;
  try {
    servers = JSON.parse(text);
  } catch (error) {
    throw new Error(`This is not JSON: ${error.message}`);
  }
  servers = servers.iceServers ?? servers;
  try {
    new RTCPeerConnection({ iceServers: servers }).close();
  } catch (error) {
    throw new Error(`The browser does not take this list: ${error.message}`);
  }
  if (!servers.length) throw new Error("The list is empty.");
  return servers;
}

/** Test a list of ICE servers; a later test takes the place of one that is still running. */
async function test(servers) {
  const mine = ++run;
  root.dataset.verdict = "";
  $("#copy").disabled = true;
  showVerdict("", "Testing…");
  const tries = servers.flatMap((server) => [server.urls].flat().map((url) => ({ url, server: { ...server, urls: [url] } })));
  const rows = tries.map(({ url }) => row(url));
  $("#results").replaceChildren(...rows);
  const results = [];
  const waiting = [...tries.keys()];
  const worker = async () => {
    while (waiting.length && mine === run) {
      const index = waiting.shift();
      results[index] = await attempt(tries[index]);
      if (mine === run) show(rows[index], results[index]);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (mine !== run) return;
  const verdict = verdictOf(results);
  report = { ...verdict, browser: navigator.userAgent, results };
  $("#copy").disabled = false;
  showVerdict(verdict.grade, verdict.words);
}

async function attempt({ url, server }) {
  const gathered = await gather(server);
  if (!gathered.candidates.some(({ type }) => type === "relay")) return { url, ...gathered };
  return { url, ...gathered, echo: await echo(server) };
}

function row(url) {
  const head = element("div", { class: "result-head" }, element("code", { text: url }), element("span", { class: "grade", text: "Testing…" }));
  return element("li", { class: "card result", data: { testid: "result", url } }, head, element("p", { class: "small words" }));
}

function show(area, result) {
  const grade = gradeOf(result);
  area.dataset.grade = grade;
  if (result.echo) Object.assign(area.dataset, { echoSent: result.echo.sent, echoReceived: result.echo.received });
  $(".grade", area).textContent = { good: "Works", warn: "Works in part", bad: "Does not work" }[grade];
  $(".words", area).textContent = judge(result);
  if (!result.candidates.length) return;
  const list = element("ul", { class: "candidates" });
  for (const { candidate, after } of result.candidates) list.append(element("li", { text: `${after} ms  ${candidate}` }));
  area.append(element("details", { class: "small" }, element("summary", { text: "Candidates" }), list));
}

function showVerdict(grade, words) {
  const area = $("#verdict");
  area.className = `notice ${grade}`;
  $("p", area).textContent = words;
  root.dataset.verdict = grade;
}

async function testOwn() {
  let servers;
  try {
    servers = await ownServers();
  } catch (problem) {
    $("#results").replaceChildren();
    return showVerdict("bad", problem.message);
  }
  $("#servers").value = JSON.stringify(servers, null, 2);
  return test(servers);
}

$("#form").onsubmit = (event) => {
  event.preventDefault();
  const problem = $("#servers-problem");
  problem.hidden = true;
  try {
    test(writtenServers($("#servers").value));
    $("#verdict").scrollIntoView({ block: "nearest" });
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
  }
};
$("#again").onclick = testOwn;
$("#copy").onclick = () => copy(JSON.stringify(report, null, 2));
testOwn();
