import { $, element } from "../page.js";
import { nameOf } from "./tiles.js";
import { PEER_STATES, pathWords } from "./words.js";

/** Lines and letters that are shown of what others write: nobody reads more, and a page has to hold it. */
const MOST_LINES = 500;
const LONGEST = 4000;

/** People and chat beside the pictures. `send(text)` is called with what the person writes. */
export class Side {
  #unread = 0;
  #area = $("#side");
  #button = $('[data-testid="chat"]');

  constructor(send) {
    $("#composer").onsubmit = (event) => {
      event.preventDefault();
      const text = $("#text").value.trim();
      if (!text) return;
      send(text);
      this.say("You", text, true);
      $("#text").value = "";
    };
  }

  get open() {
    return !this.#area.hidden;
  }

  toggle(open = !this.open) {
    this.#area.hidden = !open;
    this.#button.setAttribute("aria-expanded", String(open));
    if (open) {
      this.#count(0);
      $("#text").focus();
    } else {
      this.#button.focus();
    }
  }

  /** List who is here and how they are reached. */
  list(self, peers) {
    const rows = [row(`${self} (you)`, "")];
    for (const peer of peers) {
      const how = peer.state === "connected" && peer.path ? pathWords(peer.path).label : PEER_STATES[peer.state];
      rows.push(row(nameOf(peer), how ?? "Connected", peer.id));
    }
    $("#people").replaceChildren(...rows);
  }

  say(by, text, mine = false) {
    const line = element("li", { class: mine ? "mine" : "", data: { testid: "message" } });
    line.append(element("span", { class: "by", text: by }), element("span", { class: "said", text: text.slice(0, LONGEST) }));
    const lines = $("#messages");
    lines.append(line);
    if (lines.childElementCount > MOST_LINES) lines.firstElementChild.remove();
    line.scrollIntoView({ block: "nearest" });
    if (!mine && !this.open) this.#count(this.#unread + 1);
  }

  clear() {
    $("#messages").replaceChildren();
    this.#count(0);
    this.#area.hidden = true;
    this.#button.setAttribute("aria-expanded", "false");
  }

  #count(unread) {
    this.#unread = unread;
    const badge = $(".badge", this.#button);
    badge.hidden = !unread;
    badge.textContent = unread;
  }
}

function row(name, how, peer = "") {
  return element(
    "li",
    { data: { testid: "person", peer } },
    element("span", { class: "who", text: name }),
    element("span", { class: "how", text: how }),
  );
}
