// One recording on its way to the server. What has been recorded is kept here first (recordings.js) and sent from there;
// it is given up here when the server has said that it is safe. A lost answer, a lost connection, a server that starts
// again or a page that is loaded again cost nothing: the server is asked where to go on.

import { Crc64Nvme, base64 } from "./crc64nvme.js";
import { backoff, rest } from "./patience.js";
import { Refused } from "./streamup.js";

/** Of one append: some seconds of video. What has piled up goes in steps of this size, each of them safe by itself. */
const MOST_BYTES = 4 << 20;

const MOST_CHUNKS = 8; // of those in memory, so that no append copies all of them

const GONE = [404, 410];

export class Outbox {
  /** sending | waiting (it will be tried again by itself) | refused (somebody must do something) | lost (the server has
   * given up what is not here any more) | complete | discarded. `reason` tells why. */
  state = "sending";
  reason = "";
  object = null; // as the server describes it, once it is complete
  status = 0; // HTTP's, of the refusal
  #server;
  #recordings; // null: this browser keeps nothing
  #changed;
  #memory = []; // chunks for which there was no room, in order: they are behind all that are kept
  #there; // the end of the chunks that are kept or in memory
  #sure = false; // whether `record.safe` is where to go on
  #failed = 0; // attempts in a row
  #due = 0;
  #pause = null;
  #news = signal();
  #answered; // resolves `answered`

  constructor({ server, recordings, record, changed }) {
    this.#server = server;
    this.#recordings = recordings;
    this.#changed = changed;
    this.record = record;
    this.#there = record.bytes;
    /** Resolves when the server has answered for the first time, or could not be reached. */
    this.answered = new Promise((resolve) => (this.#answered = resolve));
  }

  /** Recorded, and not on the server's disk. */
  get unsafe() {
    return this.record.bytes - this.record.safe;
  }

  /** Of those, what the end of this page would lose. */
  get unkept() {
    return this.#memory.reduce((sum, { bytes }) => sum + bytes.byteLength, 0);
  }

  get over() {
    return ["lost", "complete", "discarded"].includes(this.state);
  }

  /** The next bytes (an ArrayBuffer); the recording is so long with them. One at a time: wait for it. */
  async add(bytes, milliseconds) {
    const { record } = this;
    if (this.state === "discarded") return;
    const offset = record.bytes;
    const crc = record.crc === null ? null : new Crc64Nvme(record.crc);
    crc?.add(new Uint8Array(bytes));
    Object.assign(record, { bytes: offset + bytes.byteLength, milliseconds, crc: crc?.value ?? null });
    if (this.#memory.length || !(await this.#kept(() => this.#recordings.keep(record, offset, bytes)))) {
      this.#memory.push({ recording: record.id, offset, bytes });
    }
    this.#there = record.bytes;
    this.#wake();
  }

  /** No more will come. */
  async end() {
    if (this.state === "discarded") return; // nothing of it may be written again
    this.record.ended = true;
    await this.#kept(() => this.#recordings.save(this.record));
    this.#wake();
  }

  /** The page that recorded it has gone, and this one takes over what is here. */
  async recover() {
    this.#extend(Math.max(this.record.safe, await this.#recordings.end(this.record.id)));
    await this.end();
  }

  /** Send until it is complete, lost or discarded. */
  async run() {
    while (!this.over) {
      try {
        await this.#step();
        this.#answered();
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        await this.#met(error);
      }
    }
    this.#changed();
  }

  /** Somebody has done something about it: try again, now. */
  retry() {
    this.#pause?.abort();
  }

  /** Give it up, here and at the server. */
  async discard() {
    const { record } = this;
    this.state = "discarded";
    this.#news.resolve();
    this.retry();
    await this.#kept(() => this.#recordings.remove(record.id));
    if (record.upload !== null) await this.#server.cancel({ id: record.upload }).catch(() => {}); // it expires by itself
  }

  /** What is here, for a download. Throws a DOMException if the browser cannot read it. */
  async remains() {
    const kept = (await this.#recordings?.chunks(this.record, Infinity)) ?? [];
    const chunks = [...kept, ...this.#memory];
    return new Blob(chunks.map(({ bytes }) => bytes), { type: this.record.type });
  }

  async #step() {
    const { record } = this;
    if (record.ended && record.bytes === 0) await this.discard();
    else if (record.upload === null) await this.#create();
    else if (!this.#sure) await this.#ask();
    else if (this.#there > record.safe) await this.#send();
    else if (record.ended) await this.#seal();
    else await this.#more();
  }

  /** A lost answer leaves an upload without a byte at the server, which expires. */
  async #create() {
    const { record } = this;
    const metadata = record.continues ? { continues: record.continues } : {};
    const { id } = await this.#server.create(record.key, { type: record.type, metadata });
    record.upload = id;
    this.#sure = true;
    await this.#safe(0);
  }

  /** Where to go on, and whether at all. */
  async #ask() {
    const { record } = this;
    let upload;
    try {
      upload = await this.#server.look(record.upload);
    } catch (error) {
      if (!GONE.includes(error.status)) throw error;
      const object = record.ended && (await this.#object());
      return object ? await this.#complete(object) : await this.#gone(error.message);
    }
    if (upload.state === "open") {
      await this.#safe(await this.#server.offset(record.upload)); // and no older request of ours still writes
      this.#sure = true;
    } else if (upload.state === "complete") {
      if (record.ended && upload.object.size === record.bytes) await this.#complete(upload.object);
      else await this.#gone("It was finished at the server before all of it was there.");
    } else if (["sealed", "completing"].includes(upload.state)) {
      throw new Refused(503, "All of it is safe at the server. The store has not confirmed it yet.");
    } else {
      await this.#gone(`The server has ended it: ${upload.reason ?? upload.state}.`);
    }
  }

  /** The object, if it is this recording. A server remembers for a day how uploads ended, and a browser may be closed for
   * longer, just after its last request. */
  async #object() {
    const { key, bytes, crc } = this.record;
    const crc64nvme = crc === null ? null : base64(crc);
    try {
      const stored = await this.#server.stored(key);
      return crc64nvme && stored.crc64nvme === crc64nvme ? { key, size: bytes, checksum: { crc64nvme } } : null;
    } catch (error) {
      if (error.again) throw error;
      return null;
    }
  }

  async #send() {
    const { record } = this;
    const chunks = await this.#chunks(MOST_BYTES);
    if (!(chunks[0]?.offset <= record.safe)) return this.#lose("The server has less of it than it had said.");
    const from = record.safe - chunks[0].offset;
    const body = new Blob(chunks.map(({ bytes }) => bytes)).slice(from, from + MOST_BYTES);
    const { offset } = await this.#server.append(record.upload, record.safe, body);
    this.#failed = 0;
    await this.#safe(offset);
  }

  async #seal() {
    const { record } = this;
    const whole = { last: true, crc64nvme: record.crc === null ? "" : base64(record.crc) };
    const { object } = await this.#server.append(record.upload, record.safe, "", whole);
    if (object === null) throw new Refused(503, "All of it is safe at the server. The store has not confirmed it yet.");
    await this.#complete(object);
  }

  async #complete(object) {
    this.object = object;
    this.state = "complete";
    await this.#kept(() => this.#recordings.remove(this.record.id));
  }

