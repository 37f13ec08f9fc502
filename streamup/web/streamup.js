// What a page can ask of a streamup server. The token goes into a header, never into a URL that others log.

const HERE = new URL(".", document.baseURI); // a proxy may have put the server below a path

/** The server refused. `status` is HTTP's (0: it was not reached), the message says what to do. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Server {
  constructor(token = "") {
    this.token = token;
  }

  /** One's uploads as GET /uploads tells them, those that live and the endings of the last day. */
  async uploads() {
    return (await (await this.#ask("GET", "uploads")).json()).uploads;
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

  /** Send a whole file; `progress(bytes)` tells how many have left. The object's JSON. */
  put(key, file, progress) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest(); // fetch does not tell how far a body is
      request.open("PUT", new URL(`objects/${key.split("/").map(encodeURIComponent).join("/")}`, HERE));
      for (const [name, value] of Object.entries(this.#credential())) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => progress(event.loaded);
      request.onerror = () => reject(new Refused(0, "The connection broke. What arrived is kept for a day."));
      request.onload = () => {
        if (request.status === 201 || request.status === 202) resolve(parsed(request.responseText));
        else reject(refusal(request.status, request.responseText));
      };
      request.send(file);
    });
  }

  #credential() {
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }

  async #ask(method, path, headers = {}) {
    let answer;
    try {
      answer = await fetch(new URL(path, HERE), { method, headers: { ...this.#credential(), ...headers }, credentials: "omit" });
    } catch {
      throw new Refused(0, "The server cannot be reached.");
    }
    if (!answer.ok) throw refusal(answer.status, await answer.text());
    return answer;
  }
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
