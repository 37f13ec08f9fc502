// What has been recorded here and is not safe at the server yet, in IndexedDB: it outlives the page and the browser.
//
// `recordings`, by `id`: one record each,
//     { id, name, part, extension, key, type,   what it is called, and its MIME type
//       source,                                 "screen" or "camera"
//       begun,                                  when, in milliseconds of Unix time
//       continues,                              the key of the recording that it goes on from, or ""
//       upload,                                 the id of its upload at the server; null before there is one
//       bytes, milliseconds,                    how much has been recorded
//       crc,                                    CRC64NVME of those bytes; null if it is not known any more
//       safe,                                   so many of them are on the server's disk: it has said so after a sync
//       ended }                                 it has been stopped: no more will come
// `chunks`, by `[recording, offset]`: { recording, offset, bytes } (an ArrayBuffer: not every browser keeps Blobs here),
//     in one piece from a chunk in which `safe` lies up to `bytes`.

const CHUNKS_OF = (id) => IDBKeyRange.bound([id, 0], [id, Infinity]);

export class Recordings {
  #database;

  constructor(database) {
    this.#database = database;
  }

  /** Those for one server (several may be below paths of one origin). Throws where the browser keeps nothing. */
  static async open(server) {
    const opening = indexedDB.open(`streamup recordings ${server.url.pathname}`, 1);
    opening.onupgradeneeded = () => {
      opening.result.createObjectStore("recordings", { keyPath: "id" });
      opening.result.createObjectStore("chunks", { keyPath: ["recording", "offset"] });
    };
    const database = await result(opening);
    database.onversionchange = () => database.close(); // a newer page in another tab; or the user clears the site's data
    return new Recordings(database);
  }

  /** All records, the oldest first. */
  async all() {
    const found = await result(this.#database.transaction("recordings").objectStore("recordings").getAll());
    return found.sort((a, b) => a.begun - b.begun);
  }

  /** The record as it is now, or undefined: another tab may have finished it. */
  get(id) {
    return result(this.#database.transaction("recordings").objectStore("recordings").get(id));
  }

  /** Where the chunks of a recording end: 0 without any. */
  async end(id) {
    const last = await result(
      this.#database.transaction("chunks").objectStore("chunks").openCursor(CHUNKS_OF(id), "prev"),
    );
    return last ? last.value.offset + last.value.bytes.byteLength : 0;
  }

  /** The record is as it is now, and its last chunk begins at `offset`: together, and on the disk when this returns.
   * Throws QuotaExceededError if there is no room. */
  async keep(record, offset, bytes) {
    const transaction = this.#change();
    transaction.objectStore("chunks").put({ recording: record.id, offset, bytes });
    transaction.objectStore("recordings").put(record);
    await committed(transaction);
  }

  /** The record is as it is now; what is safe at the server goes from here. */
  async save(record) {
    const transaction = this.#change();
    const chunks = transaction.objectStore("chunks");
    transaction.objectStore("recordings").put(record);
    chunks.openCursor(CHUNKS_OF(record.id)).onsuccess = ({ target: { result: cursor } }) => {
      if (!cursor || cursor.value.offset + cursor.value.bytes.byteLength > record.safe) return;
      cursor.delete();
      cursor.continue();
    };
    await committed(transaction);
  }

  /** Chunks from the first that is not safe as a whole, in order: as many as make `most` bytes, if there are so many.
   * There may be others before it: where there was no room to save a record, its chunks have stayed. */
  async chunks({ id, safe }, most) {
    const transaction = this.#database.transaction("chunks");
    const found = [];
    let size = 0;
    transaction.objectStore("chunks").openCursor(CHUNKS_OF(id)).onsuccess = ({ target: { result: cursor } }) => {
      if (!cursor) return;
      const { offset, bytes } = cursor.value;
      if (offset + bytes.byteLength > safe) {
        found.push(cursor.value);
        size += bytes.byteLength;
      }
      if (size < most) cursor.continue();
    };
    await committed(transaction);
    return found;
  }

  async remove(id) {
    const transaction = this.#change();
    transaction.objectStore("chunks").delete(CHUNKS_OF(id));
    transaction.objectStore("recordings").delete(id);
    await committed(transaction);
  }

  /** strict: a commit is an fsync. It is about one a second, and a computer may lose its power, too. */
  #change() {
    return this.#database.transaction(["recordings", "chunks"], "readwrite", { durability: "strict" });
  }
}

function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function committed(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}
