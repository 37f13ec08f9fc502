"""JSON that is told about uploads and objects, whoever asks. Pure."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from json import dumps

from streamup.stores import Receipt
from streamup.upload import LIVE, State, Upload


def object_document(upload: Upload) -> dict[str, object]:
    """The object, as the answer to the request that completed it."""
    stored = upload.stored_object
    digests = {
        name: b64encode(value).decode() for name, value in sorted(upload.digests.items()) if name in upload.guards
    }
    document: dict[str, object] = {
        "key": upload.key,
        "size": upload.size,
        "etag": stored.etag if stored else None,
        "checksum": dict(stored.checksums) if stored else None,
        "checksum_type": stored.checksum_type if stored else None,
        "parts": upload.tally.parts or (1 if upload.size else 0),
        "upload": upload.id,
    }
    return document | ({"digest": digests} if digests else {})


def upload_document(
    upload: Upload, *, writing: bool, expire_seconds: float, rate: float | None = None, held: str | None = None
) -> dict[str, object]:
    """The upload, as JSON for whoever looks; without its parts, of which there may be thousands. Sizes in bytes, times
    RFC 3339, `rate` in bytes a second; `held` is why the store does not take it now.
    """
    return {
        "id": upload.id,
        "key": upload.key,
        "state": upload.state.value,
        "reason": upload.reason,
        "held": held,
        "offset": upload.offset,
        "received": upload.received,
        "stored": upload.size if upload.state is State.COMPLETE else upload.stored,
        "length": next((n for n in (upload.size, upload.length, upload.seal_at) if n is not None), None),
        "writer": writing,
        "rate": rate,
        "created": _time(upload.created),
        "expires": _time(upload.expires(expire_seconds)),
        "ended": _time(upload.ended),
        "object": object_document(upload) if upload.state not in LIVE and upload.stored_object else None,
    }


def list_document(documents: Sequence[Mapping[str, object]], first: Upload | None, left_out: int) -> dict[str, object]:
    """A list; `left_out` that are older than its `first` are to be asked for with `next`."""
    place = f"{first.created!r}-{first.id}" if first and left_out else None
    return {"uploads": documents, "left_out": left_out, "next": place}


def event(name: str, document: Mapping[str, object]) -> bytes:
    """One server-sent event (WHATWG HTML, 9.2.6). JSON as it is written here has no line breaks."""
    return f"event: {name}\ndata: {dumps(document)}\n\n".encode()


def parts_document(upload: Upload) -> list[dict[str, object]]:
    """The parts that the store has confirmed."""
    return [_part_document(receipt) for _, receipt in sorted(upload.receipts.items())]


def _part_document(receipt: Receipt) -> dict[str, object]:
    document: dict[str, object] = {"number": receipt.number, "size": receipt.size, "etag": receipt.etag}
    if receipt.crc64nvme is not None:
        document["crc64nvme"] = b64encode(receipt.crc64nvme.to_bytes(8, "big")).decode()
    if receipt.sha256 is not None:
        document["sha256"] = b64encode(receipt.sha256).decode()
    return document


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
