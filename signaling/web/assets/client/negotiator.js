import { belongsTo, originOf, versionOf } from "./sdp.js";

/** Candidates found within this time travel in one message, in milliseconds. */
const BATCH_DELAY = 20;
/** Signals of the other side that wait to be applied. */
const MOST_WAITING = 256;

/**
 * Perfect negotiation over one RTCPeerConnection: either side may offer at any time, and of two
 * offers at once the impolite side's stands. Roles come from the server.
 *
 * `hooks`: `send(signal)`; `described()`: a description of the other side's connection has been applied; `restarted(offer | null)`: the other side has a new connection, so ours is
 * of no use (the offer is to be given to our next one, if there is one); `problem(code, cause)`;
 * `delay()`: milliseconds that a description of the other side has to wait, 0 once it may be applied.
 */
export class Negotiator {
  #pc;
  #polite;
  #patient;
  #hooks;
  #makingOffer = false;
  #ignoringOffer = false;
  #offered = null;
  #remoteOrigin = null;
  #work = Promise.resolve();
  #waiting = 0;
  #batch = [];
  #batchTimer = null;
  #closed = false;

  /** `patient`: leave the first offer to the other side, which has just come. */
  constructor(pc, { polite, patient, hooks }) {
    this.#pc = pc;
    this.#polite = polite;
    this.#patient = patient;
    this.#hooks = hooks;
    pc.onnegotiationneeded = () => this.#patient || this.#offer();
    pc.onicecandidate = ({ candidate }) => this.#found(candidate);
  }

  /** Whether a description of the other side has been applied. */
  get negotiated() {
    return this.#remoteOrigin !== null;
  }

  /** Offer now, without waiting for the other side any longer. */
  insist() {
    if (!this.#patient) return;
    this.#patient = false;
    if (this.#pc.signalingState === "stable" && !this.negotiated) this.#offer();
  }

  /** Apply a signal of the other side; signals are applied one after the other, as they came. */
  receive(signal) {
    // No browser has so many under way: what is over the limit is lost, and with it this call at most.
    if (this.#waiting < MOST_WAITING) {
      this.#waiting += 1;
      this.#work = this.#work.then(() => this.#next(signal));
    }
    return this.#work;
  }

  /** Go on over another session, in the role that it gives: an offer that nobody will answer is taken back. */
  resume(polite) {
    this.#polite = polite;
    this.#work = this.#work.then(() => this.#takeBack());
    return this.#work;
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#batchTimer);
  }

  async #offer() {
    if (this.#closed) return;
    try {
      this.#makingOffer = true;
      await this.#pc.setLocalDescription();
      const description = this.#pc.localDescription;
      // Rolled back already, for an offer of the other side: ours is asked for again once that is answered.
      if (this.#closed || description?.type !== "offer") return;
      this.#offered = versionOf(description.sdp);
      this.#hooks.send({ description });
    } catch (cause) {
      this.#fail("negotiation_failed", cause);
    } finally {
      this.#makingOffer = false;
    }
  }

  /** A signal that makes no sense must not keep the next one from being applied. */
  async #next(signal) {
    try {
      for (let wait; signal.description && !this.#closed && (wait = this.#hooks.delay()); ) {
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
      if (!this.#closed) await this.#apply(signal);
    } catch (cause) {
      this.#fail("candidate_failed", cause);
    } finally {
      this.#waiting -= 1;
    }
  }

  async #takeBack() {
    if (this.#closed || this.#pc.signalingState !== "have-local-offer") return;
    try {
      await this.#pc.setLocalDescription({ type: "rollback" });
    } catch (cause) {
      this.#fail("negotiation_failed", cause);
    }
  }

  async #apply({ description, candidate, candidates }) {
    if (description) {
      try {
        await this.#describe(description);
      } catch (cause) {
        this.#fail("negotiation_failed", cause);
      }
    } else {
      for (const each of candidates ?? [candidate]) await this.#add(each);
    }
  }

  #describe(description) {
    const origin = originOf(description.sdp);
    const restarted = this.negotiated && origin !== this.#remoteOrigin;
    if (description.type === "offer") return this.#takeOffer(description, origin, restarted);
    const { answers = this.#offered } = description;
    // An answer to an offer that stands no more, or that an earlier connection of ours made.
    if (this.#pc.signalingState !== "have-local-offer" || answers !== this.#offered) return null;
    if (restarted) return this.#hooks.restarted(null);
    return this.#remote(description, origin);
  }

  async #takeOffer(offer, origin, restarted) {
    const collision = this.#makingOffer || this.#pc.signalingState !== "stable";
    this.#ignoringOffer = collision && !this.#polite;
    if (restarted) {
      this.#hooks.restarted(this.#ignoringOffer ? null : offer);
      return;
    }
    if (this.#ignoringOffer) return;
    this.#patient = false;
    await this.#remote(offer, origin);
    await this.#pc.setLocalDescription();
    if (this.#closed) return;
    const { type, sdp } = this.#pc.localDescription;
    this.#hooks.send({ description: { type, sdp, answers: versionOf(offer.sdp) } });
  }

  /** A description without an origin (which no browser writes) counts as coming from one connection. */
  async #remote(description, origin) {
    await this.#pc.setRemoteDescription(description);
    this.#remoteOrigin = origin ?? "";
    this.#hooks.described();
  }

  async #add(candidate) {
    const remote = this.#pc.remoteDescription;
    // Signals come in order: without a description, or for another one, it is late, not early.
    if (!remote || !belongsTo(candidate, remote.sdp)) return;
    try {
      await this.#pc.addIceCandidate(candidate ?? undefined);
    } catch (cause) {
      if (candidate && !this.#ignoringOffer) this.#fail("candidate_failed", cause);
    }
  }

  #found(candidate) {
    if (candidate?.candidate) this.#batch.push(candidate);
    if (candidate === null) {
      this.#sendBatch();
      if (!this.#closed) this.#hooks.send({ candidate: null });
    } else {
      this.#batchTimer ??= setTimeout(() => this.#sendBatch(), BATCH_DELAY);
    }
  }

  #sendBatch() {
    clearTimeout(this.#batchTimer);
    this.#batchTimer = null;
    const candidates = this.#batch.splice(0);
    if (candidates.length && !this.#closed) this.#hooks.send({ candidates });
  }

  #fail(code, cause) {
    if (!this.#closed) this.#hooks.problem(code, cause);
  }
}
