// What a page can ask of a streamup server. The token goes into a header, never into a URL that others log.
//
//     import { Sending, Server } from "./streamup.js";
//     const server = new Server({ token });
//     const object = await new Sending(server, file, { key: "videos/talk.webm" }).start();
//
// sends a file, across lost connections, reloads and days; sending.js tells how to watch it, pause it and give it up.
// What has no end yet goes step by step:
//
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

export { Changed, Ended, Sending, Unreadable } from "./sending.js";
export { Unfinished } from "./unfinished.js";

/** The server that this file came from, which a proxy may have put below a path. */
const HERE = new URL("..", import.meta.url);

/** A stream of events says something at least every 15 s. One that has been silent for longer than two of them is dead,
 * whatever the network says: so it is after a computer has slept. */
const SILENCE_MILLISECONDS = 40_000;

const LIVE = ["open", "sealed", "completing"];

/** What answers to HEAD mean, which have no body that could say so. */
const BODILESS = {
  401: "The server asks for a token or an API key, or does not know this one.",
  403: "The server does not allow this.",
  404: "The server knows no such upload, or not any more.",
  410: "This upload has ended.",
};

/** Without a byte moved a connection is given up after as long as the server waits for one (--idle); without an answer
 * to what has left, after a little more than the server gives its store (--store-timeout). */
const STALLED_MILLISECONDS = 30_000;
const ANSWERED_MILLISECONDS = 75_000;

/** Said of what a proxy, or a network that wants somebody to sign in, answers in the server's place. It may soon be over. */
const STRANGE = "What has answered is not a streamup server. Does this network ask you to sign in?";

/** The server refused. `status` is HTTP's (0: it was not reached), the message says what to do. `again`: nothing is
 * wrong with the request, and it may succeed later, but not before `after` seconds. */
