// The uploads as they are now, all on one connection of server-sent events. Only what changed is written, once a frame.

import { LIVE, UploadRow } from "./upload-row.js";
import { roughly, explained, size } from "./words.js";

const TICK_MILLISECONDS = 1000; // ages and times to an end, in seconds at their finest
/** So long after a connection has begun, all uploads have been told of: others are forgotten by the server. */
const COMPLETE_MILLISECONDS = 3000;

const $ = (id) => document.getElementById(id);
const rows = new Map(); // by the upload's id
const lists = { live: [], ended: [] }; // rows as they are shown, the newest first
const changed = new Set(); // ids, until the next frame
let server;
let page;
let connection = null; // an AbortController
let told = new Set(); // ids that this connection told of
let retryAt = 0;
let heardAt = 0;
let heardServer = false;

export function start(theServer, thePage) {
  server = theServer;
  page = thePage;
  $("filter").oninput = filter;
  for (const button of $("which").querySelectorAll("button")) button.onclick = () => choose(button);
  $("show-all").onclick = () => {
    $("filter").value = "";
    choose($("which").firstElementChild);
  };
  $("retry").onclick = connect;
  // A hidden tab costs the server nothing, and knows everything as soon as somebody looks at it again.
  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
  addEventListener("pagehide", disconnect); // a page in the back-forward cache, too
  addEventListener("pageshow", (event) => event.persisted && connect());
  setInterval(tick, TICK_MILLISECONDS);
  if (!document.hidden) connect();
}

/** Another credential: begin anew. */
export function refresh() {
  forget([...rows.keys()]);
  $("empty").hidden = true;
  connect();
}

async function connect() {
  disconnect();
  const mine = new AbortController();
  connection = mine;
  say("Connecting");
  try {
    for await (const { name, data, wait } of server.watch({ signal: mine.signal })) {
      if (mine.signal.aborted) return;
      if (name === "open") opened(mine);
      else if (name === "lost") lost(data, wait);
      else if (name === "server") showServer(data);
      else if (name === "upload") hear(data);
    }
  } catch (error) {
    if (mine.signal.aborted) return;
    refused(error);
  }
}

function disconnect() {
  connection?.abort();
  connection = null;
}

function opened(mine) {
  told = new Set();
  heardServer = false;
  retryAt = 0;
  say("Live", true);
  $("lost").hidden = true;
  $("first").querySelector("code").textContent = `curl -T FILE ${place()}objects/FILE`;
  page.signedIn();
  setTimeout(() => {
    if (mine !== connection || retryAt) return;
    forget([...rows.keys()].filter((id) => !told.has(id)));
    render();
  }, COMPLETE_MILLISECONDS);
}

function lost(error, wait = 0) {
  retryAt = Date.now() + wait;
  say("Reconnecting");
  tell(error);
  tick();
}

function refused(error) {
  if (error.status === 401) {
    say("Signed out");
    forget([...rows.keys()]);
    render();
    page.signIn(error.message);
    return;
  }
  say("Not live");
  tell(error);
  page.signedIn(); // not allowed to see this, but known
}

/** Why what is shown may be old. How the server is, nobody knows now. */
function tell(error) {
  $("lost").hidden = false;
  $("server").hidden = true;
  $("lost-text").textContent = explained(error);
  $("lost-since").textContent = heardAt ? `This is as it was at ${new Date(heardAt).toLocaleTimeString()}.` : "";
}

function hear(upload) {
  heardAt = Date.now();
  told.add(upload.id);
  const row = rows.get(upload.id);
  if (row) row.tell(upload);
  else rows.set(upload.id, new UploadRow(upload, actions, place));
  if (changed.size === 0) requestAnimationFrame(render);
  changed.add(upload.id);
}

function render() {
  const focused = document.activeElement;
  const owner = [...changed].map((id) => rows.get(id)).find((row) => row?.element.contains(focused));
  for (const id of changed) {
    const row = rows.get(id);
    if (!row) continue;
    row.show();
    arrange(row);
    row.element.hidden = !wanted(row);
  }
  changed.clear();
  count();
  if (!owner) return;
  if (focused.checkVisibility()) focused.focus(); // moving an element takes the focus from it
  else owner.focus();
}

/** To its place in its list, unless it is there. */
function arrange(row) {
  const name = row.live ? "live" : "ended";
  if (row.list === name) return;
  leave(row);
  const list = lists[name];
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle].rank >= row.rank) low = middle + 1;
    else high = middle;
  }
  $(`${name}-uploads`).insertBefore(row.element, list[low]?.element ?? null);
  list.splice(low, 0, row);
  row.list = name;
}

