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

const HERE = new URL(".", document.baseURI); // a proxy may have put the server below a path

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
  /** `url` is where the server is (as a rule, where the page came from). */
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

  async #ask(method, path, headers = {}) {
    let answer;
    try {
      answer = await fetch(new URL(path, this.url), {
        method,
        headers: { ...this.#credential(), ...headers },
        credentials: "omit",
      });
    } catch {
      throw new Refused(0, "The server cannot be reached.");
    }
    if (!answer.ok) throw refusal(answer.status, await answer.text());
    return answer;
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
