/** Only those ICE servers' URLs that reach a relay over one transport (udp, tcp, tls), and STUN. */
export function onlyTransport(iceServers, transport) {
  return iceServers
    .map((server) => ({ ...server, urls: [server.urls].flat().filter((url) => fits(url, transport)) }))
    .filter((server) => server.urls.length);
}

/** What a URL reaches: `scheme` (stun, stuns, turn, turns) and `transport` (udp, tcp, tls). */
export function kindOf(url) {
  const [, scheme = ""] = /^(stuns?|turns?):/i.exec(url) ?? [];
  const tcp = /[?&]transport=tcp\b/i.test(url);
  const secure = scheme.toLowerCase().endsWith("s");
  return { scheme: scheme.toLowerCase(), transport: secure ? "tls" : tcp ? "tcp" : "udp" };
}

function fits(url, transport) {
  const kind = kindOf(url);
  return kind.scheme.startsWith("stun") || kind.transport === transport;
}
