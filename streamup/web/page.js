// The page: who asks, and which of its views is shown.

import * as dashboard from "./dashboard.js";
import { Server } from "./streamup.js";
import * as uploader from "./uploader.js";

const $ = (id) => document.getElementById(id);
const server = new Server({ token: takeToken() });

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

$("sign-out").onclick = () => use("");
$("use-token").onclick = () => use($("token").value.trim());
$("token").onkeydown = (event) => event.key === "Enter" && $("use-token").click();
$("sign-out").hidden = !server.token;
addEventListener("hashchange", () => use(takeToken()));
uploader.start(server);
dashboard.start(server, (asked) => ($("sign-in").hidden = !asked));
