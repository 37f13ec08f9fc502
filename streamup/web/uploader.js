// Files to the server: dropped or chosen, some at a time, and gone on with after whatever happens. How one of them is
// sent is in sending.js; here is who comes next, and what a person sees of it.

import { Changed, Ended, Refused, Sending, Unfinished, Unreadable } from "./streamup.js";
import { explained, roughly, size } from "./words.js";

const AT_ONCE = 2; // while one waits for the store or for a new connection, the other fills the line
const DRAW_MILLISECONDS = 200; // as often as the eye follows numbers; hundreds of files move in between
const ANNOUNCE_MILLISECONDS = 10_000; // a screen reader is to be listened to, not endured

const ACTIVE = ["comparing", "sending", "waiting", "storing"];
const BADGES = {
  ready: ["In line", ""],
  comparing: ["Comparing", "live"],
  sending: ["Sending", "live"],
  waiting: ["Waiting", "waiting"],
  storing: ["Storing", "live"],
  paused: ["Paused", ""],
  complete: ["Sent", "done"],
  failed: ["Failed", "failed"],
};

const $ = (id) => document.getElementById(id);
const unfinished = new Unfinished();
const items = new Map(); // by key: { sending, row, go, anew }, in the order in which they are sent
const changed = new Set(); // items that look otherwise than what is drawn
let server, page;
let drawing = null; // a timer
let announced = 0;

/** `page` is what page.js offers to views. */
export function start(theServer, thePage) {
  server = theServer;
  page = thePage;
  for (const input of [$("files"), $("folder")]) {
    input.onchange = () => {
      add([...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
      input.value = ""; // the same file may be chosen again
    };
  }
  $("choose-folder").onclick = () => $("folder").click();
  $("pause-all").onclick = () => {
    for (const item of items.values()) item.go = false; // first: else the room that one makes is the next one's
    items.forEach(pause);
  };
  $("resume-all").onclick = () => items.forEach(resume);
  $("clear-sent").onclick = () => {
    items.forEach((item) => item.sending.state === "complete" && remove(item));
    $("files").focus();
  };
  addEventListener("dragover", over);
  addEventListener("dragleave", (event) => event.relatedTarget || $("uploader").querySelector(".drop").classList.remove("over"));
  addEventListener("drop", dropped);
  addEventListener("beforeunload", (event) => {
    if ([...items.values()].some((item) => item.go && item.sending.state !== "complete")) event.preventDefault();
  });
  showUnfinished();
}

export function signedIn() {
  for (const item of items.values()) if (item.sending.error?.status === 401) resume(item);
  showUnfinished();
}

// -- which files --------------------------------------------------------------------------------------------------------

function over(event) {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault(); // else the browser leaves the page and shows the file
  $("uploader").querySelector(".drop").classList.add("over");
}

async function dropped(event) {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  $("uploader").querySelector(".drop").classList.remove("over");
  location.hash = "upload";
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()); // gone when this event is over
  const found = [];
  for (const entry of entries.filter(Boolean)) await walk(entry, "", found);
  add(found);
}

/** The files of a dropped file or folder, with their paths from there. What cannot be read is told, and passed over. */
async function walk(entry, above, found) {
  const path = above + entry.name;
  try {
    if (entry.isFile) return found.push({ file: await new Promise((...both) => entry.file(...both)), path });
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((...both) => reader.readEntries(...both)); // a hundred at a time in Chromium
      if (!some.length) return;
      for (const inner of some) await walk(inner, `${path}/`, found);
    }
  } catch (error) {
    page.tell(`${path} cannot be read: ${error.message}`, { failed: true });
  }
}

function add(found) {
  const prefix = $("prefix").value.trim().replace(/^\/+|\/+$/g, "");
  found.sort((a, b) => a.path.localeCompare(b.path, undefined, { numeric: true })); // file managers drop in any order
  const rows = document.createDocumentFragment();
  for (const { file, path } of found) {
    const key = prefix ? `${prefix}/${path}` : path;
    const before = items.get(key);
    if (before && !["complete", "failed"].includes(before.sending.state)) {
      page.tell(`${key} is in the list already.`);
      continue;
    }
    if (before) remove(before);
    rows.append(entered(key, file).row);
  }
  $("sendings").prepend(...[...$("sendings").children].filter((row) => !row.classList.contains("sent")), rows);
  next();
  showUnfinished();
}

