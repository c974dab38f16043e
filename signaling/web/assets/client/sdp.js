/** The few lines of a session description that tell which connection wrote it. */

/** The `o=` line's session id: the same for as long as the writer keeps its RTCPeerConnection (RFC 8829 §5.2.1). */
export function originOf(sdp) {
  return /^o=\S+ (\S+) /m.exec(sdp)?.[1] ?? null;
}

/** Session id and version: which of that connection's descriptions this is. */
export function versionOf(sdp) {
  return /^o=\S+ (\S+ \S+) /m.exec(sdp)?.[1] ?? null;
}

/** Whether a candidate belongs to this description, as far as it says. */
export function belongsTo(candidate, sdp) {
  const fragment = candidate?.usernameFragment;
  if (!fragment) return true;
  const lines = sdp.split(/\r?\n/);
  return lines.includes(`a=ice-ufrag:${fragment}`);
}
