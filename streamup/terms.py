"""What one append may do, and what its client's word means in positions (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from streamup.digests import Digest
from streamup.errors import TooLarge
from streamup.protocols import BodyTerms
from streamup.upload import Upload


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """In positions: `limit` it must not pass; `seals` if it ends cleanly (at `limit`); `ceiling` of any upload here.

    `digests` must match, or nothing of it counts; then it has at `most` so many bytes. `guards` is what it says of the
    whole, `guarded` what was said of that before.
    """

    start: int
    limit: int | None
    seals: bool
    chunked: bool
    digests: tuple[Digest, ...] = ()
    guards: tuple[Digest, ...] = ()
    guarded: Mapping[str, bytes | None] = field(default_factory=dict)
    most: int = 0
    creates: bool = False
    insists: bool = False
    may_be_empty: bool = True
    ceiling: int | None = None

    def check_size(self, added: int, size: int) -> None:
        """Whether `size` bytes may follow the `added` ones. Raises `TooLarge`."""
        if self.ceiling is not None and self.start + added + size > self.ceiling:
            raise too_large(self.ceiling, begun=True)
        if self.digests and added + size > self.most:
            raise too_large_for_a_digest(self.most)


def too_large(limit: int, *, begun: bool = False) -> TooLarge:
    """`begun`: some of it has come by now."""
    kept = " What has come until now is kept as an unfinished upload: finish it as it is, or cancel it." * begun
    return TooLarge(f"An upload may have {limit} bytes here.{kept}", limit=limit)


def too_large_for_a_digest(most: int) -> TooLarge:
    return TooLarge(
        f"A body that comes with a digest may have {most} bytes here: all of it waits until the digest has matched. "
        "Send several, each with its own digest.",
        limit=most,
        name="max-append-size",
    )


def known_length(body: BodyTerms) -> int | None:
    """The length of a new upload as far as it is known before its body."""
    return body.content_length if body.length is None else body.length


def judged_whole(body: BodyTerms) -> BodyTerms:
    """The first body of an upload: if it is all of it, its digest is that of the whole, and nothing is provisional."""
    if not body.digests or not body.is_whole:
        return body
    return replace(body, digests=(), guards=(*body.guards, *body.digests))


def seal_at(body: BodyTerms, start: int, length: int | None) -> int | None:
    """The client's word where the upload ends, as far as it is known before the body (law 5).

    `length`: the total that is known now, from this request or an earlier one.
    """
    if body.seals_at_length:
        return length
    if not body.seals:
        return None
    if body.content_length is not None:
        return start + body.content_length
    return body.limit if body.limit is not None else length


def begin_append(upload: Upload, offset: int | None, body: BodyTerms, end: int | None) -> None:
    """The upload has a writer now, whose client said `body`, and that the upload ends at `end`."""
    ends = body.seals_at_length and body.content_length is not None
    upload.begin_append(
        offset=offset,
        length=_declared_length(body, upload.received),
        seal_at=end,
        end=upload.received + (body.content_length or 0) if ends else None,
        provisional=bool(body.digests),
        guards=body.guards,
    )


def _declared_length(body: BodyTerms, start: int) -> int | None:
    """The total that this request declares, in words or by its framing."""
    if body.length is None and body.declares and body.content_length is not None and not body.digests:
        return start + body.content_length
    return body.length
