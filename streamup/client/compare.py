"""Is this file that object? Proven from what the store says of it, or by reading it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streamup.client.hashing import Hashing
from streamup.client.known import Known, prove
from streamup.client.progress import Progress
from streamup.client.proof import Finding, Verdict, conclude
from streamup.client.reading import Patience, in_parallel, read_span, span_bytes, spans_between
from streamup.client.source import Source
from streamup.errors import Different, Interrupted, TransferError


class Comparison:
    """One file with one object."""

    def __init__(self, source: Source, known: Known, path: Path, patience: Patience, *, parallel: int) -> None:
        self._source = source
        self._known = known
        self._path = path
        self._patience = patience
        self._parallel = parallel

    async def run(self, progress: Progress, *, etag: bool, read: bool) -> list[Finding]:
        """What proves that they are equal. Raises `Different`, `Interrupted` and other `TransferError`s."""
        with _opened(self._path) as descriptor:
            before = os.fstat(descriptor)
            if before.st_size != self._known.stored.size:
                raise Different(f"it has {before.st_size} bytes, and the object {self._known.stored.size}")
            try:
                return await self._proof(descriptor, progress, etag=etag, read=read)
            finally:
                after = os.fstat(descriptor)
                if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                    raise Interrupted(f"{self._path} was written to while it was read. Compare again when it rests.")

    async def _proof(self, descriptor: int, progress: Progress, *, etag: bool, read: bool) -> list[Finding]:
        findings: list[Finding] = []
        if not read:
            with Hashing(descriptor) as hashing:
                progress.follow("verifying", lambda: (hashing.done, hashing.planned))
                findings = await prove(self._known, hashing, etag=etag)
        if conclude(findings) is not Verdict.PROVEN:
            await self._read(descriptor, progress)
            findings.insert(0, Finding(Verdict.PROVEN, "every byte was read and compared"))
        return findings

    async def _read(self, descriptor: int, progress: Progress) -> None:
        """Byte by byte. Raises `Different` with the first that is: what lies before one that was found is read on."""
        size = self._known.stored.size
        spans = iter(spans_between([(0, size)], self._known.cut or (size,), span_bytes(size, self._parallel)))
        differences = [size]

        def take(position: int, piece: memoryview) -> None:
            if position >= min(differences):
                raise _Enough
            ours = os.pread(descriptor, len(piece), position)
            if ours != piece:
                differences.append(position + _first_difference(ours, piece))
                raise _Enough
            progress.add(len(piece))

        async def work() -> None:
            with suppress(_Enough):
                for span in spans:
                    await read_span(self._source, span, self._known.stored.etag, self._patience, take)

        progress.turn("reading", size)
        await in_parallel(self._parallel, work)
        if (differs := min(differences)) < size:
            raise Different(f"they differ from byte {differs} on")


class _Enough(Exception):
    """What comes behind a difference is not looked at."""


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise TransferError(f"{path}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _first_difference(ours: bytes, theirs: memoryview) -> int:
    """Where two unequal strings part."""
    return next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
