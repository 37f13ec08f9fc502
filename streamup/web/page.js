// The page: who asks, one file to send, and the uploads as they are now. Keys, names and reasons were written by
// strangers: they are shown by textContent, and nothing here makes markup of text.

import { Refused, Server } from "./streamup.js";

const POLL_MILLISECONDS = 2000;
const LIVE = ["open", "sealed", "completing"];

const $ = (id) => document.getElementById(id);
const server = new Server(takeToken());
const rows = new Map();
let latest = 0; // the answer that counts is that of the last question

/** From `#token=…`, which leaves the address bar at once, so that no history, bookmark or screenshot has it. */
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given !== null) {
    history.replaceState(null, "", location.pathname + location.search);
    remember(given);
  }
  return given ?? remembered();
}

// A browser that forbids storage: the token then lasts until the page is left.
function remember(token) {
  try {
    sessionStorage.setItem("token", token);
  } catch {}
}

function remembered() {
  try {
    return sessionStorage.getItem("token") ?? "";
  } catch {
    return "";
  }
}

function use(token) {
  server.token = token;
  remember(token);
  $("sign-out").hidden = !token;
  return refresh();
}

// -- the uploads

async function refresh() {
  const asked = ++latest;
  try {
    const uploads = await server.uploads();
    if (asked !== latest) return;
    show(uploads);
    say("Live");
    $("sign-in").hidden = true;
  } catch (error) {
    if (asked !== latest) return;
    say(explained(error));
    if (error.status === 401) {
      show([]);
      $("empty").hidden = true;
      $("sign-in").hidden = false;
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
  if (!(await confirmed(`${word} ${row.upload.key}? ${consequence}`, `Yes, ${word.toLowerCase()} it`, word === "Cancel"))) return;
  try {
    await action();
  } catch (error) {
    tell(explained(error), true);
  }
  await refresh();
}

function confirmed(question, yes, grave) {
  const dialog = $("question");
  $("question-text").textContent = question;
  $("yes").textContent = yes;
  $("yes").classList.toggle("grave", grave);
  return new Promise((resolve) => {
    $("yes").onclick = () => dialog.close("yes");
    $("no").onclick = () => dialog.close("no");
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
    dialog.returnValue = ""; // Escape says no
    dialog.showModal();
  });
}

// -- one file

function chosen() {
  const [file] = $("file").files;
  $("file-name").textContent = file ? `${file.name} (${size(file.size)})` : "Choose a file…";
  if (file) $("key").value = file.name;
  $("send").disabled = !file;
}

async function send() {
  const [file] = $("file").files;
  const key = $("key").value || file.name;
  const progress = (bytes) => {
    $("sent").value = file.size ? bytes / file.size : 1;
    $("sent-text").textContent = `${size(bytes)} of ${size(file.size)}`;
  };
  $("send").disabled = true;
  $("sending").hidden = false;
  tell("");
  progress(0);
  try {
    const object = await server.put(key, file, progress);
    tell(`${object.key} is there: ${size(object.size)}.`);
  } catch (error) {
    tell(explained(error), true);
  }
  $("send").disabled = false;
  $("sending").hidden = true;
  await refresh();
}

// -- words

function say(text) {
  if ($("connection").textContent !== text) $("connection").textContent = text; // a screen reader says it once
}

function tell(text, failed = false) {
  $("outcome").textContent = text;
  $("outcome").classList.toggle("failed", failed);
}

function explained(error) {
  if (!(error instanceof Refused)) throw error;
  return error.message;
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(bytes, 1)) / 10));
  const value = bytes / 1024 ** step;
  return `${value.toFixed(step && value < 100 ? 1 : 0)} ${units[step]}`;
}

// -- start

$("sign-out").onclick = () => use("");
$("use-token").onclick = () => use($("token").value.trim());
$("token").onkeydown = (event) => event.key === "Enter" && $("use-token").click();
$("file").onchange = chosen;
$("send").onclick = send;
$("key").onkeydown = (event) => event.key === "Enter" && $("send").click();
addEventListener("hashchange", () => use(takeToken()));
document.addEventListener("visibilitychange", () => document.hidden || refresh());
$("sign-out").hidden = !server.token;
poll();
