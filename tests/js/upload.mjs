// One upload by tus-js-client, told on stdout as a line of JSON for each event. The current directory has its package.
//
//     node upload.mjs '{"input": PATH or null for stdin, "options": {...}}'
//
// More settings: "buffer" reads the file into a Buffer first, "slowAt" goes on slowly after so many bytes, until
// something breaks, "urls" is a file that keeps the URLs of unfinished uploads, "cancelAt" gives up (and says DELETE)
// when so many bytes are at the server.

import { createReadStream, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { Readable } from 'node:stream'
import { setTimeout } from 'node:timers/promises'

const tus = createRequire(`${process.cwd()}/`)('tus-js-client')
const { input, buffer, slowAt, urls, cancelAt, options } = JSON.parse(process.argv[2])

const say = (event, more = {}) => console.log(JSON.stringify({ event, ...more }))

let sent = 0
let slow = Boolean(slowAt)

async function* paced(body) {
  for await (const piece of body) {
    for (let start = 0; start < piece.length; start += 16384) {
      const some = piece.subarray(start, start + 16384)
      yield some
      sent += some.length
      if (slow && sent > slowAt) await setTimeout(50)
    }
  }
}

class PacedHttp extends tus.DefaultHttpStack {
  createRequest(method, url) {
    const request = super.createRequest(method, url)
    const send = request.send.bind(request)
    request.send = (body) => {
      if (!body) return send(body)
      const pieces = paced(Buffer.isBuffer(body) ? [body] : body)
      return send(Object.assign(Readable.from(pieces, { objectMode: false }), { size: body.size }))
    }
    return request
  }
}

const source = !input ? process.stdin : buffer ? readFileSync(input) : createReadStream(input)

const upload = new tus.Upload(source, {
  ...options,
  ...(slowAt && { httpStack: new PacedHttp() }),
  ...(urls && { urlStorage: new tus.FileUrlStorage(urls) }),
  onUploadUrlAvailable: () => say('url', { url: upload.url }),
  onChunkComplete: (_, offset) => {
    say('chunk', { offset })
    if (cancelAt && offset >= cancelAt) upload.abort(true).then(() => end('cancelled', 0))
  },
  onAfterResponse: (request, response) => say('answer', { method: request.getMethod(), status: response.getStatus() }),
  onShouldRetry: (error, attempt, given) => {
    say('broken', { message: error.message })
    slow = false
    return tus.defaultOptions.onShouldRetry(error, attempt, given)
  },
  onSuccess: () => end('success', 0),
  onError: (error) => end('error', 1, { message: error.message }),
})

function end(event, code, more) {
  say(event, more)
  process.exit(code)
}

if (urls) {
  const previous = await upload.findPreviousUploads()
  say('previous', { count: previous.length })
  if (previous.length) upload.resumeFromPreviousUpload(previous[0])
}
upload.start()
