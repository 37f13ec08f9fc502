// One file on its way to one object, across whatever happens: `Sending`.
//
//     const sending = new Sending(server, file, { key: "videos/talk.mp4" });
//     sending.addEventListener("state", () => show(sending.state, sending.error));
//     sending.addEventListener("progress", () => bar(sending.sent / sending.size, sending.rate, sending.secondsLeft));
//     const object = await sending.start();
//
// It sends slices, each at the offset that the server has told, and asks for that again after whatever breaks. Nothing
// that arrived is sent twice. The last slice carries the CRC64NVME of the whole file, and the server completes the object
// with these bytes or not at all.

import { base64, combine, Crc64Nvme } from "./crc64nvme.js";
import { backoff, rest } from "./patience.js";
import { Rate } from "./rate.js";
import { Unfinished } from "./unfinished.js";

/** What one request sends, unless somebody knows better. The next slice is read meanwhile, so a file has two in memory;
 * at 1 Gbit/s one takes 0.13 s, beside which a round trip and the server's sync are little. */
const SLICE_BYTES = 16 << 20;

/** What is read and hashed at a time: 2 to 4 ms in which a page does nothing else. */
const PIECE_BYTES = 1 << 20;

const STORED_MILLISECONDS = 1000; // between two questions whether the store has it now; the server waits, too

/** Another file, or another version of it, was begun under this key: to go on would make an object of two halves.
 * `sending.start({ anew: true })` gives up what is at the server, and sends this one. */
export class Changed extends Error {}

/** The file cannot be read. Browsers refuse one that has changed on the disk since it was chosen. */
export class Unreadable extends Error {}

/** The upload was ended by somebody else, or has expired. `sending.start()` begins at byte 0. */
export class Ended extends Error {}

/** `file` is a Blob. A File is remembered by its name, size and date for a week, so that a Sending after a reload goes
 * on with it, and does not send again what is there. Nothing else is remembered.
 *
 * `state`:
 *
 *     ready       it has not been started
 *     comparing   what the server has of it is compared with it, up to byte `compared`
 *     sending     bytes leave
 *     waiting     `error` broke it; it tries again by itself
 *     storing     every byte has left; the answer comes when the store has them
 *     paused      by `pause()`, until `resume()`
 *     complete    `object` is what the store has, `crc64nvme` its checksum (base64): that of the file
 *     failed      `error` says why, and is what `start()` rejected with. `start()` tries it again
 *     cancelled   by `cancel()`
 *
 * Numbers: `size`, `sent` (bytes that have left) and `durable` (bytes on the server's disk); `rate` in bytes a second
 * and `secondsLeft`, null if nobody can know. Events: `state` and `progress`. */
export class Sending extends EventTarget {
  /** `key` is where it goes (a File's name if nothing is said). `type` and `metadata` go with the object, as in
   * `Server.create`. When `signal` is aborted it fails; what has arrived is kept. `slice` is how many bytes one request
   * has, for proxies that take little. `unfinished` is where it is remembered: anything with the methods of `Unfinished`;
   * null for nowhere. */
  constructor(server, file, options = {}) {
    super();
    const { key = file.name, type = file.type, metadata = {}, signal } = options;
    const { slice = SLICE_BYTES, unfinished = new Unfinished() } = options;
    this.server = server;
    this.file = file;
    this.key = key;
    this.size = file.size;
    this.state = "ready";
    this.error = this.object = this.crc64nvme = this.id = null;
    this.sent = this.durable = this.compared = 0;
    this.#described = { length: file.size, type, metadata };
    this.#signal = signal;
    this.#sliceBytes = slice;
    this.#unfinished = file.name === undefined ? null : unfinished;
  }

  #described;
  #signal;
  #sliceBytes;
  #unfinished;
  #rate = new Rate();
  #crc = new Crc64Nvme(); // of the first `#hashed` bytes
  #hashed = 0;
  #next = null; // the slice that is read while another one is sent
  #stopping = null; // an AbortController while it runs
  #running = Promise.resolve();
  #ended = null; // { promise, resolve, reject } of start()

