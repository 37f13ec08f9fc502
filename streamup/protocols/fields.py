"""HTTP fields that mean the same in every protocol, both ways. Pure.

Structured fields are RFC 9651's; one of the wrong type is ignored as a whole, as the IETF draft "Resumable Uploads for
HTTP" says (4.1). Fields that are stored with the object are S3's.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from http import HTTPStatus
from typing import get_args
from urllib.parse import quote, unquote

from streamup.digests import SIZES, Digest
from streamup.errors import BadRequest, LengthConflict, LengthRequired, NotImplementedHere, TooLarge, UnsupportedMedia
from streamup.protocols import BodyTerms, Description, Limits, Policy, RequestHead
from streamup.stores import Checksum
from streamup.upload import Upload

MOST_USER_METADATA_BYTES = 2048
"""S3's limit for all x-amz-meta-* names and values together."""

MOST_BYTES = 10**15 - 1
"""The largest Integer of a structured field (RFC 9651, 3.3.1); S3's largest object is a twentieth of it."""

GUARDS = ("repr-digest", "content-digest", "content-md5", "upload-checksum")
"""Digests that a client gives to be verified. Not verifying one that was given would be a false promise."""

DIGESTS: Mapping[str, str] = {"sha-256": "sha256", "sha-512": "sha512"}
"""RFC 9530's active algorithms, and our names for them. Its deprecated ones prove too little."""

S3_CHECKSUM = "x-amz-checksum-"
"""What S3's fields for checksums of objects begin with; the rest is one of `SIZES`."""

_BARE_ITEM = (
    r"-?[0-9]{1,15}|-?[0-9]{1,12}\.[0-9]{1,3}|@-?[0-9]{1,15}|\?[01]|:[A-Za-z0-9+/=]*:"
    r"|\"(?:[ !#-\[\]-~]|\\[\"\\])*\"|%\"(?:[ !#$&-~]|%[0-9a-f]{2})*\"|[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*"
)
_PARAMETERS = rf"(?:; *[a-z*][a-z0-9_.*-]*(?:=(?:{_BARE_ITEM}))?)*"
"""Of a structured field's item. They are for others, but an item with broken ones is none."""

_TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # noqa: S105 - RFC 9110, 5.6.2
_QUOTED = r'"(?:[^"\\]|\\.)*+"'

# Possessive quantifiers (`*+`): nothing that was matched is tried again, so the time is linear whatever is sent.
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}(?:[ \t]*+;[ \t]*+(?:{_TOKEN}=(?:{_TOKEN}|{_QUOTED}))?+)*+")
"""RFC 9110, 8.3.1."""

_CODINGS = re.compile(rf"{_TOKEN}(?:[ \t]*+,[ \t]*+{_TOKEN})*+")
"""RFC 9110, 8.4."""

_DIRECTIVES = re.compile(
    rf"{_TOKEN}(?:=(?:{_TOKEN}|{_QUOTED}))?+(?:[ \t]*+,[ \t]*+{_TOKEN}(?:=(?:{_TOKEN}|{_QUOTED}))?+)*+"
)
"""RFC 9111, 5.2."""

_PRESENTATION = re.compile(rf'{_TOKEN}[ \t]*+(?:;(?:[^"]|{_QUOTED})*+)?+')
"""RFC 6266, 4.1, but for values that should be quoted and are not: file names with spaces are common."""

_PLACE = re.compile(r"([0-9]{1,12}\.[0-9]{1,9})-([0-9A-Za-z]{1,64})")
"""Of an upload in a list: when it began, and its id."""

_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
"""RFC 9110, 12.4.2."""

_DISPOSITION = re.compile(r';\s*([^;=\s]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))')
"""One parameter of Content-Disposition; a quoted value may hold what looks like another."""

# -- requests -----------------------------------------------------------------------------------------------------


def effective_method(method: str, headers: Mapping[str, str]) -> str:
    """What the client means, where something on its way lets only POST through (tus 1.0, X-HTTP-Method-Override)."""
    return headers.get("X-HTTP-Method-Override", method).strip().upper() if method == "POST" else method


def integer(head: RequestHead, name: str) -> int | None:
    """A structured field that is a non-negative Integer; None if absent or of another type."""
    value = item(head, name, "-?[0-9]+")
    return None if value is None else in_range(name, value)


def in_range(name: str, digits: str) -> int:
    """The number of bytes or a position that `digits` say. Raises `BadRequest`."""
    if len(digits.lstrip("-")) > len(str(MOST_BYTES)) or int(digits) < 0:
        raise BadRequest(f"{name} is out of range: {digits[:40]}.", limit=MOST_BYTES)
    return int(digits)


