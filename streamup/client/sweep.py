"""`streamup sweep`: multipart uploads below the prefix, and part files in the spool, that no upload knows.

No S3 call shows whose an unfinished multipart upload is. What a state directory knows is never touched; all the rest
may be another program's, so it is only listed, unless the operator gives his word that the prefix is streamup's alone.

The order is the proof: the store and the spool are listed first, and what is known is asked after that. An upload
whose row comes later than the question began later than the listing, too, and is not in it (laws 4 and 5).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from streamup.checkpoint import Checkpoint, Holdings
from streamup.client.table import human_size, printable
from streamup.config import Config
from streamup.errors import NoSuchMultipart, StateDirectoryBusy, StreamupError
from streamup.hosts import reachable
from streamup.stores import Multipart, Receipt
from streamup.stores.experiments import MARK, trial
from streamup.stores.s3 import S3Store

ASK_SECONDS = 10
"""A server that does not tell within this time what it holds is not asked any longer."""

ABORTS = 5
ABORT_AGAIN_SECONDS = 0.5
"""Parts in flight may land after an abort; with doubled waits, the last look is 8 s after the first."""

PLAUSIBLE = timedelta(minutes=15)
"""How far clocks may be apart: S3 refuses requests beyond that. A store whose listings are has no ages to go by."""


class Refused(StreamupError):
    """Nothing was removed, because it cannot be known what is ours. The message says what to do."""


class Outcome(StrEnum):
    """What became of one that no upload knows."""

    LISTED = "listed"
    YOUNG = "younger than --older-than, left alone"
    REMOVED = "removed"
    GONE = "had gone by itself"
    LEFT = "not removed: parts still arrive in it"


@dataclass(frozen=True, slots=True)
class Orphan:
    """A multipart upload (`key`, `name` is its id), or a part file (`key` empty, `name` its path)."""

    kind: str
    key: str
    name: str
    age_seconds: float
    parts: int | None
    size: int | None
    outcome: Outcome

    def __str__(self) -> str:
        content = "size unknown" if self.size is None else human_size(self.size)
        if self.parts is not None:
            content = f"{self.parts} part{'s' * (self.parts != 1)}, {content}"
        name = f"{self.key}  {self.name}" if self.key else self.name
        return f"{self.kind:<9}  {_age(self.age_seconds):>6}  {content:<24}  {printable(name)}  {self.outcome}"

    def as_line(self) -> str:
        """For machines."""
        return json.dumps(asdict(self) | {"outcome": self.outcome.name.lower()})


@dataclass(frozen=True, slots=True)
class Removal:
    """The operator's order: what nobody knows goes, if it is older than this."""

    older_than: timedelta


@dataclass(frozen=True, slots=True)
class PartFile:
    """A file in the spool."""

    upload_id: str
    path: Path
    size: int
    modified: datetime


@dataclass(slots=True)
class Summary:
    """How many of what there was; `freed` in bytes, as far as the store told them."""

    known: int = 0
    orphans: int = 0
    removed: int = 0
    freed: int = 0
    left: int = 0

    def __str__(self) -> str:
        sentence = f"{self.orphans} that no upload knows, {self.removed} removed ({human_size(self.freed)} freed). "
        return f"{sentence}{self.known} multipart uploads are known, and were left alone."