  get rate() {
    return ["sending", "waiting"].includes(this.state) ? this.#rate.now() : null;
  }

  get secondsLeft() {
    return this.rate ? (this.size - this.sent) / this.rate : null;
  }

  /** Send it, or go on with what an earlier Sending has left. The object as the server tells it. Rejects with Refused,
   * Changed, Unreadable, Ended, or the reason of the signal or of `cancel`. `anew`: from byte 0, and what is there of it is
   * given up. */
  start({ anew = false } = {}) {
    if (["ready", "failed", "cancelled"].includes(this.state)) {
      this.#ended = settled();
      this.#run(anew);
    }
    return this.#ended.promise;
  }

  /** Stop. What has arrived stays at the server, until it expires. */
  pause() {
    if (!this.#stopping) return;
    this.#become("paused");
    this.#stopping.abort(new DOMException("The upload was paused.", "AbortError"));
  }

  /** Go on after `pause()`; or try again now, when it waits. */
  resume() {
    if (this.state === "waiting") this.#stopping.abort(new DOMException("Again, now.", "AbortError"));
    if (["paused", "waiting"].includes(this.state)) this.#run(false);
  }

  /** Give it up, at the server as well. Raises Refused if that does not hear of it; it is paused then. */
  async cancel() {
    this.pause();
    await this.#running;
    if (this.state === "complete") return;
    if (this.id) {
      await this.server.cancel(this).catch(unlessGone);
      await this.#forget();
    }
    this.#become("cancelled");
    this.#ended?.reject(new DOMException("The upload was cancelled.", "AbortError"));
  }

  // -- its course -----------------------------------------------------------------------------------------------------

  /** One run follows the other: a paused one may still be on its way out. */
  #run(anew) {
    const stopping = (this.#stopping = new AbortController());
    const stop = () => stopping.abort(this.#signal.reason);
    this.#signal?.addEventListener("abort", stop);
    if (this.#signal?.aborted) stop();
    this.#become("sending");
    const before = this.#running;
    this.#running = (async () => {
      await before;
      try {
        await this.#persist(anew, stopping.signal);
      } catch (error) {
        if (stopping === this.#stopping && this.state !== "paused") this.#fail(error);
      } finally {
        this.#signal?.removeEventListener("abort", stop);
        if (stopping === this.#stopping) this.#stopping = null;
      }
    })();
  }

  /** Until it is there, or cannot be. */
  async #persist(anew, signal) {
    let failed = 0;
    for (let attempt = 0; ; attempt++, failed++) {
      const before = this.durable;
      try {
        if (anew) await this.#giveUp(signal);
        anew = false;
        return await this.#send(attempt === 0, signal);
      } catch (error) {
        signal.throwIfAborted();
        if (isGone(error) && this.id) throw await this.#endedByOthers(signal);
        if (!error.again) throw error;
        if (this.durable > before) failed = 0;
        this.#become("waiting", error);
        await rest(Math.max(backoff(failed), error.after * 1000), signal);
      }
    }
  }

  async #send(first, signal) {
    const object = this.id ? null : await this.#remembered(signal);
    if (object) return this.#complete(object);
    let offset = this.id ? await this.#whereToGoOn(first, signal) : null;
    offset ??= await this.#create(signal);
    for (;;) {
      this.#progress({ durable: offset, sent: offset });
      const slice = await this.#slice(offset, signal);
      const last = offset + slice.length === this.size;
      if (!last) this.#readAhead(offset + slice.length);
      this.#step(last && !slice.length ? "storing" : "sending", signal);
      const crc64nvme = last ? base64(this.#crc.value) : undefined;
      const progress = (bytes) => {
        this.#rate.add(offset + bytes - this.sent);
        this.#progress({ sent: offset + bytes });
        if (last && bytes === slice.length && !signal.aborted) this.#become("storing");
      };
      const answer = await this.server.append(this.id, offset, slice, { last, crc64nvme, progress, signal });
      offset = answer.offset;
      this.#rate.add(offset - this.sent);
      if (last && answer.object) return this.#complete(answer.object);
      if (last) await rest(STORED_MILLISECONDS, signal);
    }
  }

  /** Its first offset. */
  async #create(signal) {
    this.#startOver();
    const { id } = await this.server.create(this.key, { ...this.#described, signal });
    this.id = id;
    const { name, size, lastModified: modified } = this.file;
    await this.#unfinished?.keep({ server: this.server.url.href, key: this.key, id, name, size, modified });
    return 0;
  }

  /** Sets `id` if an earlier Sending has left something of this file. Throws `Changed` if it was of another one. The
   * object, if all of it has been sent already. */
  async #remembered(signal) {
    const found = await this.#unfinished?.find(this.server.url.href, this.key);
    if (!found) return null;
    const upload = await this.server.look(found.id, { signal }).catch(unlessGone);
    const { name, size, lastModified: modified } = this.file;
    const same = found.name === name && found.size === size && found.modified === modified;
    if (same && upload?.state === "complete" && (await this.#isThere(upload, signal))) return upload.object;
    // Of one that has all its bytes another file is the next one.
    if (!upload || !(same ? ["open", "sealed", "completing"] : ["open"]).includes(upload.state)) {
      await this.#forget();
      return null;
    }
    if (!same) throw new Changed("An unfinished upload to this key is of another file, or of another version of it.");
    await this.#compare(upload.parts, signal);
    this.id = found.id;
    return null;
  }

  /** Whether the object of this upload is still the one under the key, and has the bytes of this file. */
  async #isThere(upload, signal) {
    const etag = (await this.server.stored(this.key, { signal }).catch(() => null))?.etag;
    const crc64nvme = upload.object.checksum?.crc64nvme;
    if (!crc64nvme || etag !== upload.object.etag) return false;
    this.#startOver();
    this.#step("comparing", signal);
    await this.#hashTo(this.size, signal);
    return base64(this.#crc.value) === crc64nvme;
  }

  /** The file's bytes must be those that the store has. Those that have no checksum yet are compared in the end, as all
   * others are again, by the one of the whole. */
  async #compare(parts, signal) {
    this.#step("comparing", signal);
    let whole = 0n;
    let start = 0;
    for (const [index, part] of parts.entries()) {
      if (part.number !== index + 1 || !part.crc64nvme) break; // beyond a gap nobody knows where a part begins
      const crc = new Crc64Nvme();
      for (let at = start; at < start + part.size; at += PIECE_BYTES) {
        crc.add(await this.#bytes(at, Math.min(at + PIECE_BYTES, start + part.size)));
        signal.throwIfAborted();
        this.#progress({ compared: at });
      }
      if (base64(crc.value) !== part.crc64nvme) {
        throw new Changed("The file has changed since it was begun: its first bytes are not those that were sent.");
      }
      whole = combine(whole, crc.value, part.size);
      start += part.size;
    }
    this.#crc = new Crc64Nvme(whole);
    this.#hashed = start;
  }

  /** The server's offset. While it was paused the upload may have expired: null, and it is begun anew. */
  async #whereToGoOn(first, signal) {
    try {
      return await this.server.offset(this.id, { signal });
    } catch (error) {
      if (first) return unlessGone(error);
      throw error;
    }
  }

  /** Who has ended it while it was sent wants no other one. */
  async #endedByOthers(signal) {
    const reason = (await this.server.look(this.id, { signal }).catch(() => null))?.reason;
    this.id = null;
    await this.#forget();
    return new Ended(reason ?? "The upload was cancelled, or has expired. It can be sent again from its beginning.");
  }

  /** What is at the server of another file, or of another version of this one. */
  async #giveUp(signal) {
    const id = this.id ?? (await this.#unfinished?.find(this.server.url.href, this.key))?.id;
    if (id) await this.server.cancel({ id }, { signal }).catch(unlessGone);
    this.id = null;
    await this.#forget();
  }

  /** It stays remembered: who drops a whole folder again sends only what is missing. */
  #complete(object) {
    this.object = object;
    this.crc64nvme = base64(this.#crc.value);
    this.#progress({ durable: this.size, sent: this.size });
    this.#become("complete");
    this.#ended.resolve(object);
  }

  #fail(error) {
    this.#become("failed", error);
    this.#ended.reject(error);
  }

  async #forget() {
    await this.#unfinished?.forget(this.server.url.href, this.key);
  }