def boolean(head: RequestHead, name: str) -> bool | None:
    """A structured field that is a Boolean (`?1`, `?0`), or a query parameter (`1`, `0`) for who has no headers."""
    value = item(head, name, r"\?[01]") or head.query.get(name.lower(), "")
    return {"1": True, "0": False}.get(value.removeprefix("?"))


def item(head: RequestHead, name: str, kind: str) -> str | None:
    """The bare item of a structured field, if it is one of the type that the pattern `kind` describes."""
    found = re.fullmatch(rf" *({kind}){_PARAMETERS} *", head.headers.get(name, ""))
    return found and found[1]


def media_type(head: RequestHead) -> str:
    return head.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def framing(head: RequestHead, *, required: bool = False) -> int | None:
    """Content-Length, None for a chunked body. With neither there is no body (RFC 9112, 6.3), unless one is required.

    HTTP/1.0 requires it always (RFC 1945, 7.2.2). Raises `LengthRequired`, `TooLarge`, `NotImplementedHere`.
    """
    coding = head.headers.get("Transfer-Encoding", "").strip().lower()
    if coding not in {"", "chunked"}:
        raise NotImplementedHere(f"Transfer-Encoding {coding!r} is not implemented. Use chunked.")
    if head.chunked:
        return None
    if head.content_length is None and (required or head.version < (1, 1)):
        raise LengthRequired("Send a Content-Length, or the body in chunks (Transfer-Encoding: chunked).")
    length = head.content_length or 0
    if length > MOST_BYTES:  # and so is every offset, so that their sum fits into 63 bits
        raise TooLarge(f"A body has {MOST_BYTES} bytes at most.", limit=MOST_BYTES)
    return length


def check_length(terms: BodyTerms, start: int) -> None:
    """Lengths that contradict each other are refused before the body."""
    if terms.length is None or terms.content_length is None:
        return
    end = start + terms.content_length
    if end > terms.length or (terms.seals and end != terms.length):
        raise LengthConflict(
            f"The body ends at byte {end}, and the length was declared as {terms.length}.",
            expected_length=terms.length,
            provided_length=end,
        )


def guards(head: RequestHead) -> tuple[Digest, ...]:
    """What the client says the whole object is: `Repr-Digest` (RFC 9530, 3), `Content-MD5` (RFC 1864), and S3's
    `x-amz-checksum-*`. Nothing is decoded here, so the representation is the bytes.

    Raises `BadRequest`, and `NotImplementedHere` for what cannot be verified.
    """
    _refuse_unverified(head)
    found = [*_digests(head, "Repr-Digest")]
    if (md5 := head.headers.get("Content-MD5")) is not None:
        found.append(digest("Content-MD5", "md5", md5.strip()))
    for name, value in head.headers.items():
        algorithm = name.lower().removeprefix(S3_CHECKSUM)
        if name.lower() != algorithm and algorithm in SIZES:
            found.append(digest(name, algorithm, value.strip()))
    return tuple(found)


def content_digests(head: RequestHead) -> tuple[Digest, ...]:
    """What the client says this body is (RFC 9530, 2)."""
    return _digests(head, "Content-Digest")


def wanted_digests(head: RequestHead) -> tuple[str, ...]:
    """`Want-Repr-Digest: sha-256=10, sha-512=3` (RFC 9530, 4): what of it we can tell. 0 is "not acceptable"."""
    members = (member.strip().partition("=") for member in head.headers.get("Want-Repr-Digest", "").split(","))
    return tuple(DIGESTS[name] for name, _, weight in members if name in DIGESTS and weight.strip() != "0")


def _refuse_unverified(head: RequestHead) -> None:
    """A guard that nobody looks at would be a false promise: one of a kind that is not known, or in a trailer."""
    trailers = [name.strip() for name in head.headers.get("Trailer", "").lower().split(",")]
    for name in trailers:
        if name in GUARDS or name.startswith(S3_CHECKSUM):
            raise NotImplementedHere(f"{name} cannot be verified in a trailer. Send it as a header, or leave it out.")
    for name in map(str.lower, head.headers):
        kind = name.removeprefix(S3_CHECKSUM)
        if name != kind and kind not in {*SIZES, "algorithm", "type"}:
            raise NotImplementedHere(f"{name} cannot be verified. These can: {', '.join(SIZES)}.")
    if "Upload-Checksum" in head.headers and "Tus-Resumable" not in head.headers:
        raise NotImplementedHere("Upload-Checksum goes with Tus-Resumable. Any other request may have Content-Digest.")
    if "aws-chunked" in head.headers.get("Content-Encoding", "").lower():
        raise NotImplementedHere("The coding aws-chunked belongs to S3's own clients. Send the bytes as they are.")


