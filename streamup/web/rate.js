// How fast something is.

const WINDOW_MILLISECONDS = 5000; // short enough to tell a change, long enough not to tremble
const SAMPLE_MILLISECONDS = 200;

/** Bytes a second over the last five. */
export class Rate {
  #samples = []; // [time, bytes since the sample before]

  add(bytes) {
    const now = performance.now();
    const latest = this.#samples.at(-1);
    if (latest && now - latest[0] < SAMPLE_MILLISECONDS) latest[1] += bytes;
    else this.#samples.push([now, bytes]);
  }

  /** 0 when nothing has moved; null as long as nobody can know. */
  now() {
    const now = performance.now();
    while (this.#samples.length > 1 && now - this.#samples[0][0] > WINDOW_MILLISECONDS) this.#samples.shift();
    if (!this.#samples.length) return null;
    const seconds = (now - this.#samples[0][0]) / 1000;
    if (seconds < 1) return null;
    return this.#samples.slice(1).reduce((sum, [, bytes]) => sum + bytes, 0) / Math.min(seconds, WINDOW_MILLISECONDS / 1000);
  }
}