function leave(row) {
  if (row.list) lists[row.list].splice(lists[row.list].indexOf(row), 1);
}

function forget(ids) {
  for (const id of ids) {
    const row = rows.get(id);
    leave(row);
    row.element.remove();
    rows.delete(id);
  }
}

function wanted(row) {
  const which = $("which").querySelector("[aria-pressed=true]").value;
  if (which && which !== (row.live ? "live" : "ended")) return false;
  const words = $("filter").value.trim().toLowerCase();
  return row.upload.key.toLowerCase().includes(words) || row.upload.id.startsWith(words);
}

function choose(chosen) {
  for (const button of $("which").querySelectorAll("button")) button.setAttribute("aria-pressed", String(button === chosen));
  filter();
}

function filter() {
  for (const row of rows.values()) row.element.hidden = !wanted(row);
  count();
}

function count() {
  let shown = 0;
  for (const [name, list] of Object.entries(lists)) {
    const many = list.filter((row) => !row.element.hidden).length;
    $(`${name}-count`).textContent = many;
    $(`${name}-part`).hidden = many === 0;
    shown += many;
  }
  $("empty").hidden = rows.size > 0 || !heardServer;
  $("choice").hidden = rows.size === 0;
  $("none").hidden = shown > 0 || rows.size === 0;
  traffic();
}

function showServer(state) {
  heardServer = true;
  heardAt = Date.now();
  $("server").hidden = false;
  document.body.classList.toggle("downloads", state.downloads); // of all views: page.css
  const reachable = state.store_available;
  $("store").className = `light ${reachable ? "on" : "off"}`;
  $("store").textContent = reachable ? "Store reachable" : "Store not reachable: uploads wait in the spool";
  $("spool-text").textContent = `Spool ${size(state.spool_used)} of ${size(state.spool_size)}`;
  $("spool-bar").setAttribute("width", `${Math.min(100, (100 * state.spool_used) / Math.max(state.spool_size, 1)).toFixed(1)}%`);
  $("left-out").hidden = !state.left_out;
  $("left-out").textContent = `${state.left_out} older uploads are not listed here.`;
  count();
}

function traffic() {
  const receiving = lists.live.filter((row) => row.receiving);
  const rate = receiving.reduce((sum, row) => sum + (row.upload.rate ?? 0), 0);
  const text = receiving.length ? `${receiving.length} receiving · ${size(rate)}/s` : "Nobody is sending";
  if ($("traffic").textContent !== text) $("traffic").textContent = text;
}

function tick() {
  const wait = Math.ceil((retryAt - Date.now()) / 1000);
  $("connection").lastElementChild.textContent = retryAt && wait > 0 ? `in ${roughly(wait)}` : "";
  if (document.hidden || $("uploads-view").hidden) return;
  for (const row of rows.values()) if (!row.element.hidden) row.show();
  traffic();
}

/** In the header, for all views. A screen reader says it when it changes, and not each second of the wait. */
function say(text, on = false) {
  const status = $("connection").firstElementChild;
  $("connection").className = `light ${on ? "on" : "off"}`;
  if (status.textContent !== text) status.textContent = text;
  $("connection").lastElementChild.textContent = "";
}

const actions = {
  look: (row) => server.look(row.upload.id),
  address: (row) => server.address(row.upload.key).href,

  async finish(row) {
    const { key, offset } = row.upload;
    if (!(await page.confirmed(`Finish ${key}?`, `The ${size(offset)} that are here become the object.`, { yes: "Yes, finish it" }))) return;
    await attempt(() => server.finish(row.upload), `${key} is complete.`);
  },

  async cancel(row) {
    const { key, received } = row.upload;
    const consequence = `The ${size(received)} that are here are thrown away. This cannot be undone.`;
    if (!(await page.confirmed(`Cancel ${key}?`, consequence, { yes: "Yes, cancel it", grave: true }))) return;
    await attempt(() => server.cancel(row.upload), `${key} is cancelled.`);
  },

  open: (row) => attempt(() => page.open(row.upload.key)),
};

async function attempt(action, done) {
  try {
    await action();
    if (done) page.tell(done);
  } catch (error) {
    page.tell(explained(error), { failed: true });
  }
}

/** Where commands go: this server, as the browser reached it. */
function place() {
  const credential = server.token ? `-H "Authorization: Bearer $STREAMUP_TOKEN" ` : "";
  return `${credential}${server.url}`;
}
