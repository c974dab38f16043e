/** When things may happen: how fast to send, and how long to wait before dialling again. Clocks are arguments. */

const FIRST_DELAY = 500;
const LONGEST_DELAY = 10_000;

/**
 * Milliseconds before the next attempt: exponential, and spread over the whole interval, so that the
 * clients of a server that restarts do not all come back at the same moment.
 */
export function backoff(attempt, random = Math.random) {
  return random() * Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** attempt);
}

/** Keeps a sender within the server's messages a second and burst, with a margin for what is under way. */
export class Pacer {
  #rate;
  #burst;
  #tokens;
  #updated = 0;

  constructor(perSecond = 50, burst = 100) {
    this.#rate = perSecond * 0.8;
    this.#burst = burst * 0.8;
    this.#tokens = this.#burst;
  }

  /** Milliseconds that one more message has to wait; 0 means that it goes now, and counts. */
  wait(now) {
    this.#tokens = Math.min(this.#burst, this.#tokens + ((now - this.#updated) / 1000) * this.#rate);
    this.#updated = now;
    if (this.#tokens < 1) return Math.ceil(((1 - this.#tokens) / this.#rate) * 1000);
    this.#tokens -= 1;
    return 0;
  }
}
