/** A stream from what an application hands in: a MediaStream, constraints for getUserMedia, or nothing. */
export async function streamFrom(media) {
  if (!media || typeof media.getTracks === "function") return media ?? null;
  return navigator.mediaDevices.getUserMedia(media);
}

/**
 * Make a connection send exactly the tracks of `stream`. A track that takes the place of another one of
 * its kind (screen for camera) needs no negotiation.
 */
export function sendTracks(pc, stream) {
  const wanted = stream?.getTracks() ?? [];
  const idle = pc.getSenders().filter(({ track }) => track && !wanted.includes(track));
  const sent = pc.getSenders().map(({ track }) => track);
  for (const track of wanted.filter((each) => !sent.includes(each))) {
    const place = idle.findIndex((sender) => sender.track.kind === track.kind);
    if (place >= 0) idle.splice(place, 1)[0].replaceTrack(track);
    else pc.addTrack(track, stream);
  }
  for (const sender of idle) pc.removeTrack(sender);
}

/** Offer to receive what we do not send, so that one negotiation is enough for both directions. */
export function receiveToo(pc, kinds) {
  for (const kind of kinds) {
    const there = pc.getTransceivers().some(({ receiver }) => receiver.track.kind === kind);
    if (!there) pc.addTransceiver(kind, { direction: "recvonly" });
  }
}
