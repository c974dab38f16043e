/**
 * The path that a connection's packets take now, or null where none is chosen yet:
 * `path` (host, srflx, prflx, relay), `via` (udp, tcp, tls: how this side reaches its relay; null where
 * it uses none), `protocol` between the two ends of the path, the candidate types `local` and `remote`,
 * `rtt` in seconds.
 */
export async function pathOf(pc) {
  const stats = await pc.getStats();
  const pair = chosenPair(stats);
  const local = pair && stats.get(pair.localCandidateId);
  const remote = pair && stats.get(pair.remoteCandidateId);
  if (!local || !remote) return null;
  const types = [local.candidateType, remote.candidateType];
  return {
    path: ["relay", "prflx", "srflx"].find((type) => types.includes(type)) ?? "host",
    via: local.candidateType === "relay" ? (local.relayProtocol ?? "udp") : null,
    protocol: local.protocol,
    local: local.candidateType,
    remote: remote.candidateType,
    rtt: pair.currentRoundTripTime ?? null,
  };
}

function chosenPair(stats) {
  let nominated = null;
  for (const entry of stats.values()) {
    if (entry.type === "transport" && entry.selectedCandidatePairId) {
      return stats.get(entry.selectedCandidatePairId);
    }
    // Firefox has no transport statistics, and says `selected` instead.
    if (entry.type === "candidate-pair" && (entry.selected || (entry.nominated && entry.state === "succeeded"))) {
      nominated = entry;
    }
  }
  return nominated;
}