  #startOver() {
    this.#next = null;
    this.#crc = new Crc64Nvme();
    this.#hashed = 0;
    this.#progress({ sent: 0, durable: 0, compared: 0 });
  }

  // -- its bytes ------------------------------------------------------------------------------------------------------

  /** The slice at `offset`. All before its end has been hashed then. */
  async #slice(offset, signal) {
    await this.#hashTo(offset, signal);
    const ahead = this.#next?.offset === offset ? this.#next.read : this.#read(offset);
    this.#next = null;
    return await ahead;
  }

  async #hashTo(offset, signal) {
    while (this.#hashed < offset) {
      const end = Math.min(this.#hashed + PIECE_BYTES, offset);
      this.#hash(this.#hashed, await this.#bytes(this.#hashed, end));
      signal.throwIfAborted();
      this.#progress({ compared: end });
    }
  }

  #readAhead(offset) {
    const read = this.#read(offset);
    read.catch(() => {}); // told when its turn comes
    this.#next = { offset, read };
  }

  async #read(offset) {
    const slice = new Uint8Array(Math.min(this.#sliceBytes, this.size - offset));
    for (let at = 0; at < slice.length; at += PIECE_BYTES) {
      const piece = await this.#bytes(offset + at, offset + Math.min(at + PIECE_BYTES, slice.length));
      slice.set(piece, at);
      this.#hash(offset + at, piece);
    }
    return slice;
  }

  /** Count these bytes in, as far as they have not been: after an interruption some are read once more. */
  #hash(start, bytes) {
    const fresh = this.#hashed - start;
    if (fresh < 0 || fresh >= bytes.length) return;
    this.#crc.add(bytes.subarray(fresh));
    this.#hashed += bytes.length - fresh;
  }

  async #bytes(start, end) {
    const words = "The file cannot be read: it was changed, moved or removed. Choose it again.";
    let bytes;
    try {
      bytes = new Uint8Array(await this.file.slice(start, end).arrayBuffer());
    } catch (error) {
      throw new Unreadable(words, { cause: error });
    }
    if (bytes.length < end - start) throw new Unreadable(words); // not every browser refuses a file that was cut
    return bytes;
  }

  // -- what is told ---------------------------------------------------------------------------------------------------

  /** As `#become`, but not of a run that has been stopped. */
  #step(state, signal) {
    signal.throwIfAborted();
    this.#become(state);
  }

  #become(state, error = null) {
    if (state === this.state && error === this.error) return;
    this.state = state;
    this.error = error;
    this.dispatchEvent(new Event("state"));
  }

  #progress(numbers) {
    Object.assign(this, numbers);
    this.dispatchEvent(new Event("progress"));
  }
}

function isGone(error) {
  return [404, 410].includes(error.status);
}

/** Null, where it is no error that the server has no such upload (any more). */
function unlessGone(error) {
  if (!isGone(error)) throw error;
  return null;
}

function settled() {
  let resolve, reject;
  const promise = new Promise((...both) => ([resolve, reject] = both));
  promise.catch(() => {}); // who listens to the event `state` has heard of it
  return { promise, resolve, reject };
}
