"""streamup takes HTTP request bodies of unknown length and streams them into S3 multipart uploads.

No received byte is lost, and no truncated object is ever presented as whole, whatever breaks: the client, the network,
the process, the power, the store.

The map
=======

=================  ==============================================================================================
`layout`           byte position ↔ part; part sizes (pure)
`keys`             good object keys, and names for uploads without one (pure)
`routes`           the paths of both listeners, and the methods that mean something there (pure)
`hosts`            machines by name and address: is it us, is it this one? (pure)
`forwarded`        whom the client thinks it is talking to, behind a proxy (pure)
`object_options`   what goes with an object, by its key: encryption, storage class, tags, ... (pure)
`digests`          digests that come with a body, and their running counterparts (pure)
`hashes`           digests of a whole upload, whose state survives a restart
`upload`           `Upload`: state, numbers, what is allowed next (pure; read this first)
`errors`           everything that can go wrong, by name (pure)
`protocols/`       how clients ask: request head → intent, outcome → response head (pure; one file each, over `fields`)
`terms`            what one append may do, and what its client's word means in positions (pure)
`grants`           what a credential allows, and the one decision: may this be done? (pure)
`mounts`           which file system a directory is on, and whether it may hold the state (pure)
`limits`           what one subject may do at once, and how often (pure)
`spool`            part files on local disk, and the budget that bounds them
`accumulator`      bytes in, part files out
`stores/`          where finished bytes go: the `ObjectStore` interface, and S3
`uploader`         what uploads share on their way into the store: permits for parts in flight, outages
`read_back`        part files as bodies and through hashes, compared with what came off the socket
`drain`            one upload's way into the store: its parts as they fill
`completion`       ... and its object, exactly once, and proven
`checkpoint`       what must survive a power cut, in SQLite
`recovery`         what a restart finds
`writer`           one append: from a body into the accumulator, until it ends or is stopped
`registry`         the live uploads: drained, sealed, ended, read again, expired
`door`             what is let in, and on which terms
`uploads`          what a request may do with them: create, append, inspect, look, cancel
`body`             a request body that ends with a reason instead of raising
`openapi`          what can be asked, as one document (pure)
`pages`            what is the same for everybody: that document, and the page at `/` (its files are in `web/`)
`exchange`         one request on its way: from aiohttp's to the head that protocols understand
`reports`          what a client is told while it still sends
`events`           ... and what those are told who watch, for as long as they do
`board`            what has changed, looked at once for all of them
`listeners`        the sockets, and what every connection is held to before there is a request
`handlers`         what each intent does, for all protocols
`server`           the aiohttp application
`admin`            ... and that of the admin listener: for probes, monitoring, and the operator's commands
`metrics`          what monitoring reads: numbers, looked up when somebody asks
`audit`            who has done what: a record for each upload, and for each refusal
`answers`          outcomes and errors as responses: one table error → status
`auth`             who asks, and whether they are heard
`config`           what the operator decides: the one table of options, checked
`config_file`      ... as it is in a TOML file, and secrets in files of their own
`values`           ... and each value as people write it (pure)
`credentials`      whom the server knows: API keys and the keys of tokens, exchanged as a whole
`tokens`           JSON Web Tokens: from one to a grant, and how one is made
`token_keys`       ... and the keys for that, as the operator's files have them
`local`            the embedded store of `serve --local`
`client/`          what the command line does against a server or a store: look, send, get, compare
`service`          brings the above up and down, in order (a room builds by itself what nobody else uses)
`cli`              the commands
`push_command`     ... and that which sends files, a pipe, or what a command writes
`token_command`    ... and that which makes tokens and tells what is in one
`exits`            how a command ends that does not end well
`options`, `logs`  how options are written, how records are
`signals`          the first asks to end in order, the second ends
`failpoints`       named places where a test may kill the process
=================  ==============================================================================================

Imports point one way: `cli → service · push_command · token_command · exits · logs → server · local · client · options
· signals → handlers · admin · pages · reports · events → exchange · listeners · answers · metrics · auth · body · board
→ uploads → door → registry → writer · recovery · drain → completion → uploader · read_back → accumulator → spool ·
checkpoint · audit → credentials → tokens · token_keys → grants · openapi → terms → protocols → upload → stores →
config_file → config → values → layout · keys · routes · forwarded · mounts · hosts · object_options · digests · hashes
· limits → errors`. Pure rooms import the standard library only. `tests/test_rooms.py` holds the map to this.

A byte's way: `body.RequestBody.read` → `writer.Writer.feed` → `accumulator.Accumulator.add` → `spool.Spool.append`
(received) → `drain.Drain` → `stores.ObjectStore.put_part` → `checkpoint.Checkpoint.add_receipt`, and the part file
goes.

The laws
========

Each has a test that carries its name (`tests/test_laws.py`).

1. **Received means on disk.** A body byte is in the spool before anything else happens to it. `kill -9` loses nothing
   received. (Bytes that come with a digest are received when it has matched, and until then they are nowhere else.)
2. **Announced means durable.** An offset told to a client was synced and committed first. It survives a power cut and
   never falls. A sync is made for an announcement and when an interrupted writer settles, and only then: a stream that
   nobody asks about never waits for the disk.
3. **Position decides the part**, never how many parts exist. A part sent twice carries the same bytes both times
   (except bytes that a power cut took before they were announced).
4. **Store, then checkpoint, then spool.** A part file is removed only after its receipt is committed. The record may
   lag the truth, never lead it; nor does memory: an upload whose commit failed is dropped from memory and read again,
   and nothing is answered from it.
5. **An irreversible act is announced first**: `creating` and its time before CreateMultipartUpload, `multipart_id`
   before the first part, `completing` before complete, with the token already in the object's metadata. So is the
   client's word (is this all? where does it end?), before the body: when what is received reaches that end, in the
   handler, in a takeover or in recovery, the upload seals itself.
6. **One writer per upload.** A newcomer stops the old one, waits until it has settled, and goes on from there. A
   stopped writer ends interrupted whatever its buffer still holds: it drains nothing, seals nothing, and its bytes
   never appear after the offset the newcomer was told.
7. **Only a clean end completes.** EOF by the framing and the client's word that this is all. Reset, timeout,
   cancellation and shutdown only interrupt; an interrupted upload is kept, and can be resumed, until it expires.
8. **Nothing grows without a bound.** Spool bytes, parts in flight, uploads and their age, endings that are remembered,
   connections and those of them that watch, time without a byte, and how slow a body may be are all limited; where
   there are several subjects, each has its share. A full spool means an unread socket for those inside and a refusal at
   the door.
9. **One order per key.** Completions of one key take effect in the order in which they were sealed; a sealed upload is
   never refused for another's sake.
10. **Fail closed.** A failed sync is never retried into success; what the store refuses is repaired from the spool or
    the upload fails with its reason; state that is lost makes the upload `failed` (410), never shorter.
"""
