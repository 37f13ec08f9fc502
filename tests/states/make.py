"""How `version-N.sql` were made: by a streamup that had N migrations, from a state that has something of each kind.

    git worktree add ../old COMMIT
    cp tests/states/make.py ../old/tests/test_make_state.py
    cd ../old && STATES=$OLDPWD/tests/states PYTHONPATH=. python -m pytest -n 0 tests/test_make_state.py

=======  =======  =====================================================================================
version  commit   the next one ...
=======  =======  =====================================================================================
1        e4b16a2  makes an append that comes with a digest count only once the digest has matched
2        c0dee5d  has a digest of the whole decide whether there is an object
3        52c87f6  writes down what a credential allows
4        c47d1b5  remembers 10,000 endings
5        38f149a  -
=======  =======  =====================================================================================

A part file is a line of comment in the SQL: its name, its upload's key, and its size. Its bytes come from the key.
"""

import base64
import hashlib
import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

from conftest import PART_BYTES
from raw_client import CHUNKED, chunk, eventually, head

from streamup.checkpoint import MIGRATIONS


def body(key, size):
    return random.Random(key).randbytes(1 << 19)[:size]


def digest(data):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


async def test_make_state(start_service, tmp_path):
    version = len(MIGRATIONS)
    service = await start_service()
    # Two that have ended, one that was begun, one with two parts in the store and some bytes here.
    assert (await service.ask("PUT", "/objects/complete", body("complete", 1000))).status == 201
    await cancel(service, await service.leave("cancelled", body("cancelled", 700)))
    await service.leave("begun", body("begun", 900))
    await service.leave("half", body("half", 2 * PART_BYTES + PART_BYTES // 2))
    await service.becomes("half", stored=2 * PART_BYTES)
    if version >= 2:
        await append_provisionally(service, await service.leave("provisional", body("provisional", 2000)))
        await begin_by_tus(service)
    if version >= 3:
        data = body("guarded", 2 * PART_BYTES + 300)
        await service.leave("guarded", data[: PART_BYTES + 100], **{"Repr-Digest": digest(data)})
        await service.becomes("guarded", stored=PART_BYTES)
    # One whose bytes are written and not announced when the process dies.
    await service.begin("written", body("written", 1200))
    # Two whose clients were told that all is durable while the store was away: one PutObject, and one of two parts.
    for operation in ("create_multipart", "put_part", "put_object", "head", "complete_multipart"):
        service.store.hold(operation)
    for key, size in (("small", 800), ("large", PART_BYTES + 400)):
        answer = await service.ask("PUT", f"/objects/{key}", body(key, size), {"Prefer": "respond-async"})
        assert answer.status == 202
    save(version, as_sql(service.killed(tmp_path / "killed")))


async def cancel(service, upload_id):
    assert (await service.ask("DELETE", f"/uploads/{upload_id}")).status == 204


async def append_provisionally(service, upload_id):
    """The process dies before the end of a body that comes with a digest."""
    words = {"Upload-Offset": "2000", "Upload-Complete": "?0", "Content-Type": "application/partial-upload"}
    words |= {"Content-Digest": digest(b"never comes"), "Upload-Draft-Interop-Version": "8"}
    writer = await service.connect()
    await writer.send(head("PATCH", f"/uploads/{upload_id}", CHUNKED | words))
    await writer.send(chunk(body("provisional", 3000)[2000:]))
    await eventually(lambda: service.spooled().get(f"{upload_id}.1") == 3000)


async def begin_by_tus(service):
    """With metadata that are told again."""
    metadata = f"key {base64.b64encode(b'tus').decode()},filetype {base64.b64encode(b'text/plain').decode()}"
    words = {"Tus-Resumable": "1.0.0", "Upload-Length": "4000", "Upload-Metadata": metadata}
    created = await service.ask("POST", "/uploads", b"", words)
    place = "/uploads/" + created.headers["location"].partition("/uploads/")[2]
    words = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    assert (await service.ask("PATCH", place, body("tus", 1000), words)).status == 204


def save(version, sql):
    Path(os.environ["STATES"], f"version-{version}.sql").write_text(sql)


def as_sql(state):
    with closing(sqlite3.connect(state / "checkpoint.sqlite")) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        keys = dict(db.execute("SELECT id, key FROM upload"))
        statements = [*db.iterdump(), f"PRAGMA user_version = {version};"]
    files = []
    for path in sorted((state / "spool").iterdir()):
        upload_id, _, number = path.name.rpartition(".")
        start, data = (int(number) - 1) * PART_BYTES, path.read_bytes()
        assert data == body(keys[upload_id], 1 << 19)[start : start + len(data)]
        files.append(f"-- {path.name} of {keys[upload_id]}: {len(data)} bytes")
    return "\n".join([*files, *statements, ""])