function entered(key, file) {
  const row = $("sending-row").content.firstElementChild.cloneNode(true);
  const sending = new Sending(server, file, { key, unfinished });
  const item = { sending, row, go: true, anew: false };
  items.set(key, item);
  row.querySelector(".key").textContent = key;
  row.querySelector("progress").setAttribute("aria-label", key);
  const acts = { pause, resume, now: () => sending.resume(), retry: resume, anew: beginAnew, open, cancel };
  for (const [name, act] of Object.entries(acts)) {
    const button = row.querySelector(`.${name}`);
    button.setAttribute("aria-label", `${button.textContent} ${key}`);
    button.onclick = () => act(item);
  }
  sending.addEventListener("progress", () => touch(item));
  sending.addEventListener("state", () => stateChanged(item));
  touch(item);
  return item;
}

// -- which one now ------------------------------------------------------------------------------------------------------

/** Start as many as may be under way. A start is a change of state, which comes back to here. */
function next() {
  const underWay = () => [...items.values()].filter((item) => ACTIVE.includes(item.sending.state)).length;
  for (const item of items.values()) {
    if (!item.go || !["ready", "paused", "failed"].includes(item.sending.state)) continue;
    if (underWay() >= AT_ONCE) return;
    const { anew } = item;
    item.anew = false;
    if (item.sending.state === "paused") item.sending.resume();
    else item.sending.start({ anew });
  }
}

function stateChanged(item) {
  const { state, error } = item.sending;
  if (state === "failed") {
    item.go = false;
    if (error.status === 401) page.signIn(error.message);
  }
  if (state === "complete") {
    item.row.classList.add("sent");
    if (!item.row.contains(document.activeElement)) $("sendings").append(item.row); // those under way stay in sight
  }
  touch(item);
  next();
}

function pause(item) {
  if (["complete", "failed"].includes(item.sending.state)) return;
  item.go = false;
  item.sending.pause();
  touch(item);
}

function resume(item) {
  if (item.sending.state === "complete") return;
  item.go = true;
  touch(item);
  next();
}

async function beginAnew(item) {
  const consequence = "What has arrived of the other version is thrown away.";
  if (!(await page.confirmed(`Send ${item.sending.key} from its beginning?`, consequence, { yes: "Yes, begin anew", grave: true }))) return;
  item.anew = true;
  resume(item);
}

async function cancel(item) {
  const { sending } = item;
  if (sending.durable || sending.sent) {
    const words = `${size(sending.durable || sending.sent)} that have arrived are thrown away.`;
    if (!(await page.confirmed(`Cancel ${sending.key}?`, words, { yes: "Yes, cancel it", grave: true }))) return;
  }
  item.go = false;
  try {
    await sending.cancel();
    if (sending.state === "cancelled") remove(item);
  } catch (error) {
    page.tell(explained(error), { failed: true });
  }
  next();
}

function remove(item) {
  items.delete(item.sending.key);
  changed.delete(item);
  item.row.remove();
  touch();
}

async function open(item) {
  try {
    await page.open(item.sending.key);
  } catch (error) {
    page.tell(explained(error), { failed: true });
  }
}

// -- what one sees ------------------------------------------------------------------------------------------------------

function touch(item) {
  if (item) changed.add(item);
  drawing ??= setTimeout(draw, DRAW_MILLISECONDS);
}

function draw() {
  drawing = null;
  for (const item of changed) drawItem(item);
  changed.clear();
  drawTotal();
  if (items.size && [...items.values()].some((item) => item.sending.state === "sending")) touch(); // rates change by themselves
}

function drawItem({ sending, row, go }) {
  const part = (name) => row.querySelector(name);
  const { state, error } = sending;
  const held = !go && ["ready", "paused"].includes(state);
  const [word, kind] = held ? BADGES.paused : go && ["paused", "failed"].includes(state) ? BADGES.ready : BADGES[state] ?? BADGES.paused;
  part(".badge").textContent = word;
  part(".badge").className = `badge ${kind}`;
  part("progress").value = share(state === "comparing" ? sending.compared : sending.sent, sending.size);
  part("progress").hidden = state === "complete";
  part(".numbers").textContent = numbers(sending);
  part(".trouble").textContent = !error ? "" : state === "waiting" ? `${trouble(error)} It is tried again by itself.` : trouble(error);
  part(".trouble").classList.toggle("waiting", state === "waiting");
  part(".trouble").hidden = !error;
  part(".proof").hidden = state !== "complete";
  if (state === "complete") {
    part(".proof code").textContent = sending.crc64nvme;
    const stored = sending.object.checksum?.crc64nvme === sending.crc64nvme;
    part(".proof span").textContent = stored ? "· verified, and the store has the same" : "· verified by the server";
  }
  const begun = ACTIVE.includes(state);
  part(".pause").hidden = !begun;
  part(".resume").hidden = !held;
  part(".now").hidden = state !== "waiting";
  part(".retry").hidden = state !== "failed" || go || error instanceof Unreadable || error instanceof Changed;
  part(".anew").hidden = state !== "failed" || go || !(error instanceof Changed);
  part(".open").hidden = state !== "complete";
  part(".cancel").hidden = state === "complete";
}

