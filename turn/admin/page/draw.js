/** Making and filling elements, and numbers as people read them. Text only ever goes in as text. */

export function element(tag, { text, ...properties } = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

/** Fill a table. A column is `{ name, of, mono, number, button }`; `of` gives a row's text. */
export function fill(table, columns, rows, empty) {
  const head = element("tr", {}, columns.map(({ name, number }) =>
    element("th", { text: name, scope: "col", className: number ? "number" : "" })));
  const body = rows.map((row) => element("tr", {}, columns.map((column) => cell(column, row))));
  if (!rows.length) body.push(element("tr", {}, [element("td", { text: empty, colSpan: columns.length, className: "empty" })]));
  table.replaceChildren(element("thead", {}, rows.length ? [head] : []), element("tbody", {}, body));
}

function cell({ of, mono, number, button }, row) {
  const className = [mono && "mono", number && "number", button && "end"].filter(Boolean).join(" ");
  if (!button) return element("td", { text: of(row), className });
  return element("td", { className }, [element("button", { text: button, className: "link", type: "button", onclick: () => of(row) })]);
}

/** One number with a name, a line below it, and how it went lately. */
export function tile({ name, value, note = "", mood = "", history, share }) {
  const children = [element("span", { text: name, className: "muted small" }), element("span", { text: value, className: "value" })];
  if (share) children.push(bar(share));
  children.push(element("span", { text: note, className: "muted small" }));
  if (history) children.push(sparkline(history));
  return element("div", { className: `tile ${mood}` }, children);
}

function bar(parts) {
  const whole = parts.reduce((sum, part) => sum + part, 0);
  const made = element("span", { className: "share" });
  for (const part of parts) {
    const piece = element("i");
    piece.style.width = whole ? `${(100 * part) / whole}%` : "0";
    made.append(piece);
  }
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

function sparkline(values) {
  const [svg, line] = [document.createElementNS(SVG, "svg"), document.createElementNS(SVG, "polyline")];
  const top = Math.max(...values, 1e-9);
  const points = values.map((value, at) => `${(100 * at) / Math.max(values.length - 1, 1)},${28 - (26 * value) / top}`);
  svg.setAttribute("viewBox", "0 0 100 30");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  line.setAttribute("vector-effect", "non-scaling-stroke");
  line.setAttribute("points", points.join(" "));
  svg.append(line);
  return svg;
}

export function scaled(value, unit = "", steps = ["", "k", "M", "G", "T"]) {
  let step = 0;
  while (value >= 1000 && step < steps.length - 1) {
    value /= 1000;
    step += 1;
  }
  const digits = step === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)}${unit || steps[step] ? " " : ""}${steps[step]}${unit}`;
}

export function duration(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d`;
}

export const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });
