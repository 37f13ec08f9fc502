// The frame of the page: who asks, which of the views is shown, and what all of them say and ask in the same way.
//
// A view is a module with `start(server, page)`. `page` is the object below. It may also export `signedIn()`: there is
// a credential now that was not there before. Views go on while another one is shown.

import * as dashboard from "./dashboard.js";
import * as recorder from "./recorder.js";
import { Refused, Server } from "./streamup.js";
import * as uploader from "./uploader.js";

const VIEWS = { record: recorder, upload: uploader, uploads: dashboard };
const USUAL = "uploads";
const TOAST_MILLISECONDS = 8000; // long enough for two lines, read slowly

const $ = (id) => document.getElementById(id);
const link = (view) => document.querySelector(`nav [href="#${view}"]`);
const server = new Server({ token: takeToken() });
let shown = USUAL;

const page = {
  /** The navigation shows that `view` ("record", "upload") works on something: `text` is short ("0:42", "37 %"); empty
   * when it has ended. */
  working(view, text) {
    const going = link(view).querySelector(".going");
    if (going.textContent === text) return;
    going.textContent = text;
    going.hidden = !text;
    entitle();
  },

  /** The server asks who this is (an answer 401), for the reason given: shows the card for a token. */
  signIn(reason = "") {
    $("sign-in-trouble").textContent = server.token ? reason : "";
    $("sign-in").hidden = false;
    show(shown);
    if (document.activeElement === document.body) $("token").focus();
  },

  /** The server has accepted the credential, or asks for none. */
  signedIn() {
    if ($("sign-in").hidden) return;
    $("sign-in").hidden = true;
    $("token").value = "";
    show(shown);
    arrive();
    for (const view of Object.values(VIEWS)) view.signedIn?.();
  },

  /** Tell something in passing. What `failed` stays until it is dismissed. */
  tell(text, { failed = false } = {}) {
    const toast = $("toast").content.firstElementChild.cloneNode(true);
    toast.querySelector("p").textContent = text;
    toast.classList.toggle("failed", failed);
    toast.querySelector("button").onclick = () => toast.remove();
    $("toasts").append(toast);
    if (!failed) setTimeout(() => toast.remove(), TOAST_MILLISECONDS);
  },

  /** Show a complete object in a tab of its own. Throws Refused. */
  async open(key) {
    const tab = window.open("about:blank"); // now: a browser lets nobody open one who has first waited for an answer
    if (!tab) throw new Refused(0, "The browser did not let this page open a tab. Allow it, beside the address.");
    try {
      const location = await server.location(key);
      tab.opener = null;
      tab.location.replace(location);
    } catch (error) {
      tab.close();
      throw error;
    }
  },

  /** Ask before something that cannot be undone: true or false. */
  confirmed(question, consequence, { yes, no = "No, leave it", grave = false }) {
    const dialog = $("question");
    $("question-title").textContent = question;
    $("question-text").textContent = consequence;
    $("no").textContent = no;
    $("yes").textContent = yes;
    $("yes").className = grave ? "grave" : "main";
    return new Promise((resolve) => {
      const answer = (word) => {
        dialog.close();
        resolve(word); // here, not by the event `close`: that comes later, and might answer the next question
      };
      $("yes").onclick = () => answer(true);
      $("no").onclick = () => answer(false);
      dialog.oncancel = () => resolve(false); // Escape
      dialog.showModal();
    });
  },
};

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
  return dashboard.refresh();
}

/** Gives each command a button that copies it, where a browser allows that (over HTTPS, or from this machine). */
function copyable(root) {
  if (!navigator.clipboard) return;
  for (const command of root.querySelectorAll(".command")) command.append($("copy").content.firstElementChild.cloneNode(true));
}

async function copy(command) {
  try {
    await navigator.clipboard.writeText(command.querySelector("code").textContent);
    page.tell("Copied.");
  } catch {
    page.tell("The browser does not let this page copy. Select the line instead.", { failed: true });
  }
}

function show(view) {
  shown = view;
  for (const name of Object.keys(VIEWS)) {
    // Without a credential there is nothing to do in a view, except in one that is at work.
    const idle = link(name).querySelector(".going").hidden;
    $(`${name}-view`).hidden = name !== view || (!$("sign-in").hidden && idle);
    if (name === view) link(name).setAttribute("aria-current", "page");
    else link(name).removeAttribute("aria-current");
  }
  entitle();
}

/** At the top of the view, where a screen reader says which one it is. */
function arrive() {
  scrollTo(0, 0);
  $(`${shown}-title`).focus({ preventScroll: true });
}

function entitle() {
  const recording = link("record").querySelector(".going").textContent;
  const view = link(shown).querySelector("span").textContent;
  document.title = `${recording ? `● ${recording} · ` : ""}${view} · streamup`;
}

function named() {
  const name = location.hash.slice(1);
  return Object.hasOwn(VIEWS, name) ? name : USUAL;
}

addEventListener("hashchange", () => {
  if (new URLSearchParams(location.hash.slice(1)).has("token")) return use(takeToken());
  show(named());
  arrive();
});
for (const root of [document, $("details").content]) copyable(root);
document.addEventListener("click", ({ target }) => {
  const button = target.closest(".command button");
  if (button) copy(button.parentElement);
});
$("sign-out").onclick = () => use("");
document.querySelector("#sign-in form").onsubmit = (event) => {
  event.preventDefault();
  use($("token").value.trim());
};
$("sign-out").hidden = !server.token;
show(named());
for (const view of Object.values(VIEWS)) view.start(server, page);