  /** The upload is not there any more. If all of the recording is, it begins anew. */
  async #gone(reason) {
    const [first] = await this.#chunks(1);
    if (first?.offset !== 0) return this.#lose(reason);
    this.record.upload = null;
    await this.#safe(0);
  }

  #lose(reason) {
    if (this.over) return;
    this.state = "lost";
    this.reason = reason;
  }

  async #met(error) {
    if (this.over) return;
    this.#sure = false;
    if (GONE.includes(error.status) && this.record.upload !== null) return await this.#gone(error.message);
    this.state = error.again ? "waiting" : "refused";
    this.status = error.status;
    this.reason = error.message;
    this.#answered();
    this.#changed();
    this.#pause = new AbortController();
    const milliseconds = error.again ? Math.max(backoff(this.#failed++), 1000 * error.after) : Infinity;
    this.#due = performance.now() + milliseconds;
    if (error.again) await rest(milliseconds, this.#pause.signal).catch(() => {});
    else await aborted(this.#pause.signal);
    if (this.over) return;
    this.state = "sending";
    this.#changed();
  }

  /** The server has so many bytes on its disk. */
  async #safe(offset) {
    if (this.over) return; // it has been discarded meanwhile, and must not come back
    if (offset > this.record.bytes) this.#extend(offset);
    this.record.safe = offset;
    this.#memory = this.#memory.filter((chunk) => chunk.offset + chunk.bytes.byteLength > offset);
    await this.#kept(() => this.#recordings.save(this.record));
    this.#changed();
  }

  /** It is so long, whatever had been written down: chunks in memory have gone with their page. */
  #extend(bytes) {
    if (bytes !== this.record.bytes) this.record.crc = null;
    this.record.bytes = bytes;
    this.#there = bytes;
  }

  /** The next ones to be sent: those that are kept come before those in memory. */
  async #chunks(most) {
    const kept = this.#recordings ? await this.#recordings.chunks(this.record, most).catch(() => []) : [];
    return kept.length ? kept : this.#memory.slice(0, MOST_CHUNKS);
  }

  async #more() {
    this.#news = signal();
    await this.#news;
  }

  /** Chunks come about once a second, also in a tab that is not shown, whose timers a browser slows down. */
  #wake() {
    this.#news.resolve();
    if (performance.now() >= this.#due) this.#pause?.abort();
    this.#changed();
  }

  /** Whether the browser has kept it. It has not if there is no room, or if the user has just cleared the site's data. */
  async #kept(change) {
    if (!this.#recordings) return false;
    try {
      await change();
      return true;
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
      return false;
    }
  }
}

function aborted(signal) {
  return new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
}

function signal() {
  let resolve;
  const promise = new Promise((resolve_) => (resolve = resolve_));
  return Object.assign(promise, { resolve });
}