def _digests(head: RequestHead, field: str) -> tuple[Digest, ...]:
    """`sha-256=:base64:, ...`. Raises `BadRequest` where none can be verified.

    Of an algorithm that is named twice, the last one counts (RFC 9651, 4.2.2).
    """
    value = head.headers.get(field)
    if value is None:
        return ()
    members = (member.strip().partition("=") for member in value.split(","))
    known = {name: text for name, _, text in members if name in DIGESTS}
    if not known:
        raise BadRequest(f"{field} is verified with {' or '.join(DIGESTS)}: `sha-256=:BASE64:`.")
    return tuple(digest(field, DIGESTS[name], _byte_sequence(field, text)) for name, text in known.items())


def _byte_sequence(field: str, text: str) -> str:
    """Its base64; who makes it may leave the padding out (RFC 9651, 4.2.7)."""
    found = re.fullmatch(rf":([A-Za-z0-9+/=]*):{_PARAMETERS}", text)
    if found is None:
        raise BadRequest(f"A digest in {field} is base64 between colons: `sha-256=:BASE64:`.")
    return found[1] + "=" * (-len(found[1]) % 4)


def digest(name: str, algorithm: str, text: str) -> Digest:
    """What the field `name` says in base64. One that no bytes can match is refused before they come."""
    value = base64(name, text)
    if len(value) != SIZES[algorithm]:
        raise BadRequest(f"A {algorithm} has {SIZES[algorithm]} bytes; {name} has {len(value)}.")
    return Digest(algorithm, value)


