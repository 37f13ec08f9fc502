// Which files are on their way, and by which uploads: in the browser's IndexedDB, for the page after a reload, or on
// another day. No credential is in it, and no byte of a file.

const NAME = "streamup-unfinished";
const MOST = 1000; // files
const OLDEST_MILLISECONDS = 7 * 24 * 3600 * 1000; // later the server takes no more bytes (--max-age)

/** One record for each server and key: `{ server, key, id, name, size, modified, since }`, times in milliseconds. A browser
 * that stores nothing for a page is one that has forgotten: every method is good for that. */
export class Unfinished {
  async find(server, key) {
    return (await this.all(server)).find((record) => record.key === key);
  }

  /** Those of one server, the newest first. */
  async all(server) {
    const records = (await this.#in("readonly", (store) => store.getAll())) ?? [];
    const young = records.filter((record) => record.since > Date.now() - OLDEST_MILLISECONDS);
    return young.filter((record) => record.server === server).sort((a, b) => b.since - a.since);
  }

  async keep(record) {
    await this.#in("readwrite", (store) => store.put({ ...record, since: Date.now() }));
    const records = (await this.#in("readonly", (store) => store.getAll())) ?? [];
    records.sort((a, b) => b.since - a.since);
    const outdated = records.filter(({ since }, place) => place >= MOST || since <= Date.now() - OLDEST_MILLISECONDS);
    for (const { server, key } of outdated) await this.forget(server, key);
  }

  async forget(server, key) {
    await this.#in("readwrite", (store) => store.delete([server, key]));
  }

  /** The result of one request; undefined if there is no database. */
  async #in(mode, ask) {
    try {
      const database = await opened();
      const transaction = database.transaction("files", mode);
      const request = ask(transaction.objectStore("files"));
      return await new Promise((resolve, reject) => {
        transaction.oncomplete = () => resolve(request.result);
        transaction.onabort = () => reject(transaction.error);
      });
    } catch {
      return undefined;
    }
  }
}

let opening;

function opened() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore("files", { keyPath: ["server", "key"] });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opening;
}
