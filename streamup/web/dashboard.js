// The uploads as they are now. Keys, names and reasons were written by strangers: they are shown by textContent, and
// nothing here makes markup of text.

import { explained, size } from "./words.js";

const POLL_MILLISECONDS = 2000;
const LIVE = ["open", "sealed", "completing"];

const $ = (id) => document.getElementById(id);
const rows = new Map();
let server;
let page;
let latest = 0; // the answer that counts is that of the last question

export function start(theServer, thePage) {
  server = theServer;
  page = thePage;
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  poll();
}

export async function refresh() {
  const asked = ++latest;
  try {
    const uploads = await server.uploads();
    if (asked !== latest) return;
    show(uploads);
    say("Live", true);
    page.signedIn();
  } catch (error) {
    if (asked !== latest) return;
    explained(error);
    say(error.status === 401 ? "Signed out" : error.status === 0 ? "Not reachable" : "Refused", false);
    if (error.status === 401) {
      show([]);
      $("empty").hidden = true;
      page.signIn(error.message);
    }
  }
}

async function poll() {
  if (!document.hidden) await refresh();
  setTimeout(poll, POLL_MILLISECONDS);
}

function show(uploads) {
  const order = (upload) => [LIVE.includes(upload.state) ? 1 : 0, upload.created];
  uploads.sort((a, b) => (order(b) > order(a) ? 1 : -1));
  const there = new Set(uploads.map((upload) => upload.id));
  for (const [id, row] of rows) {
    if (!there.has(id)) {
      row.remove();
      rows.delete(id);
    }
  }
  uploads.forEach((upload, place) => {
    const row = rows.get(upload.id) ?? added(upload.id);
    fill(row, upload);
    if ($("uploads").children[place] !== row) $("uploads").insertBefore(row, $("uploads").children[place]);
  });
  $("empty").hidden = uploads.length > 0;
}

function added(id) {
  const row = $("upload").content.firstElementChild.cloneNode(true);
  row.querySelector(".cancel").onclick = () => act(row, "Cancel", "Its bytes are thrown away.", () => server.cancel(row.upload));
  row.querySelector(".finish").onclick = () =>
    act(row, "Finish", `${size(row.upload.offset)} become the object.`, () => server.finish(row.upload));
  rows.set(id, row);
  return row;
}

function fill(row, upload) {
  row.upload = upload;
  const part = (name) => row.querySelector(name);
  part(".key").textContent = upload.key;
  part(".state").textContent = upload.writer ? "receiving" : upload.state;
  part(".numbers").textContent = numbers(upload);
  part(".reason").textContent = upload.reason ?? upload.held ?? "";
  part(".reason").hidden = !(upload.reason ?? upload.held);
  const whole = Math.max(upload.length ?? upload.received, 1);
  part(".bar").hidden = !LIVE.includes(upload.state);
  part("rect.received").setAttribute("width", `${(100 * upload.received) / whole}%`);
  part("rect.stored").setAttribute("width", `${(100 * upload.stored) / whole}%`);
  for (const [name, word] of [[".cancel", "Cancel"], [".finish", "Finish"]]) part(name).setAttribute("aria-label", `${word} ${upload.key}`);
  part(".cancel").hidden = !["open", "sealed"].includes(upload.state);
  part(".finish").hidden = upload.state !== "open" || upload.writer; // not under the hands of who is sending
}

function numbers(upload) {
  if (upload.state === "complete") return size(upload.object.size);
  const of = upload.length === null ? "" : ` of ${size(upload.length)}`;
  const rate = upload.rate === null ? "" : ` · ${size(upload.rate)}/s`;
  return `${size(upload.received)}${of} received · ${size(upload.stored)} stored${rate}`;
}

async function act(row, word, consequence, action) {
  const yes = `Yes, ${word.toLowerCase()} it`;
  if (!(await page.confirmed(`${word} ${row.upload.key}?`, consequence, { yes, grave: word === "Cancel" }))) return;
  try {
    await action();
  } catch (error) {
    page.tell(explained(error), { failed: true });
  }
  await refresh();
}

function say(text, live) {
  const status = $("connection").firstElementChild;
  $("connection").className = `light ${live ? "on" : "off"}`;
  if (status.textContent !== text) status.textContent = text; // a screen reader says it once
}
