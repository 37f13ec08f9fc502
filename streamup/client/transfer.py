"""`streamup get` and `streamup verify`, from their arguments to their outcome."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from streamup.client.compare import Comparison
from streamup.client.download import Download, Outcome
from streamup.client.known import Known
from streamup.client.progress import Display, Lines
from streamup.client.proof import Finding
from streamup.client.reading import PARALLEL, Patience
from streamup.client.source import ServerSource, Source, StoreSource
from streamup.errors import ConfigError
from streamup.object_options import ObjectOptions, ObjectRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How to reach an object, and how to behave meanwhile. `say` tells people what is worth a line."""

    endpoint_url: str | None = None
    path_style: bool = False
    sse_c_key: bytes | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    parallel: int = PARALLEL
    show: Lines = field(default_factory=Lines)
    say: Callable[[str], None] = lambda _: None


@asynccontextmanager
async def opened(text: str, way: Way) -> AsyncIterator[Source]:
    """The object that `s3://bucket/key` or the URL of a streamup server names. Raises `ConfigError`."""
    if match := re.fullmatch(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,254})/(.+)", text, re.DOTALL):
        from streamup.stores.s3 import S3Store  # noqa: PLC0415 - botocore takes half a second, and a URL needs none

        bucket, key = match.groups()
        objects = ObjectRules(ObjectOptions(sse_c_key=way.sse_c_key))
        async with S3Store(
            bucket,
            endpoint_url=way.endpoint_url,
            path_style=way.path_style,
            objects=objects,
            parallel_parts=way.parallel,
        ) as store:
            yield StoreSource(store, key, text)
    elif re.fullmatch(r"https?://[^/]+/(.*/)?objects/[^?#]+.*", text):
        async with ServerSource(text, way.token, connections=way.parallel) as server:
            yield server
    else:
        raise ConfigError(f"{text!r} is no object. Write it as s3://bucket/key or http://127.0.0.1:8080/objects/key.")


def target_of(file: str, key: str) -> Path:
    """Where the object goes: a directory takes it by the last segment of its key. Raises `ConfigError`."""
    if file == "-":
        raise ConfigError(
            "Standard output would show bytes before they are verified. Name a file, and read that afterwards (one "
            "that is called - is ./-)."
        )
    path = Path(file)
    if path.is_dir() or file.endswith(os.sep):
        name = key.rpartition("/")[2]
        if name in ("", ".", "..") or "\0" in name:
            raise ConfigError(f"The key {key!r} makes no file name. Name the file: {path / 'NAME'}.")
        path /= name
    path = path.resolve()  # through symbolic links, which stay
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is there, and is not a file. Name another.")
    if not path.parent.is_dir():
        raise ConfigError(f"There is no directory {path.parent}. Make it, or name another.")
    return path


async def get(text: str, file: str, way: Way, *, etag: bool) -> tuple[Path, Outcome]:
    """Download an object. Raises `TransferError`, `StoreError`, `ConfigError`."""
    async with opened(text, way) as source:
        target, patience = target_of(file, source.key), Patience(way.say)
        known = await Known.of(source, patience)
        async with Display(way.show) as display:
            progress = display.begin(target.name, known.stored.size)
            download = Download(source, known, target, patience, parallel=way.parallel, etag=etag)
            return target, await download.run(progress, way.say)


async def verify(file: str, text: str, way: Way, *, etag: bool, read: bool) -> Sequence[Finding]:
    """What proves that the file is the object. Raises `Different`, and as `get`."""
    async with opened(text, way) as source:
        path, patience = Path(file), Patience(way.say)
        known = await Known.of(source, patience)
        async with Display(way.show) as display:
            progress = display.begin(path.name, known.stored.size)
            comparison = Comparison(source, known, path, patience, parallel=way.parallel)
            return await comparison.run(progress, etag=etag, read=read)
