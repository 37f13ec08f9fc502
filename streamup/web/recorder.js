// Recordings of a screen or a camera, sent while they are made.
//
// What MediaRecorder gives about once a second goes to outbox.js, which keeps it in this browser before it sends it. The
// end of the page ends a recording; the next visit finishes what is kept, as an object of its own, and another one that
// says which it continues may follow: each has a header, so the two are never one stream.

import * as capture from "./capture.js";
import { Outbox } from "./outbox.js";
import { Recordings } from "./recordings.js";
import { duration, explained, size } from "./words.js";

const SLICE_MILLISECONDS = 1000; // what a crash of the browser takes: more often costs an fsync here and one there
const TICK_MILLISECONDS = 250; // the clock shows seconds
const ANSWER_MILLISECONDS = 3000; // so long a recording waits for the server's word that it may be stored
const MOST_IN_MEMORY = 256 << 20; // minutes, in a browser that has no room, of a server that cannot be reached

const BADGES = {
  sending: ["Finishing", "live"],
  waiting: ["Waiting", "waiting"],
  refused: ["Refused", "failed"],
  lost: ["Incomplete", "failed"],
  complete: ["Complete", "done"],
};

const $ = (id) => document.getElementById(id);
const rows = new Map(); // by Outbox
const continued = new Set(); // the keys of those that a later part continues
let server;
let page;
let recordings = null; // null: this browser keeps nothing
let taken = null; // the Capture, while there is one
let media = null; // the MediaRecorder, while it records
let outbox = null; // where what it records goes
let clock = null;
let busy = false; // the user, or the server, is being asked

export async function start(theServer, thePage) {
  server = theServer;
  page = thePage;
  $("recording-setup").onchange = changed;
  $("recording-setup").onsubmit = (event) => event.preventDefault();
  $("prepare").onclick = () => once(prepare);
  $("begin").onclick = () => once(() => record());
  $("pause").onclick = pause;
  $("stop").onclick = stop;
  $("discard").onclick = discard;
  $("let-go").onclick = letGo;
  addEventListener("beforeunload", (event) => {
    if (media || [...rows.keys()].some((box) => box.unkept > 0)) event.preventDefault();
  });
  document.addEventListener("visibilitychange", stayAwake); // a page that is hidden loses its lock
  setInterval(() => media && show(), TICK_MILLISECONDS);
  $("recording-name").value = freshName();
  const obstacle = capture.obstacle();
  $("recorder-obstacle").textContent = obstacle;
  $("recorder-obstacle").hidden = !obstacle;
  $("studio").hidden = Boolean(obstacle);
  if (obstacle) return;
  if (!capture.screens()) $("source-camera").checked = $("source-screen").disabled = true;
  navigator.mediaDevices.addEventListener("devicechange", listDevices);
  await openRecordings();
  await listDevices();
  show();
  await takeUp();
}

/** There is a credential that was not there before. */
export function signedIn() {
  for (const box of [...rows.keys(), outbox]) box?.retry();
}

// -- what is to be recorded ----------------------------------------------------------------------------------------------

const source = () => ($("source-screen").checked ? "screen" : "camera");

async function listDevices() {
  const { cameras, microphones } = await capture.devices();
  fill($("camera"), cameras, [["", "The usual camera"]]);
  fill($("microphone"), microphones, [["", "The usual microphone"], ["none", "No microphone"]]);
}

function fill(select, devices, before) {
  const chosen = select.value;
  const known = devices.filter(({ deviceId }) => deviceId !== "default").map(({ deviceId, label }) => [deviceId, label]);
  select.replaceChildren(...[...before, ...known].map(([value, label]) => new Option(label, value)));
  select.value = chosen;
  if (select.selectedIndex < 0) select.selectedIndex = 0; // it has been unplugged
}

/** Another source or device: what was taken so far is not what is wanted. A camera needs no question to come back. */
function changed(event) {
  if (event.target === $("recording-name")) return;
  tell("");
  const again = taken && source() === "camera";
  letGo();
  if (again) once(prepare);
  show();
}

async function prepare() {
  tell("");
  try {
    const choice = { source: source(), camera: $("camera").value, microphone: $("microphone").value };
    taken = await capture.Capture.of(choice);
  } catch (error) {
    return tell(capture.refusal(error, source()));
  }
  taken.onended = () => (media ? stop() : letGo());
  $("preview").srcObject = taken.stream;
  meter();
  await listDevices(); // with their names, now that it is allowed
}

