"""The service from start to stop: its rooms are brought up and down here, in order."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import resource
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

import click

from streamup.auth import Authorizer
from streamup.checkpoint import Checkpoint
from streamup.config import Config
from streamup.errors import (
    CheckpointError,
    ConfigError,
    SpoolError,
    StateDirectoryError,
    StoreError,
    StoreUnavailable,
)
from streamup.hosts import reachable
from streamup.local import LocalStore
from streamup.metrics import Metrics, Numbers
from streamup.mounts import file_system, is_remote
from streamup.recovery import boot_id, mount_of
from streamup.server import Server
from streamup.signals import stop_signal
from streamup.spool import Files, Spool
from streamup.stores.probe import probe
from streamup.stores.s3 import Observer, S3Store
from streamup.uploader import Uploader
from streamup.uploads import Uploads

PROBE_SECONDS = 15.0
"""How long a start waits for the store to say what it can do."""

PROBE_AGAIN_SECONDS = 3.0

RENEWED = ("api_key_sha256", "jwt_secret", "jwt_keys", "jwt_audience", "jwt_issuer", "tls_cert", "tls_key")
"""The options that SIGHUP exchanges; what has begun under the others goes on under them."""

OWN_DESCRIPTORS = 200
"""Open files that are not a client's: 30 at rest, a hundred for the places of `listeners.MARGIN` and admin, and air."""

MOUNTINFO = Path("/proc/self/mountinfo")
"""Where Linux tells what is mounted. Elsewhere there is no such file, and nothing is known."""

log = logging.getLogger("streamup")


async def serve(config: Config, reread: Callable[[], Config]) -> None:
    """Run the service until SIGTERM or SIGINT; a second one ends the process at once (law 1: nothing is lost).

    What starts later is stopped earlier: the listener first, the embedded store last. `reread` tells at SIGHUP what is
    configured now.
    """
    os.umask(0o077)  # whatever is written from now on, the database and the store's files too, is for this user alone
    as_read, config = config, _within_descriptors(config, _raise_descriptors())
    hangup = asyncio.Event()
    stop = asyncio.create_task(stop_signal(hangup).wait(), name="stop signal")
    async with AsyncExitStack() as stack:
        # A task of its own, so that a signal also ends a start that waits for a store which does not answer.
        start = asyncio.create_task(_start(config, stack), name="start")
        await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            return
        server = await start
        click.echo(_welcome(config, _url(config, server.addresses[0][1])))
        renewal = asyncio.create_task(_renew(server, as_read, reread, hangup), name="renewal")
        stack.callback(renewal.cancel)
        await stop
        log.info("stopping: no new requests, and %g s for parts on their way", config.grace_seconds)


