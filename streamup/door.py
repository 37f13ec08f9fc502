"""The door: what is let in, and on which terms. All of it is decided before the first byte of a body.

Nothing here waits but for a question to the store, and that not for long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath

from streamup.config import Config
from streamup.errors import (
    BadRequest,
    NotImplementedHere,
    SpoolError,
    SpoolFull,
    SpoolShareTaken,
    TooManyUploads,
    TooOld,
    UploadExists,
    UploadShareTaken,
)
from streamup.grants import Grant
from streamup.keys import expand, validate_key
from streamup.layout import Layout, choose_layout
from streamup.protocols import BodyTerms, Create, Intent
from streamup.registry import Registry
from streamup.spool import Spool
from streamup.stores import NO_KEY, Checksum, ObjectMeta, ObjectStore
from streamup.terms import Terms, known_length, too_large, too_large_for_a_digest
from streamup.upload import Upload, smallest

MOST_PROVISIONAL_BYTES = 64 << 20
"""The longest body that may come with a digest: its client reserves that much of the spool before its first byte."""

MOST_VERSIONS = 1024
"""Numbered names for one key: a power of two."""

MOST_RIVALS = 8
"""How many requests at once may each be quicker to take the name that was found free."""


class Door:
    """What the operator, the spool and the store allow."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        store: ObjectStore,
        spool: Spool,
        *,
        clock: Callable[[], float],
        random_token: Callable[[], str],
    ) -> None:
        self._config = config
        self._registry = registry
        self._store = store
        self._spool = spool
        self._clock = clock
        self._random_token = random_token

    @property
    def max_append_bytes(self) -> int:
        """The longest body that may come with a digest: it has to fit into the spool whole, beside all others."""
        return min(MOST_PROVISIONAL_BYTES, self._spool.budget.headroom)

    # -- what is asked for --------------------------------------------------------------------------------------

    def named(self, intent: Intent) -> Intent:
        """A creation with its id, and with the key that is made of it if it brought none. Raises `BadRequest`."""
        if not isinstance(intent, Create):
            return intent
        upload_id = self._random_token()
        return replace(intent, upload_id=upload_id, key=self._key(intent, upload_id))

    def upload(self, intent: Create, grant: Grant) -> Upload:
        """The upload that is asked for; nobody knows it yet.

        Raises `TooLarge`, `BadRequest` (it makes no key), `NotImplementedHere` (this store could only refuse it later).
        """
        description, body = intent.description, intent.body
        checksum = description.checksum or Checksum(self._config.checksum)
        self._require_kept(checksum)
        self._require_conditions(grant, asked=description.if_none_match)
        told = {*description.wanted, *(["sha256"] if checksum is Checksum.SHA256 else [])}
        known = known_length(body)
        self._require_allowed(known)
        upload_id = intent.upload_id or self._random_token()
        key = self._key(intent, upload_id)
        return Upload(
            id=upload_id,
            key=key,
            subject=grant.subject,
            credential=grant.credential,
            max_bytes=grant.max_bytes,
            overwrite=grant.overwrite,
            layout=self._layout(known if body.seals else body.length),
            created=self._clock(),
            metadata=description.metadata,
            guards=dict.fromkeys(told),
            meta=ObjectMeta(
                token=self._random_token(),
                checksum=checksum,
                if_none_match=description.if_none_match or not grant.overwrite,
                content_type=description.content_type,
                content_encoding=description.content_encoding,
                content_disposition=description.content_disposition,
                cache_control=description.cache_control,
                user=dict(description.user),
                sse_c_key_md5=self._config.objects.of(key).sse_c_key_md5 or NO_KEY,
            ),
        )

    async def rename(self, upload: Upload, grant: Grant) -> None:
        """Policy `new`: a numbered name that is free, created so that it cannot replace anything.

        Raises `Forbidden` (who may use the key need not be allowed that name), `BadRequest` (it makes no key),
        `UploadExists` (none was found), `StoreError` (nobody knows what is free).
        """
        path = PurePosixPath(upload.key)

        def numbered(number: int) -> str:
            key = self._checked(str(path.with_name(f"{path.stem}-{number}{path.suffix}")))
            grant.require_reach(key)
            return key

        first = await self._first_free(numbered)
        for key in map(numbered, range(first, first + MOST_RIVALS)):
            # In this order: nothing may come between a look at our own uploads and the creation.
            if not await self._registry.certainly_exists(key) and not self._registry[key]:
                upload.key = key
                upload.meta = replace(upload.meta, if_none_match=self._store.conditional_writes)
                return
        raise UploadExists(f"No numbered name beside {upload.key} was free. Use another key.")

    async def _first_free(self, numbered: Callable[[int], str]) -> int:
        """The first number that is free where there are no gaps, or one that follows a taken one. Each costs a question
        to the store, so they are doubled until one is free, and then halved in between.
        """
        taken, free = 0, 1
        while free < MOST_VERSIONS and await self._is_taken(numbered(free)):
            taken, free = free, free * 2
        while free - taken > 1:
            middle = (taken + free) // 2
            taken, free = (middle, free) if await self._is_taken(numbered(middle)) else (taken, middle)
        return free

    async def _is_taken(self, key: str) -> bool:
        return bool(self._registry[key]) or await self._registry.certainly_exists(key)

    # -- what is let in -----------------------------------------------------------------------------------------

    def room(self) -> None:
        """Raise `SpoolFull` or `TooManyUploads` if no newcomer can be let in now."""
        floor = self._config.disk_floor_bytes
        try:
            free = self._spool.free()
        except SpoolError as error:
            raise SpoolFull(f"No upload can be begun here: {error}.") from error
        if free < max(floor, 1):
            raise SpoolFull(f"The disk of the spool has {free} bytes left, and {floor} are kept. Come back later.")
        if len(self._registry) >= self._config.max_open_uploads:
            raise TooManyUploads(
                f"{len(self._registry)} uploads are open, which is the limit. Come back later.",
                limit=self._config.max_open_uploads,
            )

    def admit(self, upload: Upload, body: BodyTerms) -> None:
        """Refuse a new upload and its first body where they would only wait inside (law 8).

        Raises as `room`, `UploadShareTaken`, `SpoolShareTaken`.
        """
        self._require_bounded(body)
        self.room()
        first, known = upload.layout.part(1).size, known_length(body)
        reserve = first if known is None else min(first, known)
        if not self._spool.budget.has_room(reserve):
            raise SpoolFull("The spool is full: uploads come in faster than the store takes them. Come back later.")
        self._require_share(upload.subject, reserve)

    def readmit(self, upload: Upload, body: BodyTerms, grant: Grant, *, if_none_match: bool) -> None:
        """... and a body that goes on with an upload. Raises `TooLarge`, `TooOld`, `NotImplementedHere`."""
        self._require_bounded(body)
        self._require_allowed(body.length)
        self._require_conditions(grant, asked=if_none_match)
        if body.content_length != 0:
            self.require_young(upload)

    def require_young(self, upload: Upload) -> None:
        """Whether it may still take bytes. Raises `TooOld`."""
        max_age = self._config.max_age_seconds
        if max_age is not None and upload.aged(max_age, self._clock()):
            raise TooOld(
                f"Bytes are taken for {max_age:g} s after an upload began. What has arrived is kept: end it as it is "
                f"(an empty last append, streamup finish {upload.id}) or cancel it, and begin another.",
                limit=int(max_age),
            )

    def _require_share(self, subject: str, reserve: int) -> None:
        """Refuse who would leave too little for others."""
        most, share = self._config.share(self._config.max_open_uploads), self._spool.budget.share
        if most is not None and self._registry.count(subject) >= most:
            raise UploadShareTaken(
                f"{most} of your uploads are open, and no more may be. End or cancel some (GET /uploads lists them).",
                limit=most,
            )
        if not self._spool.budget.has_share(subject, reserve):
            raise SpoolShareTaken(
                f"Your unfinished uploads take the {share} bytes of disk that they may. Come back when the store has "
                "taken some of them, or cancel what was interrupted (GET /uploads lists them).",
                limit=share or 0,
            )

    def terms(self, body: BodyTerms, start: int, upload: Upload) -> Terms:
        return Terms(
            start=start,
            limit=body.limit,
            seals=body.seals,
            chunked=body.content_length is None,
            digests=body.digests,
            guards=body.guards,
            most=self.max_append_bytes if body.content_length is None else body.content_length,
            ceiling=smallest(self._config.max_upload_bytes, upload.max_bytes),
        )

    def _require_kept(self, checksum: Checksum) -> None:
        if checksum not in self._store.checksums:
            raise NotImplementedHere(
                f"The store behind this server does not keep {checksum} checksums. "
                f"It keeps {', '.join(sorted(self._store.checksums))}."
            )

    def _require_conditions(self, grant: Grant, *, asked: bool) -> None:
        if asked and not self._store.conditional_writes:
            raise NotImplementedHere("The store behind this server does not honour If-None-Match.")
        if not (grant.overwrite or self._store.conditional_writes):
            raise NotImplementedHere(
                "This credential replaces no object, and the store behind this server cannot promise that: it does not "
                "honour If-None-Match. Use a credential that may overwrite."
            )

    def _require_bounded(self, body: BodyTerms) -> None:
        if body.digests and body.content_length is not None and body.content_length > self.max_append_bytes:
            raise too_large_for_a_digest(self.max_append_bytes)

    def _require_allowed(self, length: int | None) -> None:
        limit = self._config.max_upload_bytes
        if limit is not None and length is not None and length > limit:
            raise too_large(limit)

    def _key(self, intent: Create, upload_id: str) -> str:
        key = intent.key
        if key is None:
            key = expand(self._config.key_template, upload_id=upload_id, filename=intent.filename)
        return self._checked(key)

    def _checked(self, key: str) -> str:
        """A key that the store will take. Raises `BadRequest`."""
        most = self._store.limits.max_name_bytes
        if most is not None and any(len(name.encode()) > most for name in validate_key(key, "").split("/")):
            raise BadRequest(f"Between two slashes of a key the store here takes {most} bytes of UTF-8.", limit=most)
        return validate_key(key, self._config.prefix)

    def _layout(self, length: int | None) -> Layout:
        limits = self._store.limits
        return choose_layout(
            length,
            part_bytes=self._config.part_bytes,
            growing=self._config.layout == "growing" and not limits.equal_parts,
            max_part_bytes=min(limits.max_part_bytes, self._spool.budget.headroom),
            max_parts=limits.max_parts,
        )
