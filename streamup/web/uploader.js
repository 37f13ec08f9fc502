// Files to the server.

import { explained, size } from "./words.js";

const $ = (id) => document.getElementById(id);
let server;

export function start(theServer) {
  server = theServer;
  $("file").onchange = chosen;
  $("send").onclick = send;
  $("key").onkeydown = (event) => event.key === "Enter" && $("send").click();
}

function chosen() {
  const [file] = $("file").files;
  $("file-name").textContent = file ? `${file.name} (${size(file.size)})` : "Choose a file…";
  if (file) $("key").value = file.name;
  $("send").disabled = !file;
}

async function send() {
  const [file] = $("file").files;
  const progress = (bytes) => {
    $("sent").value = file.size ? bytes / file.size : 1;
    $("sent-text").textContent = `${size(bytes)} of ${size(file.size)}`;
  };
  $("send").disabled = true;
  $("sending").hidden = false;
  tell("");
  progress(0);
  try {
    const upload = await server.create($("key").value || file.name, { length: file.size, type: file.type });
    const { object } = await server.append(upload.id, 0, file, { last: true, progress });
    tell(`${object.key} is there: ${size(object.size)}.`);
  } catch (error) {
    tell(explained(error), true);
  }
  $("send").disabled = false;
  $("sending").hidden = true;
}

function tell(text, failed = false) {
  $("outcome").textContent = text;
  $("outcome").classList.toggle("trouble", failed);
}
