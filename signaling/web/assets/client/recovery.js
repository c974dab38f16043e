/** When a path that broke is sought again, and when the whole connection is made anew; a pure machine, times in milliseconds. */

const NO_ANSWER = 15_000;
const NO_OFFER = 5_000;
const CHECKING_TOO_LONG = 25_000;
/** ICE often finds back by itself from `disconnected`, never from `failed`. */
const PATIENCE = { disconnected: 3_000, failed: 0 };
/** The polite side leaves the first try to the other one. */
const POLITE_EXTRA = 2_500;
const FIRST_PAUSE = 4_000;
const LONGEST_PAUSE = 30_000;
/** Every fourth try is a new connection: something else than the path may be wrong. */
const RESET_EVERY = 4;

const GOOD = new Set(["connected", "completed"]);

export class Recovery {
  #polite;
  #condition = null;
  #since = 0;
  #attempts = 0;
  #notBefore = 0;

  constructor({ polite }) {
    this.#polite = polite;
  }

  /**
   * What is to be done now: null, "insist" (offer, the other side does not), "restart" (ICE) or
   * "reset" (a new connection). Called every second or so; `facts`: ice, connection and signaling
   * (the connection's states), negotiated, reachable (whether a signal would arrive now).
   */
  check(now, facts) {
    const condition = this.#conditionOf(facts);
    if (condition !== this.#condition) {
      this.#condition = condition;
      this.#since = now;
    }
    if (condition === "good") this.#attempts = this.#notBefore = 0;
    const lasted = now - this.#since;
    if (condition === "no offer") return lasted >= NO_OFFER ? "insist" : null;
    if (condition === "no answer") return lasted >= NO_ANSWER ? this.#start(now, "reset") : null;
    if (condition === "checking") return lasted >= CHECKING_TOO_LONG ? this.#start(now) : null;
    if (condition === "dtls failed") return now >= this.#notBefore ? this.#start(now, "reset") : null;
    if (!(condition in PATIENCE)) return null;
    const patience = PATIENCE[condition] + (this.#polite ? POLITE_EXTRA : 0);
    return lasted >= patience && now >= this.#notBefore ? this.#start(now) : null;
  }

  /** Try at the next check: something has changed for the better, as a peer that is back. */
  hurry() {
    this.#notBefore = 0;
  }

  #conditionOf({ ice, connection, signaling, negotiated, reachable }) {
    if (!reachable) return "unreachable";
    if (signaling === "have-local-offer") return "no answer";
    if (!negotiated) return "no offer";
    if (connection === "failed" && ice !== "failed") return "dtls failed";
    return GOOD.has(ice) ? "good" : ice;
  }

  #start(now, action) {
    this.#attempts += 1;
    this.#notBefore = now + Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (this.#attempts - 1));
    this.#since = now;
    return action ?? (this.#attempts % RESET_EVERY ? "restart" : "reset");
  }
}