class Sweep:
    """One sweep. `tell` is called with each orphan, when it is settled what becomes of it."""

    def __init__(self, config: Config, tell: Callable[[Orphan], None], *, removal: Removal | None = None) -> None:
        self.summary = Summary()
        self._config = config
        self._store: S3Store
        self._tell = tell
        self._removal = removal

    async def run(self, store: S3Store, *, state_is_lost: bool = False) -> None:
        """Look, and remove what may go. Raises `Refused`, `StateDirectoryError` or `StoreError` before anything went,
        except a `StoreError` of the removals themselves.
        """
        self._store = store
        listed = [found async for found in self._store.list_multiparts("")]
        files = await asyncio.to_thread(part_files, self._config.data / "spool")
        async with self._held(state_is_lost=state_is_lost) as held:
            now = await self._now(listed, held)
            for found in listed:
                if known(held, found):
                    self.summary.known += 1
                else:
                    await self._multipart(found, now)
            for file in files:
                if not state_is_lost and file.upload_id not in held.uploads:
                    await self._part_file(file)

    # -- what is known ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _held(self, *, state_is_lost: bool) -> AsyncIterator[Holdings]:
        """What the state directory knows. No server can start on it meanwhile; one that runs was asked."""
        path = self._config.data / "checkpoint.sqlite"
        there = await asyncio.to_thread(path.exists)
        if state_is_lost:
            if there:
                raise Refused(f"{path} is there. Leave --state-is-lost out, so that what it knows is left alone.")
            yield Holdings(None, (), (), ())
            return
        if not there:
            raise Refused(
                f"There is no state in {self._config.data}, so it cannot be known which uploads are alive. Name the "
                "server's state directory with --data; if it is lost for good, say so with --state-is-lost."
            )
        async with _opened(path) as checkpoint:
            held = await (checkpoint.holdings() if checkpoint else self._ask_server())
            if held.place != self._config.place and (held.place or self._removal):
                raise Refused(
                    f"The state in {self._config.data} is that of {held.place or 'an older streamup'}, and "
                    f"{self._config.place} is swept. Name the right one: --data DIR, s3://BUCKET/PREFIX. (A state says "
                    "where its objects go once its server has been started.)"
                )
            yield held

    async def _ask_server(self) -> Holdings:
        """What the server that has the state directory says. Refused if it has another one."""
        told, held = await _get_holdings(self._config)
        if told.get("data") != str(self._config.data.resolve()):
            raise Refused(
                f"The server at {_admin_url(self._config)} has another state ({told.get('data')!r}) than is named "
                f"({str(self._config.data.resolve())!r}). Name the right one: --admin-listen HOST:PORT, --data DIR."
            )
        return held

    async def _now(self, listed: Sequence[Multipart], held: Holdings) -> datetime:
        """The store's time. Before anything is removed: shown by a multipart upload of our own."""
        if self._removal is None:
            return datetime.now(UTC) + (self._store.clock_skew or timedelta())
        if held.multiparts and not {found.multipart_id for found in listed} & set(held.multiparts):
            raise Refused(
                f"The state in {self._config.data} knows {len(held.multiparts)} multipart uploads, and none of them is "
                "below this prefix. Sweep where its server stores, or start the server, so that it settles them."
            )
        async with trial(self._store, self._store.profile) as begun:
            try:
                ours = await begun.listed(MARK)
            finally:
                left = await begun.clean()
        now = datetime.now(UTC)
        if ours is None or abs(ours.initiated - now) > PLAUSIBLE:
            shown = "not at all" if ours is None else f"as begun at {ours.initiated:%Y-%m-%d %H:%M:%S}"
            raise Refused(
                f"One that was begun just now is listed {shown}, and here it is {now:%Y-%m-%d %H:%M:%S} UTC. Ages "
                "cannot be trusted, so nothing was removed. streamup doctor says more."
            )
        if left:
            raise Refused("\n".join(left))
        return ours.initiated

    # -- what nobody knows --------------------------------------------------------------------------------------

    async def _multipart(self, found: Multipart, now: datetime) -> None:
        age = now - found.initiated
        parts = await self._parts(found)
        # A server that starts, or a doctor, may be at it.
        least = PLAUSIBLE if found.key.rpartition("/")[2].startswith(MARK) else timedelta(0)
        outcome = Outcome.GONE if parts is None else self._verdict(age, least)
        if outcome is Outcome.REMOVED:
            outcome = await self._abort(found)
        sizes = {part.number: part.size for part in parts or ()}  # SeaweedFS lists what was overwritten, too
        self._settle(
            Orphan(
                "multipart",
                found.key,
                found.multipart_id,
                age.total_seconds(),
                len(sizes),
                sum(sizes.values()),
                outcome,
            )
        )

    async def _parts(self, found: Multipart) -> Sequence[Receipt] | None:
        """None: it has gone meanwhile."""
        try:
            return await self._store.list_parts(found.key, found.multipart_id)
        except NoSuchMultipart:
            return None

    async def _abort(self, found: Multipart) -> Outcome:
        """Parts in flight may land after an abort, so it is repeated until the store knows it no more."""
        for attempt in range(ABORTS):
            if attempt:
                await asyncio.sleep(ABORT_AGAIN_SECONDS * 2 ** (attempt - 1))
            await self._store.abort_multipart(found.key, found.multipart_id)
            if await self._parts(found) is None:
                return Outcome.REMOVED
        return Outcome.LEFT

    async def _part_file(self, file: PartFile) -> None:
        age = datetime.now(UTC) - file.modified
        outcome = self._verdict(age)
        if outcome is Outcome.REMOVED:
            await asyncio.to_thread(file.path.unlink, missing_ok=True)
        self._settle(Orphan("part file", "", str(file.path), age.total_seconds(), None, file.size, outcome))

    def _verdict(self, age: timedelta, least: timedelta = timedelta(0)) -> Outcome:
        if self._removal is None:
            return Outcome.LISTED
        return Outcome.YOUNG if age < max(self._removal.older_than, least) else Outcome.REMOVED

    def _settle(self, orphan: Orphan) -> None:
        self.summary.orphans += 1
        self.summary.left += orphan.outcome is Outcome.LEFT
        if orphan.outcome is Outcome.REMOVED:
            self.summary.removed += 1
            self.summary.freed += orphan.size or 0
        self._tell(orphan)