function letGo() {
  if (media) return;
  taken?.release();
  taken = null;
  $("preview").srcObject = null;
  show();
}

function meter() {
  const level = taken?.level() ?? null;
  $("level").hidden = level === null;
  if (!taken) return;
  $("level").value = level ?? 0;
  requestAnimationFrame(meter);
}

// -- the recording -------------------------------------------------------------------------------------------------------

/** Record what was prepared; `previous` is the record that it continues. */
async function record(previous = null) {
  tell("");
  if (!taken) await prepare();
  if (!taken) return;
  const { mimeType, extension } = capture.format();
  const name = previous?.name ?? $("recording-name").value.trim().replace(new RegExp(`\\.${extension}$`), "");
  const part = (previous?.part ?? 0) + 1;
  const box = new Outbox({
    server,
    recordings,
    record: {
      id: crypto.randomUUID(),
      begun: Date.now(),
      name,
      part,
      extension,
      key: `${name || freshName()}${part > 1 ? `-${part}` : ""}.${extension}`,
      type: mimeType.split(";")[0],
      source: source(),
      continues: previous?.key ?? "",
      upload: null,
      bytes: 0,
      milliseconds: 0,
      crc: 0n,
      safe: 0,
      ended: false,
    },
    changed: () => follow(box),
  });
  navigator.storage?.persist?.(); // what is kept is not swept away when the disk is full
  hold(box.record.id, () => box.run());
  await Promise.race([box.answered, new Promise((resolve) => setTimeout(resolve, ANSWER_MILLISECONDS))]);
  if (box.state === "refused") {
    if (box.status === 401) page.signIn(box.reason);
    tell(box.reason);
    return await box.discard();
  }
  if (!taken) return await box.discard(); // the sharing was ended meanwhile
  run(box, mimeType);
  if (previous) continued.add(previous.key);
  fillRows();
  $("recording-name").value = freshName();
}

function run(box, mimeType) {
  const recorder = new MediaRecorder(taken.stream, { mimeType, ...taken.bits });
  const time = new Clock();
  let kept = Promise.resolve(); // in order, one after the other
  recorder.onstart = () => time.go();
  recorder.ondataavailable = ({ data }) => {
    const { milliseconds } = time;
    kept = kept.then(async () => {
      if (data.size) await box.add(await data.arrayBuffer(), milliseconds);
      if (box === outbox && box.unkept > MOST_IN_MEMORY) {
        stop();
        tell("The recording was stopped: this browser has no more room for it, and the server cannot be reached.");
      }
    });
    kept.catch((error) => {
      // What comes after a gap is worth nothing, so none of it is added.
      if (media === recorder) stop();
      tell(`The recording was stopped: the browser has lost a part of it. What was recorded before is kept. (${error.message})`);
    });
  };
  recorder.onerror = ({ error }) => tell(`The browser could not go on recording: ${error.message}`);
  recorder.onstop = () => {
    const end = () => box.end();
    kept = kept.then(end, end);
    if (media === recorder) stop(); // it has stopped by itself
  };
  [media, outbox, clock] = [recorder, box, time];
  recorder.start(SLICE_MILLISECONDS);
  stayAwake();
  show();
}

/** A phone that switches its screen off ends what its camera records. */
async function stayAwake() {
  if (!media || document.hidden) return;
  const awake = await navigator.wakeLock?.request("screen").catch(() => null); // as to an almost empty battery
  media?.addEventListener("stop", () => awake?.release());
}

function pause() {
  if (media.state === "paused") {
    media.resume();
    clock.go();
  } else {
    media.pause();
    clock.halt();
  }
  show();
}

function stop() {
  const [recorder, box] = [media, outbox];
  [media, outbox, clock] = [null, null, null];
  if (recorder.state !== "inactive") recorder.stop();
  letGo();
  row(box).scrollIntoView({ block: "nearest" });
  fillRows();
  follow(box);
}

/** Its upload was ended at the server, and what is there cannot be had back: what comes now goes to a new one. */
async function goOn(lost) {
  const recorder = media;
  [media, outbox, clock] = [null, null, null];
  recorder.stop();
  row(lost);
  await record(lost.record);
  if (media) tell(`${lost.record.key} was ended at the server, so the recording goes on in a second part.`);
}

