// One upload as a row of the dashboard. Keys, names and reasons were written by strangers: they are shown by
// textContent, and nothing here makes markup of text.

import { roughly, explained, moment, size } from "./words.js";

export const LIVE = ["open", "sealed", "completing"];

const STATES = {
  open: ["Open", "waiting"],
  sealed: ["Storing", "live"],
  completing: ["Completing", "live"],
  complete: ["Complete", "done"],
  cancelled: ["Cancelled", ""],
  expired: ["Expired", "failed"],
  failed: ["Failed", "failed"],
};
/** Who sends in many short requests has no writer between two of them, and is still sending. */
const BETWEEN_MILLISECONDS = 4000;
/** The list of parts of an upload that goes on is asked for again when it has grown, but not more often. */
const LOOK_MILLISECONDS = 10_000;
/** An upload may have 10,000. These are enough to see how it goes; a button shows the others. */
const PARTS_SHOWN = 50;

export class UploadRow {
  /** `actions`: `finish(row)`, `cancel(row)`, `open(row)`, `address(row)` of its object,
   * and `look(row)`, which gives the upload with its parts. `place()` is where commands go. */
  constructor(upload, actions, place) {
    this.upload = upload;
    this.place = place;
    this.grown = upload.writer ? Date.now() : 0;
    this.actions = actions;
    this.element = document.getElementById("upload-row").content.firstElementChild.cloneNode(true);
    this.panel = null;
    this.found = {}; // elements by selector, looked up once
    this.#on(".more", () => this.toggle());
    this.#part(".open").href = actions.address(this);
    this.#part(".open").onclick = (event) => {
      event.preventDefault(); // the address needs a credential, which a link cannot carry
      actions.open(this);
    };
    const name = this.#part(".key");
    name.textContent = upload.key;
    name.id = `upload-${upload.id}`;
    this.#part(".more").setAttribute("aria-label", `Details of ${upload.key}`);
    this.#part(".open").setAttribute("aria-label", `Open ${upload.key}`);
    this.show();
  }

  get live() {
    return LIVE.includes(this.upload.state);
  }

  /** What comes first in a list: the newest. */
  get rank() {
    return this.upload.ended ?? this.upload.created;
  }

  get receiving() {
    return this.upload.state === "open" && (this.upload.writer || Date.now() - this.grown < BETWEEN_MILLISECONDS);
  }

  /** The upload has changed. */
  tell(upload) {
    if (upload.received > this.upload.received) this.grown = Date.now();
    this.upload = upload;
  }

  /** Write what is different from what the row says; also when only time has passed. */
  show() {
    const { upload, receiving } = this;
    const [word, kind] = receiving ? ["Receiving", "live"] : upload.held ? ["Held", "waiting"] : STATES[upload.state];
    write(this.#part(".state"), word);
    set(this.#part(".state"), "class", `badge state ${kind}`);
    write(this.#part(".amounts"), amounts(upload));
    write(this.#part(".times"), times(upload, receiving));
    const trouble = upload.reason ?? upload.held ?? "";
    write(this.#part(".reason"), trouble);
    set(this.#part(".reason"), "class", `small trouble reason ${upload.reason ? "" : "waiting"}`);
    this.#part(".reason").hidden = !trouble;
    this.#part(".bar").toggleAttribute("hidden", !this.live);
    if (this.live) {
      const whole = Math.max(upload.length ?? upload.received, 1);
      set(this.#part("rect.received"), "width", `${((100 * upload.received) / whole).toFixed(2)}%`);
      set(this.#part("rect.stored"), "width", `${((100 * upload.stored) / whole).toFixed(2)}%`);
    }
    this.#part(".open").hidden = upload.state !== "complete";
    if (this.panel && !this.panel.hidden) this.#detail();
  }

  toggle() {
    if (!this.panel) {
      this.panel = document.getElementById("details").content.firstElementChild.cloneNode(true);
      this.panel.id = `details-${this.upload.id}`;
      this.panel.hidden = true;
      this.element.append(this.panel);
      this.#part(".more").setAttribute("aria-controls", this.panel.id);
      for (const [name, word] of [[".finish", "Finish"], [".cancel", "Cancel"]]) {
        this.#part(name).setAttribute("aria-label", `${word} ${this.upload.key}`);
      }
      this.#part(".parts").setAttribute("aria-label", `Parts of ${this.upload.key}`);
      this.#on(".finish", () => this.actions.finish(this));
      this.#on(".cancel", () => this.actions.cancel(this));
      this.#on(".all", () => this.#showParts(this.looked.parts, Infinity));
    }
    this.panel.hidden = !this.panel.hidden;
    set(this.#part(".more"), "aria-expanded", String(!this.panel.hidden));
    if (!this.panel.hidden) this.#detail();
  }

  /** What had the focus may be gone with a new state; the row itself is still there. */
  focus() {
    this.#part(".more").focus();
  }

  #detail() {
    const { upload } = this;
    write(this.#part(".id"), upload.id);
    write(this.#part(".began"), moment(upload.created));
    write(this.#part(".safe"), `${upload.offset.toLocaleString("en")} bytes`);
    this.#part(".finish").hidden = upload.state !== "open" || upload.writer; // not under the hands of who is sending
    this.#part(".cancel").hidden = !["open", "sealed"].includes(upload.state);
    this.#part(".go-on").hidden = upload.state !== "open" || this.receiving;
    const path = upload.key.split("/").map(encoded).join("/");
    write(this.#part(".go-on code"), `curl -C ${upload.offset} -T FILE ${this.place()}objects/${path}`);
    this.#look();
  }

  /** Parts and checksums, which the events do not carry. */
  async #look() {
    const { upload } = this;
    const version = `${upload.state} ${upload.stored}`;
    if (this.version === version || this.looking) return;
    if (this.live && Date.now() - (this.lookedAt ?? 0) < LOOK_MILLISECONDS) return;
    this.looking = true;
    this.lookedAt = Date.now();
    try {
      this.looked = await this.actions.look(this);
      this.version = version;
      this.#showParts(this.looked.parts, PARTS_SHOWN);
      const sums = Object.entries(this.looked.object?.checksum ?? {}).map(([name, sum]) => `${name} ${sum}`);
      write(this.#part(".sum"), sums.join(", "));
      this.#part(".sum").parentElement.hidden = sums.length === 0;
    } catch (error) {
      write(this.#part(".many"), explained(error));
    } finally {
      this.looking = false;
    }
  }

  #showParts(parts, most) {
    const rows = parts.slice(0, most).map((part) => {
      const row = document.createElement("tr");
      const sum = part.crc64nvme ?? part.sha256 ?? part.etag ?? "";
      for (const text of [part.number, size(part.size), sum]) row.insertCell().textContent = text;
      return row;
    });
    this.#part("tbody").replaceChildren(...rows);
    this.#part(".parts").hidden = parts.length === 0;
    write(this.#part(".many"), parts.length === 0 ? "No part is in the store yet." : parts.length === 1 ? "1 part in the store" : `${parts.length} parts in the store`);
    this.#part(".all").hidden = rows.length === parts.length;
  }

  #part(selector) {
    return (this.found[selector] ??= this.element.querySelector(selector));
  }

  #on(selector, action) {
    this.#part(selector).onclick = action;
  }
}

function amounts(upload) {
  if (upload.state === "complete") return size(upload.object.size);
  if (!LIVE.includes(upload.state)) return `${size(upload.received)} received`;
  const of = upload.length === null ? "" : ` of ${size(upload.length)}`;
  return list([`${size(upload.received)}${of} received`, `${size(upload.stored)} stored`]);
}

function times(upload, receiving) {
  const since = (time) => roughly((Date.now() - new Date(time)) / 1000);
  if (upload.ended) return `${since(upload.ended)} ago`;
  const words = [];
  if (receiving && upload.rate !== null) {
    words.push(`${size(upload.rate)}/s`);
    if (upload.length !== null && upload.rate > 0) words.push(`${roughly((upload.length - upload.received) / upload.rate)} left`);
  }
  words.push(`began ${since(upload.created)} ago`);
  if (!receiving && upload.expires) words.push(`expires in ${roughly((new Date(upload.expires) - Date.now()) / 1000)}`);
  return list(words);
}

/** Lines break between them only. */
function list(words) {
  return words.map((word) => word.replaceAll(" ", "\u00a0")).join(" · ");
}

/** For a URL within a shell's line: `encodeURIComponent` leaves characters that mean something there. */
function encoded(segment) {
  return encodeURIComponent(segment).replace(/[!'()*~]/g, (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`);
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function set(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}
