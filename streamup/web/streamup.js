// What a page can ask of a streamup server. The token goes into a header, never into a URL that others log.
//
//     import { Server } from "./streamup.js";
//     const server = new Server({ token });
//     const upload = await server.create("videos/talk.webm", { type: "video/webm" });
//     let { offset } = await server.append(upload.id, 0, blob);
//     const { object } = await server.append(upload.id, offset, lastBlob, { last: true });
//
// Every answer to an append comes after its bytes are on the server's disk. After one that failed, `server.offset(id)`
// says where to go on.
//
//     for await (const { name, data } of server.watch({ signal })) show(name, data);
//
// tells about all uploads as they change, on one connection. A page of another origin can use all of this if the
// server's operator has named it (--cors-origin). Node has run it from version 18 on.

import { parsedEvents } from "./event-stream.js";
import { backoff, rest } from "./patience.js";

/** The server that this file came from, which a proxy may have put below a path. */
const HERE = new URL("..", import.meta.url);

/** A stream of events says something at least every 15 s. One that has been silent for longer than two of them is dead,
 * whatever the network says: so it is after a computer has slept. */
const SILENCE_MILLISECONDS = 40_000;

const LIVE = ["open", "sealed", "completing"];

/** The server refused. `status` is HTTP's (0: it was not reached), the message says what to do. `again`: nothing is
 * wrong with the request, and it may succeed later. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  get again() {
    return [0, 408, 409, 423, 429, 500, 502, 503, 504, 507].includes(this.status);
  }
}

export class Server {
  /** `url` is where the server is; as a rule where this module came from. */
  constructor({ token = "", url = HERE } = {}) {
    this.token = token;
    this.url = new URL(url, HERE);
  }

  /** One's uploads as GET /uploads tells them, those that live and the endings of the last day. */
  async uploads() {
    return (await (await this.#ask("GET", "uploads")).json()).uploads;
  }

  /** One upload as it is, with its parts and their checksums. Disturbs nobody. */
  async look(id) {
    return await (await this.#ask("GET", `uploads/${encodeURIComponent(id)}`)).json();
  }

  /** What happens, for `for await`: `{ name, data }`.
   *
   *     open     a connection begins, and tells about everything once more; what it does not tell of is gone
   *     upload   an upload, as `look` tells it but without its parts: each one at the beginning, then as they change
   *     server   the server itself: its spool, its store, how many uploads are left out (only without `id`)
   *     lost     the connection broke; `data` says why (a Refused). It begins anew by itself
   *
   * With `id` of one upload: its `offset` is then durable about once a second, and the end of the upload is the end of
   * the events. Without, they end by `signal` only. Throws Refused when to ask again would not help (401, 403, 404). */
  async *watch({ id, signal } = {}) {
    const path = id === undefined ? "uploads/events" : `uploads/${encodeURIComponent(id)}/events`;
    for (let attempt = 0; ; attempt++) {
      try {
        for await (const { name, data } of this.#events(path, signal)) {
          attempt = 0;
          yield { name, data };
          if (id !== undefined && name === "upload" && !LIVE.includes(data.state)) return;
        }
      } catch (error) {
        if (signal?.aborted) return;
        if (!error.again) throw error;
        yield { name: "lost", data: error };
      }
      if (signal?.aborted) return;
      await rest(backoff(attempt), signal).catch(() => {});
      if (signal?.aborted) return;
    }
  }

  /** The events of one connection. Its end is a Refused, too: the server never ends them without a reason. */
  async *#events(path, signal) {
    const connection = new AbortController();
    const stop = () => connection.abort();
    let timer;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE_MILLISECONDS);
    };
    signal?.addEventListener("abort", stop);
    try {
      heard();
      const answer = await this.#ask("GET", path, { Accept: "text/event-stream" }, connection.signal);
      yield { name: "open", data: null };
      for await (const { name, data } of parsedEvents(pieces(answer.body, heard))) yield { name, data: parsed(data) };
    } catch (error) {
      throw error instanceof Refused ? error : new Refused(0, "The connection broke.");
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      stop(); // who stops listening ends the connection
    }
    throw new Refused(0, "The server ended the connection.");
  }

  /** Begin an upload without a byte. `length` if it is known; `metadata` are names (lower case, hyphens) and texts that
   * are stored with the object. Its id. */
  async create(key, { length, type = "", metadata = {} } = {}) {
    const headers = { "Upload-Complete": "?0" };
    if (length !== undefined) headers["Upload-Length"] = String(length);
    if (type) headers["Content-Type"] = type;
    for (const [name, text] of Object.entries(metadata)) headers[`x-amz-meta-${name}`] = encodeURIComponent(text);
    const answer = await this.#ask("POST", `uploads?key=${encodeURIComponent(key)}`, headers);
    const id = decodeURIComponent((answer.headers.get("Location") ?? "").split("/").pop());
    if (!id) throw new Refused(answer.status, "The server did not say where the upload is. Is it a streamup server?");
    return { id, key };
  }

  /** Where to go on: the bytes that are safe at the server. Stops whoever is sending to this upload. */
  async offset(id) {
    return offsetOf(await this.#ask("HEAD", `uploads/${encodeURIComponent(id)}`));
  }

  /** Send `body` (a Blob, an ArrayBuffer, or "") at `offset`. `last`: the object is complete with it. `crc64nvme`: of the
   * whole object, in base64; with another one it is never completed. `progress(bytes)` tells how many have left.
   * `signal` aborts it. `{ offset }`, and with `last` also `object` (its JSON; null: every byte is safe, and the store has
   * not confirmed yet). */
  append(id, offset, body, { last = false, crc64nvme, progress = () => {}, signal } = {}) {
    const fields = {
      ...this.#credential(),
      "Upload-Offset": String(offset),
      "Upload-Complete": last ? "?1" : "?0",
      "Content-Type": "application/partial-upload",
    };
    if (crc64nvme) fields["x-amz-checksum-crc64nvme"] = crc64nvme;
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const request = new XMLHttpRequest(); // fetch does not tell how far a body is
      request.open("PATCH", new URL(`uploads/${encodeURIComponent(id)}`, this.url));
      for (const [name, value] of Object.entries(fields)) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => progress(event.loaded);
      request.onerror = () => reject(new Refused(0, "The connection broke."));
      request.onabort = () => reject(signal.reason);
      signal?.addEventListener("abort", () => request.abort(), { once: true });
      request.onload = () => {
        if (request.status >= 300) return reject(refusal(request.status, request.responseText));
        const object = request.status === 201 || request.status === 200 ? parsed(request.responseText) : null;
        resolve({ offset: Number(request.getResponseHeader("Upload-Offset")), ...(last ? { object } : {}) });
      };
      request.send(body);
    });
  }

  /** Give an upload up. */
  async cancel(upload) {
    await this.#ask("DELETE", `uploads/${encodeURIComponent(upload.id)}`);
  }

  /** What is here is all: make it an object. `upload` is as it was looked at; who has sent since then refuses it. */
  async finish(upload) {
    const place = { "Upload-Offset": String(upload.offset), "Upload-Complete": "?1" };
    await this.#ask("PATCH", `uploads/${encodeURIComponent(upload.id)}`, place);
  }

  #credential() {
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }

  async #ask(method, path, headers = {}, signal = undefined) {
    let answer;
    try {
      answer = await fetch(new URL(path, this.url), {
        method,
        headers: { ...this.#credential(), ...headers },
        credentials: "omit",
        signal,
      });
    } catch {
      throw new Refused(0, "The server cannot be reached.");
    }
    if (!answer.ok) throw refusal(answer.status, await answer.text());
    return answer;
  }
}

/** A body as it comes (not every browser iterates over a ReadableStream). */
async function* pieces(body, heard) {
  const reader = body.getReader();
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    heard();
    yield piece.value;
  }
}

function offsetOf(answer) {
  const offset = answer.headers.get("Upload-Offset");
  if (offset === null) throw new Refused(answer.status, "The server told no offset. Is it a streamup server?");
  return Number(offset);
}

function refusal(status, text) {
  const problem = parsed(text);
  return new Refused(status, problem.detail ?? `The server said ${status}.`);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {}; // a proxy's own page, perhaps
  }
}