def _raise_descriptors() -> int:
    """As many open files as we may have: each client takes two, and the usual 1,024 are soon gone."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS calls it unlimited, and then refuses that
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _within_descriptors(config: Config, descriptors: int) -> Config:
    """No more connections than there are open files for: each needs its socket and a part file, each part on its way a
    file and a socket to the store, and some are for SQLite, the admin listener and the libraries.
    """
    most = (descriptors - OWN_DESCRIPTORS - 2 * config.parallel_parts) // 2
    if descriptors == resource.RLIM_INFINITY or most >= config.max_connections:
        return config
    if most < 1:
        raise ConfigError(
            f"This process may open {descriptors} files, which leaves none for clients. Allow it more (ulimit -n), or "
            "set a smaller --parallel-parts."
        )
    log.warning(
        "--max-connections %d is lowered to %d: this process may open %d files (ulimit -n)",
        *(config.max_connections, most, descriptors),
    )
    return replace(config, max_connections=most)


async def _start(config: Config, stack: AsyncExitStack) -> Server:
    """Bring the rooms up, each with its end on the `stack`. Returns the server, which listens.

    The checkpoint comes first: its lock refuses a second process on the same state directory.
    """
    authorizer = Authorizer.of(config)
    directory = _state_directory(config.data, any_file_system=config.any_file_system)
    checkpoint = Checkpoint(config.data / "checkpoint.sqlite", stack.enter_context(ThreadPoolExecutor(1, "checkpoint")))
    await checkpoint.open()
    stack.push_async_callback(checkpoint.close)
    metrics = Metrics()
    store = await _open_store(config, metrics, stack)
    files = Files()
    jitter = random.Random()  # noqa: S311 - spreads retries, protects nothing
    uploader = Uploader(store, checkpoint, files, parallel_parts=config.parallel_parts, clock=time.time, jitter=jitter)
    await _ask_store(store, uploader, checkpoint.name, stack)
    share = config.share(config.spool_bytes)
    spool = Spool(directory, config.spool_bytes, files, floor=config.disk_floor_bytes, share=share)
    uploads = Uploads(
        config,
        uploader,
        checkpoint,
        spool,
        clock=time.time,
        # Hexadecimal: an id may begin a word on the command line, and a "-" there would be an option.
        random_token=lambda: secrets.token_hex(16),
        still_known=authorizer.still_known,
    )
    server = Server(config, uploads, store, authorizer, metrics)
    metrics.registry.register(Numbers(uploads.registry, uploader, spool, server.refused, server.public))
    watch = asyncio.create_task(metrics.watch_loop(), name="event loop lag")
    stack.callback(watch.cancel)
    await _take_up(config, uploads, checkpoint)
    stack.push_async_callback(server.stop)
    await server.start()
    if config.speaks_plainly:
        log.warning(
            "--listen is plain HTTP beyond this machine: whoever is on the way can read credentials and bytes. Set "
            "--tls-cert and --tls-key, or name the proxy that speaks HTTPS for this server: --trusted-proxy"
        )
    return server


async def _take_up(config: Config, uploads: Uploads, checkpoint: Checkpoint) -> None:
    """What an earlier process left. Raises `StateDirectoryError`."""
    try:
        await uploads.recover(f"{boot_id()} {mount_of(config.data)}")
        await checkpoint.keep_place(config.place)
    except (CheckpointError, SpoolError, OSError) as error:
        raise StateDirectoryError(
            f"What is in {config.data} cannot be taken up: {error}. Nothing of it was given up. If its disk is full or "
            "read-only, mend that and start again; if it is damaged, keep a copy before you do anything else: with a "
            "new --data streamup starts without its unfinished uploads."
        ) from error


async def _renew(server: Server, config: Config, reread: Callable[[], Config], hangup: asyncio.Event) -> None:
    """At each `hangup`, credentials and certificate as they are now. If any are wrong, those in force stay."""
    while True:
        await hangup.wait()
        hangup.clear()
        try:
            renewed = await asyncio.to_thread(reread)
            known = server.renew(renewed)
        except ConfigError as error:
            log.error("credentials and certificate stay as they were: %s", " ".join(str(error).splitlines()))  # noqa: TRY400 - a sentence for the operator, not a fault of ours
            continue
        log.info("credentials and certificate are read again; known are: %s", known)
        if renewed.has_several_subjects and not config.has_several_subjects:
            log.warning(
                "several subjects can come now. Until the server is started again each may take everything: "
                "--subject-share and --subject-appends hold from then on"
            )
        if replace(renewed, **{name: getattr(config, name) for name in RENEWED}) != config:
            log.warning("other options have changed, too. They count when the server is started again")


def _state_directory(data: Path, *, any_file_system: bool = False) -> Path:
    """The spool's directory below `data`. Nobody else may look in."""
    spool = data / "spool"
    if not any_file_system:
        _require_local_disk(data, spool)
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        spool.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--data {data} cannot be used: {error}. Choose a directory that this user can write."
        ) from error
    return spool


