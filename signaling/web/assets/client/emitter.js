/** A small event emitter whose handlers take plain arguments, in the order they were added. */
export class Emitter {
  #handlers = new Map();

  /** Call `handler` at each `event`; returns a function that ends it. */
  on(event, handler) {
    if (!this.#handlers.has(event)) this.#handlers.set(event, new Set());
    this.#handlers.get(event).add(handler);
    return () => this.off(event, handler);
  }

  /** Call `handler` at the next `event` only. */
  once(event, handler) {
    const end = this.on(event, (...values) => {
      end();
      handler(...values);
    });
    return end;
  }

  off(event, handler) {
    this.#handlers.get(event)?.delete(handler);
  }

  /** Returns whether anybody listened. A handler that throws harms no other: its fault is reported. */
  emit(event, ...values) {
    const handlers = [...(this.#handlers.get(event) ?? [])];
    for (const handler of handlers) {
      try {
        handler(...values);
      } catch (error) {
        (globalThis.reportError ?? console.error)(error);
      }
    }
    if (!handlers.length && event === "error") console.warn("icebroker:", values[0]);
    return handlers.length > 0;
  }
}