def base64(name: str, text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise BadRequest(f"{name} holds something that is not base64.") from None


def described(head: RequestHead) -> Description:
    """What a plain request says of its object, in HTTP's own fields."""
    return Description(
        content_type=_content_type(head),
        content_encoding=_formed("Content-Encoding", head.headers.get("Content-Encoding"), _CODINGS),
        content_disposition=_formed("Content-Disposition", head.headers.get("Content-Disposition"), _PRESENTATION),
        cache_control=_formed("Cache-Control", head.headers.get("Cache-Control"), _DIRECTIVES),
        user=_user_metadata(head.headers),
        checksum=checksum(head),
        if_none_match=if_none_match(head),
        wanted=wanted_digests(head),
    )


def _content_type(head: RequestHead) -> str | None:
    """Raises `UnsupportedMedia` for a form, whose wrapping would be stored with the file."""
    match media_type(head):
        case "multipart/form-data":
            raise UnsupportedMedia("A body is stored as it comes, and this is a form around one. Try curl -T FILE URL.")
        case "application/x-www-form-urlencoded":  # curl --data-binary says so of any file; its user did not
            return None
    return described_type("Content-Type", head.headers.get("Content-Type"))


def described_type(name: str, value: str | None) -> str | None:
    """A media type, under whatever `name` it came. Raises `BadRequest`."""
    return _formed(name, value, _MEDIA_TYPE)


def _formed(name: str, value: str | None, form: re.Pattern[str]) -> str | None:
    """A storable value of this form: a browser that is given nonsense guesses. Raises `BadRequest`."""
    if storable(name, value) is not None and form.fullmatch(value or "") is None:
        raise BadRequest(f"{name} is not written as HTTP has it: {(value or '')[:60]!r}.")
    return value


def storable(name: str, value: str | None) -> str | None:
    """A value that S3 can give back as a header. Raises `BadRequest`."""
    if value is not None and not (value.isascii() and value.isprintable()):
        raise BadRequest(f"{name} must be printable ASCII (percent-encode what is not).")
    return value


def _user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    prefix = "x-amz-meta-"
    return user_metadata(
        {name.lower()[len(prefix) :]: value for name, value in headers.items() if name.lower().startswith(prefix)}
    )


def user_metadata(user: dict[str, str]) -> dict[str, str]:
    """Metadata as S3 takes it. Raises `BadRequest`."""
    for name, value in user.items():
        if not name or name.startswith("streamup-"):
            raise BadRequest(f"The metadata name {name!r} is not for clients.")
        storable(f"x-amz-meta-{name}", value)
    size = sum(len(name) + len(value) for name, value in user.items())
    if size > MOST_USER_METADATA_BYTES:
        raise BadRequest(
            f"S3 stores {MOST_USER_METADATA_BYTES} bytes of metadata; these are {size}.", limit=MOST_USER_METADATA_BYTES
        )
    return user


def checksum(head: RequestHead) -> Checksum | None:
    value = head.query.get("checksum")
    if value is None:
        return None
    try:
        return Checksum(value)
    except ValueError:
        raise BadRequest(f"?checksum={value} is unknown. Use {', '.join(Checksum)}.") from None


def if_none_match(head: RequestHead) -> bool:
    value = head.headers.get("If-None-Match")
    if value not in {None, "*"}:
        raise BadRequest("Only `If-None-Match: *` (create, never replace) is supported.")
    if "If-Match" in head.headers:
        raise NotImplementedHere("If-Match is not supported. Use `If-None-Match: *` to create without replacing.")
    return value is not None


def filename(head: RequestHead) -> str | None:
    """The file name in Content-Disposition; `filename*` goes before `filename` (RFC 6266, 4.3; RFC 8187, 3.2)."""
    names: dict[str, str] = {}
    for name, quoted, token in _DISPOSITION.findall(head.headers.get("Content-Disposition", "")):
        names[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) or token.strip()
    charset, _, text = names.get("filename*", "").partition("'")
    if charset.lower() == "utf-8":
        return unquote(text.partition("'")[2])
    return names.get("filename")


def policy(head: RequestHead) -> Policy | None:
    value = head.query.get("interrupted")
    for known in get_args(Policy):
        if value == known:
            return known  # type: ignore[no-any-return]  # get_args loses the literal types
    if value is not None:
        raise BadRequest(f"?interrupted={value} is unknown. Use {', '.join(get_args(Policy))}.")
    return None


def before(head: RequestHead) -> tuple[float, str] | None:
    """`?before=`: where in a list the one before it ended (`documents.list_document`). Raises `BadRequest`."""
    text = head.query.get("before")
    if text is None:
        return None
    if not (found := _PLACE.fullmatch(text)):
        raise BadRequest("`before` is what `next` of a list says, as it is.")
    return float(found[1]), found[2]


def prefers_json(head: RequestHead) -> bool:
    """`Accept`: whether JSON is wanted more than anything else (RFC 9110, 12.5.1). Who takes it as well as the rest, as
    some libraries say of every request, does not mean it.
    """
    ranges: dict[str, float] = {}
    for one in head.headers.get("Accept", "").lower().split(","):
        name, *parameters = (part.strip() for part in one.split(";"))
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        ranges[name] = float(weight) if _WEIGHT.fullmatch(weight) else 0.0
    return ranges.pop("application/json", 0.0) > max(ranges.values(), default=0.0)


def respond_async(head: RequestHead) -> bool:
    """RFC 7240, 4.1."""
    preferences = head.headers.get("Prefer", "").lower().split(",")
    return any(preference.split(";")[0].strip() == "respond-async" for preference in preferences)


# -- answers ------------------------------------------------------------------------------------------------------

UNCONFIRMED = "Every byte of this upload is here, its object is not there yet. Ask again, or end it by an empty PATCH."

PREFERENCE_APPLIED = {"Preference-Applied": "respond-async"}
"""RFC 7240, 3."""


def location(upload_id: str) -> str:
    """The upload resource, as a path; the server knows how clients see that."""
    return f"/uploads/{upload_id}"


def length(upload: Upload) -> dict[str, str]:
    """`Upload-Length`, if it is known by now."""
    known = upload.length if upload.size is None else upload.size
    return {} if known is None else {"Upload-Length": str(known)}


def limit(limits: Limits, lifetime: float | None = None, *, name: str = "max-age") -> dict[str, str]:
    """`Upload-Limit` (draft, 4.1.4); `lifetime` in seconds, told under `name`."""
    members = {"min-size": 0, "max-size": limits.max_upload_bytes}
    members[name] = None if lifetime is None else max(0, int(lifetime))
    return {"Upload-Limit": ", ".join(f"{key}={value}" for key, value in members.items() if value is not None)}


def remaining(upload: Upload, limits: Limits, now: float) -> float | None:
    """Seconds until an open upload expires if nobody comes; None where it does not."""
    at = upload.expires(limits.expire_seconds)
    return None if at is None else at - now


def final(upload: Upload) -> dict[str, str]:
    """Fields of the answer that says: the object is there."""
    return {
        "ETag": upload.stored_object.etag if upload.stored_object else "",
        "Upload-Complete": "?1",
        "Upload-Offset": str(upload.size),
        "Location": f"/objects/{quote(upload.key)}",
    } | repr_digest(upload.digests)


def repr_digest(digests: Mapping[str, bytes]) -> dict[str, str]:
    """`Repr-Digest` of what is known of the whole (RFC 9530, 3)."""
    known = {name: digests[ours] for name, ours in DIGESTS.items() if ours in digests}
    members = [f"{name}=:{b64encode(value).decode()}:" for name, value in known.items()]
    return {"Repr-Digest": ", ".join(members)} if members else {}


def patient(head: RequestHead, status: int) -> int:
    """A status that says "later" to a client that knows how to resume.

    After a 5xx to HEAD tus-js-client begins another upload; 507 says nothing of later.
    """
    if head.method == "HEAD" and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return HTTPStatus.LOCKED
    return HTTPStatus.SERVICE_UNAVAILABLE if status == HTTPStatus.INSUFFICIENT_STORAGE else status