def known(held: Holdings, found: Multipart) -> bool:
    """Whether some upload knows it, or may be about to: between `creating` and its id, any of its key may be its own.

    Whose clock is behind is not known, so more are protected than can be meant. Keys are compared by their ends: the
    server may store below another prefix than is swept.
    """
    since = found.initiated + PLAUSIBLE
    return found.multipart_id in held.multiparts or any(
        (found.key == key or found.key.endswith(f"/{key}") or key.endswith(f"/{found.key}"))
        and since >= datetime.fromtimestamp(creating, UTC)
        for key, creating in held.creating
    )


def part_files(spool: Path) -> Sequence[PartFile]:
    """What is named like a part file in the spool; nothing where there is no spool."""
    if not spool.is_dir():
        return []
    named = [(path, re.fullmatch(r"([A-Za-z0-9_-]+)\.\d+", path.name)) for path in sorted(spool.iterdir())]
    found = []
    for path, match in named:
        if match and path.is_file():
            stat = path.stat()
            found.append(PartFile(match[1], path, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)))
    return found


@asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[Checkpoint | None]:
    """The checkpoint, and with it the lock on its directory; None if a running server has that."""
    with ThreadPoolExecutor(1, "checkpoint") as executor:
        checkpoint = Checkpoint(path, executor)
        try:
            await checkpoint.open(as_it_is=True)
        except StateDirectoryBusy:
            busy = True
        else:
            busy = False
        try:
            yield None if busy else checkpoint
        finally:
            if not busy:
                await checkpoint.close()


def _admin_url(config: Config) -> URL:
    host, port = config.admin_listen or ("", 0)
    return URL.build(scheme="http", host=reachable(host), port=port)


async def _get_holdings(config: Config) -> tuple[Mapping[str, Any], Holdings]:
    """A running server's word, as it came and understood. Raises `Refused` where it cannot be had."""
    ways = "Say where it listens (--admin-listen HOST:PORT), or stop it and sweep then."
    if config.admin_listen is None:
        raise Refused(
            f"A server is running on {config.data}, and --admin-listen off says that it cannot be asked. {ways}"
        )
    url = _admin_url(config) / "holdings"
    timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status != HTTPStatus.OK:
                raise Refused(f"{url} answers {response.status}: {(await response.text())[:200].strip()} {ways}")
            told: Mapping[str, Any] = await response.json()
            return told, _holdings(told)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Refused(f"A server is running on {config.data}, and {url} does not answer: {error}. {ways}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"{url} answers what streamup does not. {ways}") from error


def _holdings(told: Mapping[str, Any]) -> Holdings:
    """Raises `KeyError`, `TypeError` or `ValueError` for anything else: what is misread here would be removed."""
    place, uploads, multiparts, creating = (told[name] for name in ("place", "uploads", "multiparts", "creating"))
    if not all(isinstance(several, list) for several in (uploads, multiparts, creating)):
        raise TypeError
    return Holdings(place, uploads, multiparts, [(str(key), float(since)) for key, since in creating])


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
