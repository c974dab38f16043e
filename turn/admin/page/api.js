/** The admin API: the token, one request, the stream of events. */

const KEY = "icebroker-admin-token";

/** The token may come in the address, after `#`, which is never sent anywhere; it is taken out of it at once. */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEY) ?? "";
}

export const keepToken = (token) => sessionStorage.setItem(KEY, token);
export const forgetToken = () => sessionStorage.removeItem(KEY);

export class ApiError extends Error {
  constructor(status, { message, problems = [] }) {
    super([message, ...problems].join("\n"));
    this.status = status;
  }
}

const headers = () => ({ Authorization: `Bearer ${sessionStorage.getItem(KEY) ?? ""}` });

/** What the API answers; an `ApiError` where it refuses. */
export async function ask(path, { method = "GET", body, query = {} } = {}) {
  const url = new URL(`api/v1/${path}`, document.baseURI);
  for (const [name, value] of Object.entries(query)) if (value) url.searchParams.set(name, value);
  const response = await fetch(url, { method, headers: headers(), body: body && JSON.stringify(body), cache: "no-store" });
  const answer = await response.json();
  if (!response.ok) throw new ApiError(response.status, answer);
  return answer;
}

/** The last events and then those that happen, until `signal`; after a lost connection it goes on where it was. */
export async function* events(signal) {
  let last = "0";
  while (!signal.aborted) {
    try {
      const response = await fetch("api/v1/events", { headers: { ...headers(), "Last-Event-ID": last }, signal, cache: "no-store" });
      if (!response.ok) throw new ApiError(response.status, await response.json());
      for await (const block of blocks(response.body)) {
        const event = parse(block);
        if (!event) continue;
        last = event.id || last;
        yield event;
      }
    } catch (error) {
      if (signal.aborted || error.status === 401 || error.status === 404) return;
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

async function* blocks(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    yield* parts;
  }
}

function parse(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const at = line.indexOf(": ");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 2);
  }
  return fields.data && { id: fields.id, kind: fields.event, data: JSON.parse(fields.data) };
}
