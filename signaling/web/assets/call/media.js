import { Emitter } from "../../client.js";

/**
 * What this side sends: microphone, and camera or screen. One stream for the whole call, so that
 * sound and picture stay together for the others. Event: `change`.
 */
export class LocalMedia extends Emitter {
  stream = new MediaStream();
  screen = null;
  #camera = null;
  #on = { audio: true, video: true };

  get microphone() {
    return this.stream.getAudioTracks()[0] ?? null;
  }

  get camera() {
    return this.#camera;
  }

  /** Whether sound or picture is sent. */
  sends(kind) {
    if (kind === "audio") return Boolean(this.microphone && this.#on.audio);
    return Boolean(this.screen || (this.#camera && this.#on.video));
  }

  /** Ask for microphone and camera; one of them is better than none. Resolves to a problem's code, or null. */
  async open() {
    if (!navigator.mediaDevices?.getUserMedia) return "insecure";
    let first;
    for (const wanted of [{ audio: true, video: true }, { audio: true }, { video: true }]) {
      try {
        this.#take(await navigator.mediaDevices.getUserMedia(wanted));
        if (wanted.audio && wanted.video) return null;
        return wanted.audio ? "no_camera" : "no_microphone";
      } catch (error) {
        first ??= error.name;
        if (error.name === "NotAllowedError") break;
      }
    }
    return first;
  }

  toggle(kind) {
    this.#on[kind] = !this.#on[kind];
    for (const track of [this.microphone, this.#camera]) {
      if (track?.kind === kind) track.enabled = this.#on[kind];
    }
    this.emit("change");
  }

  /** Send the screen in place of the camera, or the camera again. Rejects where the person says no. */
  async toggleScreen() {
    if (this.screen) return this.#endScreen();
    const shared = await navigator.mediaDevices.getDisplayMedia({ video: true });
    this.screen = shared.getVideoTracks()[0];
    this.screen.onended = () => this.#endScreen();
    this.#showVideo(this.screen);
    return undefined;
  }

  #endScreen() {
    this.screen?.stop();
    this.screen = null;
    this.#showVideo(this.#camera);
  }

  #take(stream) {
    this.#camera = stream.getVideoTracks()[0] ?? null;
    for (const track of stream.getTracks()) {
      track.enabled = this.#on[track.kind];
      track.onended = () => this.emit("change");
      this.stream.addTrack(track);
    }
    this.emit("change");
  }

  #showVideo(track) {
    for (const other of this.stream.getVideoTracks()) this.stream.removeTrack(other);
    if (track) this.stream.addTrack(track);
    this.emit("change");
  }
}