async function discard() {
  const box = outbox;
  const yes = { yes: "Yes, discard it", no: "No, go on", grave: true };
  if (!(await page.confirmed("Discard this recording?", "What was recorded is thrown away, here and at the server.", yes))) return;
  if (box === outbox) stop();
  await box.discard();
}

class Clock {
  #before = 0;
  #since = null;

  go() {
    this.#since ??= performance.now();
  }

  halt() {
    this.#before = this.milliseconds;
    this.#since = null;
  }

  get milliseconds() {
    return this.#before + (this.#since === null ? 0 : performance.now() - this.#since);
  }
}

// -- what was recorded before --------------------------------------------------------------------------------------------

async function openRecordings() {
  try {
    recordings = await Recordings.open(server);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    tell("This browser keeps nothing for this page: what is not sent when the page is left is lost.");
  }
}

/** Finish what an earlier page has left, unless another one is at it; then when that one has gone. */
async function takeUp() {
  if (!recordings) return;
  for (const { id } of await recordings.all()) {
    hold(id, async () => {
      const record = await recordings.get(id);
      if (!record) return; // finished there
      const box = new Outbox({ server, recordings, record, changed: () => follow(box) });
      row(box).interrupted = !record.ended;
      if (!record.ended && !taken) $(`source-${record.source}`).checked = true;
      await box.recover();
      await box.run();
    });
  }
}

/** Two tabs never send, or finish, the same recording. */
function hold(id, action) {
  return navigator.locks.request(`streamup recording ${id}`, action);
}

// -- what is shown -------------------------------------------------------------------------------------------------------

function follow(box) {
  if (box === outbox && box.state === "lost") once(() => goOn(box));
  if (box.status === 401 && box.state === "refused") page.signIn(box.reason);
  if (box.state === "discarded") {
    rows.get(box)?.remove();
    rows.delete(box);
  }
  if (rows.has(box)) fillRow(rows.get(box), box);
  show();
}

function show() {
  const focused = document.activeElement; // where the keyboard is; the next button takes over from one that goes
  const phase = media ? media.state : taken ? "ready" : "idle";
  $("studio").dataset.phase = phase;
  $("preview").hidden = !taken;
  $("stage-hint").hidden = Boolean(taken);
  $("stage-hint").textContent =
    source() === "screen" ? "Choose a screen, a window or a tab to record." : "Turn the camera on to see yourself.";
  $("recording-setup").hidden = Boolean(media);
  $("recording-key").hidden = !media;
  $("recording-key").textContent = outbox?.record.key ?? "";
  for (const control of $("recording-setup").elements) control.disabled = busy;
  $("source-screen").disabled ||= !capture.screens();
  $("camera").closest(".field").hidden = source() !== "camera";
  $("prepare").hidden = phase !== "idle";
  $("prepare").textContent = source() === "screen" ? "Choose what to share" : "Turn on the camera";
  $("begin").hidden = phase !== "ready";
  $("prepare").disabled = $("begin").disabled = busy;
  $("pause").hidden = $("stop").hidden = $("discard").hidden = !media;
  $("pause").textContent = phase === "paused" ? "Resume" : "Pause";
  $("let-go").hidden = phase !== "ready";
  $("let-go").textContent = source() === "screen" ? "Stop sharing" : "Turn it off";
  $("on-air").hidden = !media;
  const time = clock ? duration(clock.milliseconds) : "";
  $("clock").textContent = phase === "paused" ? `${time} · paused` : time;
  if ($("studio").contains(focused) && focused.checkVisibility?.() === false) $("studio").querySelector("button:not([hidden])").focus();
  page.working("record", time);
  showSafety();
  $("recordings-card").hidden = rows.size === 0;
}

function showSafety() {
  const safety = $("safety");
  safety.hidden = !outbox;
  if (!outbox) return;
  const { state, reason, record, unsafe, unkept } = outbox;
  const numbers = `${size(record.bytes)} recorded, ${unsafe ? `not yet safe: ${size(unsafe)}` : "all of it safe at the server"}.`;
  const why = { waiting: `${reason} It is tried again by itself, and the recording goes on.`, refused: reason }[state];
  const room = "This browser has no room to keep it: do not leave the page before it is safe.";
  safety.textContent = [numbers, why, unkept && room].filter(Boolean).join(" ");
  safety.classList.toggle("waiting", state !== "sending" || unkept > 0);
}