function numbers({ state, size: whole, sent, compared, rate, secondsLeft }) {
  if (state === "complete" || state === "ready") return size(whole);
  if (state === "comparing") return `${size(compared)} compared with what has arrived`;
  if (state === "storing") return `${size(whole)} on their way into the store`;
  return [`${size(sent)} of ${size(whole)}`, ...speed(rate, secondsLeft)].join(" · ");
}

function speed(rate, secondsLeft) {
  return rate ? [`${size(rate)}/s`, `${roughly(secondsLeft)} left`] : [];
}

function trouble(error) {
  if ([Changed, Ended, Refused, Unreadable].some((kind) => error instanceof kind)) return error.message;
  reportError(error);
  return "This page has a defect; the browser's console tells more. Reload it to try again.";
}

function drawTotal() {
  const sendings = [...items.values()].map((item) => item.sending);
  const sum = (of) => sendings.reduce((total, sending) => total + of(sending), 0);
  const of = (...states) => sendings.filter((sending) => states.includes(sending.state)).length;
  const [sent, whole, rate] = [sum((one) => one.sent), sum((one) => one.size), sum((one) => one.rate ?? 0)];
  const [complete, failed, active] = [of("complete"), of("failed"), of(...ACTIVE)];
  const done = `${complete} of ${sendings.length} ${sendings.length === 1 ? "file" : "files"} sent`;
  const title = failed ? `${done}, ${failed} failed` : done;
  $("queue").hidden = !sendings.length;
  $("queue-title").textContent = title;
  $("total").value = share(sent, whole);
  $("total-text").textContent = [`${size(sent)} of ${size(whole)}`, ...speed(rate, (whole - sent) / rate)].join(" · ");
  $("pause-all").hidden = ![...items.values()].some((item) => item.go && item.sending.state !== "complete");
  $("resume-all").hidden = !$("pause-all").hidden || !of("paused", "ready", "failed");
  $("clear-sent").hidden = !complete;
  page.working("upload", active ? `${Math.floor(100 * share(sent, whole))} %` : "");
  if (sendings.length && (!active || performance.now() - announced > ANNOUNCE_MILLISECONDS)) {
    announced = performance.now();
    if ($("announced").textContent !== title) $("announced").textContent = title;
  }
}

function share(part, whole) {
  return whole ? part / whole : 1;
}

// -- what an earlier page has left --------------------------------------------------------------------------------------

async function showUnfinished() {
  const records = (await unfinished.all(server.url.href)).filter((record) => !items.has(record.key));
  let uploads = [];
  try {
    if (records.length) uploads = await server.uploads();
  } catch {
    return; // what is shown stays; the dashboard tells what is wrong with the server
  }
  const open = new Map(uploads.filter(({ state }) => state === "open").map((upload) => [upload.id, upload]));
  const found = records.filter((record) => open.has(record.id) && !items.has(record.key));
  $("unfinished").querySelector("ul").replaceChildren(...found.map((record) => left(record, open.get(record.id))));
  $("unfinished").hidden = !found.length;
}

function left(record, upload) {
  const row = $("unfinished-row").content.firstElementChild.cloneNode(true);
  row.querySelector(".key").textContent = record.key;
  row.querySelector("progress").value = share(upload.received, record.size);
  row.querySelector("progress").setAttribute("aria-label", record.key);
  row.querySelector(".numbers").textContent = `${size(upload.received)} of ${size(record.size)} have arrived`;
  const button = row.querySelector(".cancel");
  button.setAttribute("aria-label", `Give up ${record.key}`);
  button.onclick = async () => {
    const words = `${size(upload.received)} that have arrived are thrown away.`;
    if (!(await page.confirmed(`Give up ${record.key}?`, words, { yes: "Yes, give it up", grave: true }))) return;
    try {
      await server.cancel(record);
      await unfinished.forget(record.server, record.key);
    } catch (error) {
      page.tell(explained(error), { failed: true });
    }
    showUnfinished();
  };
  return row;
}