def _require_local_disk(*directories: Path) -> None:
    """Raises `ConfigError`. A name can deceive (gVisor calls every disk 9p, some FUSE file systems are local), so there
    is a way to insist.
    """
    with suppress(OSError):
        mountinfo = MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
        for directory in directories:
            kind = file_system(directory.resolve(), mountinfo)
            if kind and is_remote(kind):
                raise ConfigError(
                    f"{directory} is on {kind}, a file system across the network or in another process: it may lose "
                    "bytes that were acknowledged, and let a second server in. Choose a directory on a local disk "
                    "(--data), or insist with --any-file-system."
                )


async def _open_store(config: Config, metrics: Metrics, stack: AsyncExitStack) -> S3Store:
    """The store, and what it can do."""
    local = await stack.enter_async_context(LocalStore(config.data, config.bucket)) if config.local else None
    return await stack.enter_async_context(store_for(config, local, metrics.observe))


def store_for(config: Config, local: LocalStore | None = None, observe: Observer | None = None) -> S3Store:
    """The store that is configured; not entered yet."""
    return S3Store(
        config.bucket,
        config.prefix,
        endpoint_url=local.endpoint_url if local else config.s3_endpoint_url,
        public_endpoint_url=config.s3_public_endpoint_url,
        path_style=config.s3_path_style or config.local,
        objects=config.objects,
        parallel_parts=config.parallel_parts,
        access_key=local.access_key if local else None,
        secret_key=local.secret_key if local else None,
        observe=observe,
    )


async def _ask_store(store: S3Store, uploader: Uploader, name: str, stack: AsyncExitStack) -> None:
    """Find out what the store can do before anything is sent to it. A store that is away now is asked again later:
    streams go on while it is away, and so they must when this process is restarted meanwhile.
    """
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await _probe(store, name)
    except (StoreUnavailable, TimeoutError) as error:
        log.warning("the store cannot be asked now; uploads are taken, and wait in the spool: %s", error or "no answer")
        uploader.opened.clear()
        later = asyncio.create_task(_probe_later(store, uploader, name), name="probe")
        stack.callback(later.cancel)


async def _probe(store: S3Store, name: str) -> None:
    for shortcoming in await probe(store, name):
        log.warning("%s", shortcoming)


async def _probe_later(store: S3Store, uploader: Uploader, name: str) -> None:
    while not uploader.opened.is_set():
        await asyncio.sleep(PROBE_AGAIN_SECONDS)
        try:
            await _probe(store, name)
        except StoreUnavailable:
            continue
        except (ConfigError, StoreError) as error:
            log.error("%s", error)  # noqa: TRY400 - a sentence for the operator, not a fault of ours
        else:
            uploader.opened.set()
            log.info("the store answers; what waited in the spool is sent")


def _url(config: Config, port: int) -> str:
    """Where this machine reaches the server that listens on `port`."""
    host = reachable(config.listen[0])
    return f"{'https' if config.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _welcome(config: Config, url: str) -> str:
    """What to try, and where things are."""
    key, token = (' -H "Authorization: Bearer $KEY"', "; STREAMUP_TOKEN=$KEY") if config.authenticated else ("", "")
    return "\n".join(
        [
            f"streamup listens on {url} and stores objects in {'a store of its own' if config.local else config.place}",
            f"{'objects, ' if config.local else ''}state and spool are in {config.data.resolve()}",
            "",
            "try:",
            f"  {url}/ in a browser: record, upload, and see what is on its way",
            f"  curl{key} -T FILE {url}/objects/",
            f"  streamup push FILE {url}/objects/    # goes on after whatever happens{token}",
            f"  ffmpeg -i INPUT -f mpegts - | streamup push - {url}/objects/live.ts",
        ]
    )


def new_event_loop(config: Config) -> asyncio.AbstractEventLoop:
    """From uvloop where that is installed (extra `fast`), but not for TLS: when the sender of a body has gone while
    reading was paused, uvloop 0.23 throws away what it had decrypted (41 of 160 tails; asyncio none).
    """
    if config.tls_cert is not None:
        return asyncio.new_event_loop()
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
