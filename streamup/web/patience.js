// When to try again.

const FIRST_MILLISECONDS = 500;
const LONGEST_MILLISECONDS = 30_000; // a server that is away for minutes is found again soon, and not hammered meanwhile

/** Milliseconds before the next attempt, after so many that failed in a row: twice as long each time. Half of it is
 * chance, so that the clients of a server that comes back do not all come at once. */
export function backoff(failed) {
  const most = Math.min(LONGEST_MILLISECONDS, FIRST_MILLISECONDS * 2 ** failed);
  return most * (0.5 + Math.random() / 2);
}

/** Wait, but no longer than until the browser is online again. Rejects with the signal's reason when that is aborted. */
export function rest(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const end = () => {
      clearTimeout(timer);
      globalThis.removeEventListener?.("online", end);
      signal?.removeEventListener("abort", end);
      if (signal?.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(end, milliseconds);
    globalThis.addEventListener?.("online", end);
    signal?.addEventListener("abort", end);
  });
}