function row(box) {
  const item = $("recording").content.firstElementChild.cloneNode(true);
  const action = (name, does) => (item.querySelector(name).onclick = () => does());
  action(".open", () => open(box.object.key));
  action(".copy", () => copy(server.address(box.object.key).href));
  action(".go-on", () => once(() => record(box.record)));
  action(".again", () => box.retry());
  action(".download", () => download(box));
  action(".discard", async () => {
    const yes = { yes: "Yes, discard it", grave: true };
    if (await page.confirmed(`Discard ${box.record.key}?`, "What was recorded is thrown away, here and at the server.", yes)) await box.discard();
  });
  rows.set(box, item);
  $("recordings").prepend(item);
  fillRow(item, box);
  return item;
}

function fillRows() {
  for (const [box, item] of rows) fillRow(item, box);
}

function fillRow(item, box) {
  const { record, state, object } = box;
  const part = (name) => item.querySelector(name);
  const [word, kind] = BADGES[state];
  const live = ["sending", "waiting"].includes(state);
  part(".key").textContent = record.key;
  part(".state").textContent = word;
  part(".state").className = `badge state ${kind}`;
  part(".bar").toggleAttribute("hidden", !live);
  part("rect.stored").setAttribute("width", `${(100 * record.safe) / Math.max(record.bytes, 1)}%`);
  const rest = live && box.unsafe ? ` · not yet safe: ${size(box.unsafe)}` : "";
  part(".numbers").textContent = `${duration(record.milliseconds)} · ${size(object?.size ?? record.bytes)}${rest}`;
  part(".told").textContent = item.interrupted ? interruption(state) : "";
  part(".told").hidden = !item.interrupted;
  const patience = state === "waiting" ? " It is tried again by itself." : "";
  part(".reason").textContent = state === "complete" ? "" : `${box.reason}${patience}`;
  part(".reason").hidden = !part(".reason").textContent || state === "sending";
  const checksum = object?.checksum?.crc64nvme;
  part(".verified").hidden = !checksum;
  part(".verified span").textContent = record.crc === null ? "" : "Verified: ";
  part(".verified code").textContent = checksum ?? "";
  part(".open").hidden = part(".copy").hidden = state !== "complete";
  part(".go-on").hidden = !item.interrupted || Boolean(media) || continued.has(record.key);
  part(".again").hidden = !["waiting", "refused"].includes(state);
  part(".download").hidden = !["refused", "lost"].includes(state);
  part(".discard").hidden = !["waiting", "refused", "lost"].includes(state);
}

function interruption(state) {
  const cut = "The page was left while this was recorded, which ended it.";
  if (state === "complete") return `${cut} All that had been recorded is in it.`;
  return state === "lost" ? cut : `${cut} It is being finished from what this browser has kept.`;
}

// -- what is done with it ------------------------------------------------------------------------------------------------

async function open(key) {
  try {
    await page.open(key);
  } catch (error) {
    page.tell(explained(error), { failed: true });
  }
}

async function copy(link) {
  try {
    await navigator.clipboard.writeText(link);
    page.tell("The link is in the clipboard.");
  } catch {
    page.tell(link); // a browser that gives no clipboard: to be copied by hand
  }
}

async function download(box) {
  let url;
  try {
    url = URL.createObjectURL(await box.remains());
  } catch (error) {
    return page.tell(`The browser cannot read what it has kept: ${error.message}`, { failed: true });
  }
  Object.assign(document.createElement("a"), { href: url, download: box.record.key.split("/").at(-1) }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // by then the browser has begun to read it
}

/** One thing at a time: what a second click asks for is what the first one has begun. */
async function once(action) {
  if (busy) return;
  busy = true;
  show();
  try {
    await action();
  } finally {
    busy = false;
    show();
  }
}

function tell(trouble) {
  $("recorder-trouble").textContent = trouble;
}

/** Two recordings of the same second do not meet. */
function freshName() {
  const now = new Date();
  const local = new Date(now - now.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
  const chance = Math.random().toString(36).slice(2, 6);
  return `recordings/${local.replace("T", "-").replaceAll(":", "")}-${chance}`;
}
