// Server-sent events out of a body that `fetch` reads, because EventSource cannot send a token (HTML standard, 9.2.6).

/** `bytes` is an async iterable of Uint8Arrays. Gives `{ name, data }` for each event, `data` as text. What comes after
 * the last blank line is no event yet, and is dropped. */
export async function* parsedEvents(bytes) {
  const decoder = new TextDecoder();
  let rest = "";
  let name = "";
  let data = [];
  for await (const piece of bytes) {
    const lines = (rest + decoder.decode(piece, { stream: true })).split("\n");
    rest = lines.pop();
    for (const line of lines.map((line) => line.replace(/\r$/, ""))) {
      if (line === "") {
        if (data.length) yield { name: name || "message", data: data.join("\n") };
        name = "";
        data = [];
      }
      const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (field === "event") name = value;
      if (field === "data") data.push(value);
    }
  }
}
