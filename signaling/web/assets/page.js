/** What both pages do with the document, without a framework. */

export const $ = (selector, within = document) => within.querySelector(selector);
export const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

/** An element with attributes (`text` is its text, `data` its data attributes) and children. */
export function element(tag, { text, data, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  Object.assign(made.dataset, data);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

/** One of the icons in the page, by its name. */
export function icon(name) {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  const use = document.createElementNS(namespace, "use");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Show a notice in `area`, in place of an earlier one with the same code. `action`: {label, run}. */
export function notify(area, code, text, { kind = "warn", action } = {}) {
  dismiss(area, code);
  const notice = element("div", { class: `notice ${kind}`, data: { code, testid: "notice" } });
  notice.append(element("p", { text }));
  if (action) {
    const button = element("button", { class: "button slim", type: "button", text: action.label });
    button.onclick = action.run;
    notice.append(button);
  }
  area.append(notice);
}

export function dismiss(area, code) {
  $(`[data-code="${code}"]`, area)?.remove();
}

/** Put text on the clipboard, also where the page is not a secure context; resolves to whether it is there. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = element("textarea", { class: "visually-hidden", readonly: "" });
    field.value = text;
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    return copied;
  }
}

/** The page's settings: of the query, or of the fragment, which no server and no log sees. */
export function setting(name) {
  const fragment = new URLSearchParams(location.hash.slice(1));
  return fragment.get(name) ?? new URLSearchParams(location.search).get(name) ?? "";
}