export class Refused extends Error {
  constructor(status, message, after = 0) {
    super(message);
    this.status = status;
    this.after = after;
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
    return documentOf(await this.#ask("GET", "uploads")).uploads;
  }

  /** One upload as it is, with its parts and their checksums. Disturbs nobody. */
  async look(id, { signal } = {}) {
    return documentOf(await this.#ask("GET", `uploads/${encodeURIComponent(id)}`, {}, signal));
  }

  /** What happens, for `for await`: `{ name, data }`.
   *
   *     open     a connection begins, and tells about everything once more; what it does not tell of is gone
   *     upload   an upload, as `look` tells it but without its parts: each one at the beginning, then as they change
   *     server   the server itself: its spool, its store, its downloads, what is left out (only without `id`)
   *     lost     the connection broke; `data` says why (a Refused). It begins anew by itself, after `wait` milliseconds
   *
   * With `id` of one upload: its `offset` is then durable about once a second, and the end of the upload is the end of
   * the events. Without, they end by `signal` only. Throws Refused when to ask again would not help (401, 403, 404). */
  async *watch({ id, signal } = {}) {
    const path = id === undefined ? "uploads/events" : `uploads/${encodeURIComponent(id)}/events`;
    for (let attempt = 0; ; attempt++) {
      let wait = 0;
      try {
        for await (const { name, data } of this.#events(path, signal)) {
          if (name !== "open") attempt = 0; // a proxy may open one, and have nothing to tell
          yield { name, data };
          if (id !== undefined && name === "upload" && !LIVE.includes(data.state)) return;
        }
      } catch (error) {
        if (signal?.aborted) return;
        if (!error.again) throw error;
        wait = backoff(attempt);
        yield { name: "lost", data: error, wait };
      }
      if (signal?.aborted) return;
      await rest(wait, signal).catch(() => {});
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
      const answer = await this.#begin("GET", path, { Accept: "text/event-stream" }, connection.signal);
      yield { name: "open", data: null };
      for await (const { name, data } of parsedEvents(pieces(answer.body, heard))) yield { name, data: parsed(data) };
    } catch (error) {
      throw broken(error);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      stop(); // who stops listening ends the connection
    }
    throw new Refused(0, "The server ended the connection.");
  }

  /** Begin an upload without a byte. `length` if it is known; `metadata` are names (lower case, hyphens) and texts that
   * are stored with the object. Its id. */
  async create(key, { length, type = "", metadata = {}, signal } = {}) {
    const headers = { "Upload-Complete": "?0" };
    if (length !== undefined) headers["Upload-Length"] = String(length);
    if (type) headers["Content-Type"] = type;
    for (const [name, text] of Object.entries(metadata)) headers[`x-amz-meta-${name}`] = encodeURIComponent(text);
    const answer = await this.#ask("POST", `uploads?key=${encodeURIComponent(key)}`, headers, signal);
    const id = decodeURIComponent((answer.field("Location") ?? "").split("/").pop());
    if (!id) throw new Refused(0, STRANGE);
    return { id, key };
  }

  /** Where to go on: the bytes that are safe at the server. Stops whoever is sending to this upload. */
  async offset(id, { signal } = {}) {
    return offsetOf(await this.#ask("HEAD", `uploads/${encodeURIComponent(id)}`, {}, signal));
  }

  /** Send `body` (a Blob, an ArrayBuffer or a view of one, or "") at `offset`. `last`: the object is complete with it.
   * `crc64nvme`: of the whole object, in base64; with another one it is never completed. `progress(bytes)` tells how many
   * have left. `signal` aborts it. `{ offset }`, and with `last` also `object` (its JSON; null: every byte is safe, and the
   * store has not confirmed yet). */
  async append(id, offset, body, { last = false, crc64nvme, progress = () => {}, signal } = {}) {
    signal?.throwIfAborted();
    const url = new URL(`uploads/${encodeURIComponent(id)}`, this.url);
    const fields = {
      ...this.#credential(),
      "Upload-Offset": String(offset),
      "Upload-Complete": last ? "?1" : "?0",
      "Content-Type": "application/partial-upload",
    };
    if (crc64nvme) fields["x-amz-checksum-crc64nvme"] = crc64nvme;
    const send = globalThis.XMLHttpRequest ? sentByXhr : sentByFetch;
    const { status, text, field } = await send(url, fields, body, progress, signal);
    if (status >= 300) throw refusal(status, text, field("Retry-After"));
    const answer = { text, field };
    const object = last && [200, 201].includes(status) ? documentOf(answer) : null;
    return { offset: offsetOf(answer), ...(last ? { object } : {}) };
  }

  /** The object that is stored under a key, by its `etag` and its `crc64nvme` (base64), or null. */
  async stored(key, { signal } = {}) {
    const { field } = await this.#ask("HEAD", this.address(key).href, {}, signal);
    return { etag: field("ETag"), crc64nvme: field("x-amz-checksum-crc64nvme") };
  }

  /** The address of an object, for links. Whoever follows it needs a credential, if the server asks for one. */
  address(key) {
    return new URL(`objects/${key.split("/").map(encodeURIComponent).join("/")}`, this.url);
  }

  /** Where the object itself can be read for the next hour, without a credential. Refused if downloads are off. */
  async location(key) {
    return documentOf(await this.#ask("GET", this.address(key).href, { Accept: "application/json" })).location;
  }

  /** Give an upload up. */
  async cancel(upload, { signal } = {}) {
    await this.#ask("DELETE", `uploads/${encodeURIComponent(upload.id)}`, {}, signal);
  }

  /** What is here is all: make it an object. `upload` is as it was looked at; who has sent since then refuses it. */
  async finish(upload) {
    const place = { "Upload-Offset": String(upload.offset), "Upload-Complete": "?1" };
    await this.#ask("PATCH", `uploads/${encodeURIComponent(upload.id)}`, place);
  }

  #credential() {
    if (/[^!-~]/.test(this.token)) throw new Refused(401, "No token has such characters. Was it copied as a whole?");
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }

  /** A whole answer: its `text`, and `field(name)`. */
  async #ask(method, path, headers = {}, signal = undefined) {
    const connection = new AbortController();
    const stop = () => connection.abort();
    const timer = setTimeout(stop, ANSWERED_MILLISECONDS);
    signal?.addEventListener("abort", stop);
    try {
      signal?.throwIfAborted();
      const answer = await this.#begin(method, path, headers, connection.signal);
      return { text: await answer.text(), field: (name) => answer.headers.get(name) };
    } catch (error) {
      signal?.throwIfAborted();
      throw broken(error);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
  }

  /** The beginning of an answer. What reads on meets the errors of fetch. */
  async #begin(method, path, headers, signal) {
    const fields = { ...this.#credential(), ...headers };
    let answer;
    try {
      answer = await fetch(new URL(path, this.url), {
        method,
        headers: fields,
        credentials: "omit",
        redirect: "manual", // nothing here is elsewhere
        signal,
      });
    } catch {
      throw new Refused(0, "The server cannot be reached.");
    }
    if (answer.ok) return answer;
    if (answer.status < 400) throw new Refused(0, STRANGE);
    throw refusal(answer.status, await answer.text(), answer.headers.get("Retry-After"));
  }
}

/** By XMLHttpRequest: fetch does not tell how far a body is. */
function sentByXhr(url, fields, body, progress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let timer;
    const stop = () => request.abort();
    const within = (milliseconds) => {
      clearTimeout(timer);
      timer = setTimeout(stop, milliseconds);
    };
    request.open("PATCH", url);
    for (const [name, value] of Object.entries(fields)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => {
      within(STALLED_MILLISECONDS);
      progress(event.loaded);
    };
    request.upload.onload = () => within(ANSWERED_MILLISECONDS);
    request.onload = () => {
      const field = (name) => request.getResponseHeader(name);
      resolve({ status: request.status, text: request.responseText, field });
    };
    request.onerror = () => reject(new Refused(0, "The connection broke."));
    request.onabort = () => reject(signal?.aborted ? signal.reason : new Refused(0, "The connection stood still."));
    request.onloadend = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    };
    signal?.addEventListener("abort", stop);
    const length = body.size ?? body.byteLength ?? body.length;
    within(length ? STALLED_MILLISECONDS : ANSWERED_MILLISECONDS);
    request.send(body);
  });
}

/** Where there is no XMLHttpRequest: in node, and in workers of some kinds. */
async function sentByFetch(url, fields, body, progress, signal) {
  try {
    const answer = await fetch(url, { method: "PATCH", headers: fields, body, credentials: "omit", signal });
    const text = await answer.text();
    return { status: answer.status, text, field: (name) => answer.headers.get(name) };
  } catch {
    signal?.throwIfAborted();
    throw new Refused(0, "The connection broke.");
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
  const offset = answer.field("Upload-Offset");
  if (offset === null) throw new Refused(0, STRANGE);
  return Number(offset);
}

function documentOf(answer) {
  try {
    return JSON.parse(answer.text);
  } catch {
    throw new Refused(0, STRANGE);
  }
}

/** An error of fetch as one of ours. */
function broken(error) {
  return error instanceof Refused ? error : new Refused(0, "The connection broke.");
}

function refusal(status, text, after) {
  const detail = parsed(text).detail ?? BODILESS[status] ?? `The server said ${status}.`;
  return new Refused(status, detail, Number(after) || 0);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {}; // a proxy's own page, perhaps
  }
}
