"""The command line. `serve` is the only place where the rooms are wired to each other.

Exit codes: 0 done · 1 failed for good · 2 wrong usage or refused configuration · 3 interrupted, or nobody answered:
the same command may go on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import resource
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from streamup.client.progress import CLEAR, choose
from streamup.client.proof import Finding, Verdict, conclude
from streamup.client.reading import PARALLEL
from streamup.client.remote import Remote, RemoteError, Upload
from streamup.client.table import human_size, printable, upload_details, uploads_table
from streamup.config import (
    OPTIONS,
    Config,
    Option,
    build,
    parse_duration,
    parse_token,
    parse_url,
    read_secret,
    read_toml,
)
from streamup.errors import (
    AccessDenied,
    ConfigError,
    Different,
    Interrupted,
    StateDirectoryError,
    StoreError,
    StoreUnavailable,
    StreamupError,
)

if TYPE_CHECKING:
    from streamup.client.transfer import Way
    from streamup.local import LocalStore
    from streamup.stores.s3 import S3Store
    from streamup.uploader import Uploader

T = TypeVar("T")

PROBE_SECONDS = 15.0
"""How long a start waits for the store to say what it can do."""

PROBE_AGAIN_SECONDS = 3.0

log = logging.getLogger("streamup")


class Failure(click.ClickException):
    """What went wrong, in one line on stderr."""

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {printable(self.message)}", file=file, err=file is None)


class Refusal(Failure):
    """It was not begun, because something must be said or set first."""

    exit_code = 2


class Interruption(Failure):
    """It did not work now, and nothing is lost by that."""

    exit_code = 3


# --- options: flag, then environment, then TOML, then default


class Written(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """A value as `config.py` parses it, wherever it was written."""

    def __init__(self, parse: Callable[[str], Any], metavar: str = "TEXT") -> None:
        self.name = metavar
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(str(value))
        except ConfigError as error:
            self.fail(f"{_whence(param, ctx)}{error}", param, ctx)

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Several values in one variable stand apart by commas or white space."""
        return rv.replace(",", " ").split()


def _whence(param: click.Parameter | None, ctx: click.Context | None) -> str:
    """Where a wrong value is to be mended, if not on the command line."""
    source = ctx.get_parameter_source(param.name) if param and param.name and ctx else None
    if param and source is ParameterSource.ENVIRONMENT:
        return f"(from {param.envvar} in the environment) "
    return "(from the --config file) " if source is ParameterSource.DEFAULT_MAP else ""


class SecretOption(click.Option):
    """An option that is found in a file, too, whose path is in `STREAMUP_…_FILE`: an environment is easily shown."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        file_variable = f"{self.envvar}_FILE"
        path = os.environ.get(file_variable)
        value = super().resolve_envvar_value(ctx)
        if not path:
            return value
        if value:
            raise click.UsageError(f"Both {self.envvar} and {file_variable} are set. Keep one of them.", ctx)
        try:
            return read_secret(Path(path), file_variable)
        except ConfigError as error:
            raise click.UsageError(str(error), ctx) from error


def _parameter(field: str, option: Option, *, hidden: bool = False) -> click.Option:
    """One row of the table in `config.py` as click wants it."""
    kind = SecretOption if option.secret else click.Option
    flag = f"--{option.name}/--no-{option.name}" if option.negatable else f"--{option.name}"
    if option.parse is None:
        return kind(
            [flag, field], is_flag=True, default=option.default, envvar=option.variable, help=option.help, hidden=hidden
        )
    return kind(
        [flag, field],
        type=Written(option.parse, option.metavar),
        metavar=option.metavar,
        multiple=option.multiple,
        default=option.default,
        show_default=option.default is not None,
        envvar=option.variable,
        help=option.help,
        hidden=hidden,
    )


def _read_config_file(ctx: click.Context, _: click.Parameter, path: Path | None) -> Any:
    """Eager, so that what the file says is there as defaults when the other options are looked at. Its value is what
    only the file can say: the options of prefixes.
    """
    if path is None:
        return {}
    try:
        values = read_toml(path)
    except ConfigError as error:
        raise click.UsageError(str(error), ctx) from error
    prefixes = values.pop("prefixes", {})
    ctx.default_map = values
    return prefixes


_CONFIG_FILE = click.Option(
    ["--config", "prefixes"],
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar="STREAMUP_CONFIG",
    is_eager=True,
    callback=_read_config_file,
    help='Options by their names, as TOML: part-size = "16MiB". What goes with objects may differ by prefix: '
    '[prefix."recordings/"]',
)


# --- logging


class TextLines(logging.Formatter):
    """A line for each record. A traceback's lines are indented, so that no message can forge a record."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = f"{time} {record.levelname.lower():8} {record.name}: {printable(record.getMessage())}"
        if record.exc_info:
            traceback = self.formatException(record.exc_info).split("\n")
            line = "\n    ".join([line, *map(printable, traceback)])
        return line


class JsonLines(logging.Formatter):
    """A JSON object for each record, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(record.getMessage()),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _start_logging(log_format: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # It logs a traceback for each malformed request, so anybody could fill the disk. Faults of ours we log ourselves.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    # It logs each search for credentials, and a traceback for each that fails. What came of it we say.
    logging.getLogger("aiobotocore.credentials").setLevel(logging.CRITICAL)


# --- serve


async def serve(config: Config) -> None:
    """Run the service until SIGTERM or SIGINT; a second one ends the process at once (law 1: nothing is lost).

    What starts later is stopped earlier: the listener first, the embedded store last.
    """
    _raise_descriptors()
    stop = asyncio.create_task(_stop_signal().wait(), name="stop signal")
    async with AsyncExitStack() as stack:
        # A task of its own, so that a signal also ends a start that waits for a store which does not answer.
        start = asyncio.create_task(_start(config, stack), name="start")
        await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            return
        click.echo(_welcome(config, await start))
        await stop
        log.info("stopping: no new requests, and %g s for parts on their way", config.grace_seconds)


def _raise_descriptors() -> None:
    """As many open files as we may have: each client takes one, and the usual 1,024 are soon gone."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS calls it unlimited, and then refuses that
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _stop_signal() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT. The second has its default effect again: it ends even a loop that hangs."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopped


async def _start(config: Config, stack: AsyncExitStack) -> str:
    """Bring the rooms up, each with its end on the `stack`. Returns the server's URL.

    The checkpoint comes first: its lock refuses a second process on the same state directory.
    """
    # Imported here: `ls` and its like need none of it, and botocore alone takes half a second.
    from streamup.checkpoint import Checkpoint  # noqa: PLC0415
    from streamup.recovery import boot_id  # noqa: PLC0415
    from streamup.server import Server  # noqa: PLC0415
    from streamup.spool import Files, Spool  # noqa: PLC0415
    from streamup.uploader import Uploader  # noqa: PLC0415
    from streamup.uploads import Uploads  # noqa: PLC0415

    directory = _state_directory(config.data)
    checkpoint = Checkpoint(config.data / "checkpoint.sqlite", stack.enter_context(ThreadPoolExecutor(1, "checkpoint")))
    await checkpoint.open()
    stack.push_async_callback(checkpoint.close)
    store = await _open_store(config, stack)
    files = Files()
    jitter = random.Random()  # noqa: S311 - spreads retries, protects nothing
    uploader = Uploader(store, checkpoint, files, parallel_parts=config.parallel_parts, clock=time.time, jitter=jitter)
    await _ask_store(store, uploader, stack)
    spool = Spool(directory, config.spool_bytes, files, floor=config.disk_floor_bytes)
    # Hexadecimal: an id may begin a word on the command line, and a "-" there would be an option.
    uploads = Uploads(config, uploader, checkpoint, spool, clock=time.time, random_token=lambda: secrets.token_hex(16))
    server = Server(config, uploads, store)
    await uploads.recover(boot_id())
    stack.push_async_callback(server.stop)
    await server.start()
    return _url(config, server.addresses[0][1])


def _state_directory(data: Path) -> Path:
    """The spool's directory below `data`. Nobody else may look in."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        spool = data / "spool"
        spool.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--data {data} cannot be used: {error}. Choose a directory that this user can write."
        ) from error
    return spool


async def _open_store(config: Config, stack: AsyncExitStack) -> S3Store:
    """The store, and what it can do."""
    from streamup.local import LocalStore  # noqa: PLC0415 - as in _start

    local = await stack.enter_async_context(LocalStore(config.data, config.bucket)) if config.local else None
    return await stack.enter_async_context(_store(config, local))


def _store(config: Config, local: LocalStore | None = None) -> S3Store:
    """The store that is configured; not entered yet."""
    from streamup.stores.s3 import S3Store  # noqa: PLC0415 - as in _start

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
    )


async def _ask_store(store: S3Store, uploader: Uploader, stack: AsyncExitStack) -> None:
    """Find out what the store can do before anything is sent to it. A store that is away now is asked again later:
    streams go on while it is away, and so they must when this process is restarted meanwhile.
    """
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await _probe(store)
    except (StoreUnavailable, TimeoutError) as error:
        log.warning("the store cannot be asked now; uploads are taken, and wait in the spool: %s", error or "no answer")
        uploader.opened.clear()
        later = asyncio.create_task(_probe_later(store, uploader), name="probe")
        stack.callback(later.cancel)


async def _probe(store: S3Store) -> None:
    from streamup.stores.probe import probe  # noqa: PLC0415 - as in _start

    for shortcoming in await probe(store):
        log.warning("%s", shortcoming)


async def _probe_later(store: S3Store, uploader: Uploader) -> None:
    while not uploader.opened.is_set():
        await asyncio.sleep(PROBE_AGAIN_SECONDS)
        try:
            await _probe(store)
        except StoreUnavailable:
            continue
        except (ConfigError, StoreError) as error:
            log.error("%s", error)  # noqa: TRY400 - a sentence for the operator, not a fault of ours
        else:
            uploader.opened.set()
            log.info("the store answers; what waited in the spool is sent")


def _url(config: Config, port: int) -> str:
    """Where this machine reaches the server that listens on `port`."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.listen[0], config.listen[0])  # noqa: S104 - not bound
    return f"{'https' if config.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _welcome(config: Config, url: str) -> str:
    """What to try, and where things are."""
    bucket = f"s3://{config.bucket}/{config.prefix}"
    key = ' -H "Authorization: Bearer $KEY"' if config.api_key_sha256 else ""
    return "\n".join(
        [
            f"streamup listens on {url} and stores objects in {'a store of its own' if config.local else bucket}",
            f"{'objects, ' if config.local else ''}state and spool are in {config.data.resolve()}",
            "",
            "try:",
            f"  curl{key} -T FILE {url}/objects/",
            f"  ffmpeg -i INPUT -f mpegts - | curl{key} -T - {url}/objects/live.ts",
            f"  curl{key} -I {url}/objects/live.ts    # interrupted? how far it has come",
        ]
    )


def _new_event_loop(config: Config) -> asyncio.AbstractEventLoop:
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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamup")
def main() -> None:
    """Stream HTTP bodies of unknown length into S3, and lose none of their bytes."""


def _serve(store: str | None, **values: Any) -> None:
    """Receive uploads over HTTP and store them as objects in s3://BUCKET/PREFIX, or with --local on this machine.

    Every option is also a variable in the environment (--part-size: STREAMUP_PART_SIZE) and a key of the TOML file
    (part-size); a flag goes before the environment, and that before the file. Sizes and durations take units.
    """
    try:
        config = build(store, values)
        _start_logging(config.log_format)
        with asyncio.Runner(loop_factory=partial(_new_event_loop, config)) as runner:
            runner.run(serve(config))
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except StreamupError as error:
        raise Failure(str(error)) from error


_STORE = click.Argument(["store"], required=False, envvar="STREAMUP_STORE", metavar="[s3://BUCKET/PREFIX]")
main.add_command(
    click.Command(
        "serve",
        callback=_serve,
        help=_serve.__doc__,
        params=[_STORE, _CONFIG_FILE, *(_parameter(field, option) for field, option in OPTIONS.items())],
    )
)


# --- commands about a store, with the options of `serve`


def _store_command(name: str, callback: Callable[..., None], shown: Sequence[str], *own: click.Parameter) -> None:
    """A command that takes `serve`'s command line, environment and file as they are, and shows what it looks at."""
    options = [_parameter(field, option, hidden=field not in shown) for field, option in OPTIONS.items()]
    params = [_STORE, *own, _CONFIG_FILE, *options]
    main.add_command(click.Command(name, callback=callback, help=callback.__doc__, params=params))


def _store_config(store: str | None, values: Mapping[str, Any]) -> Config:
    try:
        config = build(store, values)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    if config.local:
        raise click.UsageError(
            "--local has a store of its own, which needs no such care. Name one: s3://BUCKET/PREFIX."
        )
    return config


_JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON: one line for each row, and one at the end.")
_DOCTOR_SHOWN = (
    *("s3_endpoint_url", "s3_path_style", *(field for field, option in OPTIONS.items() if option.per_prefix)),
    *("checksum", "layout", "expire_seconds", "interrupted", "downloads", "deletes", "cors_origins"),
)


def _doctor(store: str | None, *, as_json: bool, **values: Any) -> None:
    """Check that s3://BUCKET/PREFIX allows and keeps what streamup needs, and say what to do where it does not.

    Takes the options of `streamup serve`, also those that are not shown here. Writes under one random key,
    and removes that again. Exit code: 0 everything needed is there, 1 something is missing, 2 wrong usage, 3 the store
    cannot be asked now.
    """
    from streamup.client.doctor import Doctor, as_line, ending, row  # noqa: PLC0415 - as in _start

    config = _store_config(store, values)
    doctor = Doctor(config, _store, lambda finding: click.echo(as_line(finding) if as_json else row(finding)))
    problem = None

    async def examine() -> None:
        stop = asyncio.create_task(_stop_signal().wait())
        examination = asyncio.create_task(doctor.examine())
        await asyncio.wait({stop, examination}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        examination.cancel()  # if it is not done: it cleans up, unless a second signal comes
        await examination

    try:
        asyncio.run(examine())
    except StoreUnavailable as error:
        problem = f"The store cannot be asked now: {error}"
    except StreamupError as error:
        raise Failure("\n".join([str(error), *doctor.report.left_behind])) from error
    except asyncio.CancelledError:
        problem = "Interrupted."
    report = doctor.report
    if as_json:
        summary = {"healthy": problem is None and report.healthy, "problem": problem}
        click.echo(
            json.dumps({**summary, "documents": report.documents, "left_behind": report.left_behind}, default=str)
        )
    elif problem is None:
        click.echo("\n" + ending(report, config))
    if problem is not None:
        raise Interruption("\n".join([problem, *report.left_behind]))
    sys.exit(0 if report.healthy else 1)


_store_command("doctor", _doctor, _DOCTOR_SHOWN, _JSON)

_SWEEP_SHOWN = ("s3_endpoint_url", "s3_path_style", "data", "admin_listen")
_OURS_ALONE = "--prefix-is-ours-alone"


def _sweep(
    store: str | None,
    *,
    delete: bool,
    older_than: float | None,
    ours_alone: bool,
    state_is_lost: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """List multipart uploads below s3://BUCKET/PREFIX, and part files in the spool, that no upload knows.

    Takes the options of `streamup serve`, also those that are not shown here. The server may run: then it is asked what
    it knows. With --delete they are removed. No store can tell whose an unfinished upload is: beside another server, or
    another program, that stores below the same prefix, that would destroy what they are uploading. Exit code: 0 done,
    1 something was not removed, 2 wrong usage, or what is ours cannot be known, 3 the store cannot be asked now.
    """
    from streamup.client.sweep import Refused, Removal, Sweep  # noqa: PLC0415 - as in _start

    if delete and (older_than is None or not ours_alone):
        raise click.UsageError(
            f"--delete goes with --older-than TIME (for example 7d) and with {_OURS_ALONE}: your word that nothing but "
            "the server of --data stores below this prefix. Another's unfinished uploads look like orphans here."
        )
    config = _store_config(store, values)
    removal = Removal(timedelta(seconds=older_than or 0)) if delete else None

    sweep = Sweep(config, lambda orphan: click.echo(orphan.as_line() if as_json else str(orphan)), removal=removal)

    async def run() -> None:
        async with _store(config) as opened:
            await sweep.run(opened, state_is_lost=state_is_lost)

    try:
        asyncio.run(run())
    except (Refused, StateDirectoryError) as error:
        raise Refusal(str(error)) from error
    except AccessDenied as error:
        raise Failure(f"{error}. streamup doctor says what to allow.") from error
    except StoreUnavailable as error:
        raise Interruption(f"The store cannot be asked now: {error}") from error
    except KeyboardInterrupt:
        raise Interruption("Interrupted. What was removed until then is above.") from None
    except StreamupError as error:
        raise Failure(str(error)) from error
    click.echo(json.dumps(asdict(sweep.summary)) if as_json else f"\n{sweep.summary}", err=not as_json)
    sys.exit(1 if sweep.summary.left else 0)


_store_command(
    "sweep",
    _sweep,
    _SWEEP_SHOWN,
    click.Option(["--delete"], is_flag=True, help="Remove them."),
    click.Option(
        ["--older-than"],
        type=Written(parse_duration, "TIME"),
        metavar="TIME",
        help="With --delete: none that is younger.",
    ),
    click.Option([_OURS_ALONE, "ours_alone"], is_flag=True, help="With --delete: your word for it."),
    click.Option(["--state-is-lost"], is_flag=True, help="The state directory is gone for good: no upload is known."),
    _JSON,
)


# --- commands against a running server


_token_option = click.option(
    "--token",
    cls=SecretOption,
    type=Written(parse_token, "TOKEN"),
    envvar="STREAMUP_TOKEN",
    help="Credential. A command line is visible to other users: better STREAMUP_TOKEN or STREAMUP_TOKEN_FILE.",
)


def _remote_options(command: Callable[..., None]) -> Callable[..., None]:
    server = click.option(
        "--server",
        type=Written(parse_url, "URL"),
        metavar="URL",
        default="http://127.0.0.1:8080",
        show_default=True,
        envvar="STREAMUP_SERVER",
        help="The streamup server.",
    )
    return server(_token_option(command))


def _ask(server: str, token: str | None, question: Callable[[Remote], Awaitable[T]]) -> T:
    """What the server answers to `question`."""

    async def ask() -> T:
        async with Remote(server, token) as remote:
            return await question(remote)

    try:
        return asyncio.run(ask())
    except RemoteError as error:
        raise (Interruption if error.again else Failure)(str(error)) from error


@main.command()
@_remote_options
@click.option("--all", "everything", is_flag=True, help="Also those that have ended.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls(server: str, token: str | None, *, everything: bool, as_json: bool) -> None:
    """List unfinished and failed uploads."""
    uploads = _ask(server, token, lambda remote: remote.uploads())
    shown = [u for u in uploads if everything or u["state"] not in ("complete", "cancelled", "expired")]
    if as_json:
        click.echo(json.dumps(shown, indent=2))
    elif shown:
        click.echo(uploads_table(shown))
    else:
        click.echo("No uploads." if everything else "No unfinished uploads.", err=True)


@main.command()
@_remote_options
@click.argument("upload", metavar="ID|KEY")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every part.")
def status(server: str, token: str | None, upload: str, *, as_json: bool) -> None:
    """Look at an upload. This never disturbs it."""
    found = _ask(server, token, lambda remote: remote.find(upload))
    click.echo(json.dumps(found, indent=2) if as_json else upload_details(found))


@main.command()
@_remote_options
@click.argument("upload", metavar="ID|KEY")
@click.option("--force", is_flag=True, help="Even if a client is sending now. It is cut off.")
def finish(server: str, token: str | None, upload: str, *, force: bool) -> None:
    """Complete an interrupted upload with the bytes that have arrived."""

    async def ask(remote: Remote) -> tuple[Upload, Upload | None]:
        found = await remote.find(upload)
        return found, await remote.finish(found, force=force)

    found, stored = _ask(server, token, ask)
    if stored is None:
        click.echo(
            f"{printable(found['key'])} is sealed, and every byte of it is safe at the server. It completes when the "
            f"store takes it: streamup status {found['id']}"
        )
    else:
        click.echo(f"{printable(stored['key'])} is complete: {human_size(stored['size'])}, ETag {stored['etag']}")


@main.command()
@_remote_options
@click.argument("upload", metavar="ID|KEY")
def cancel(server: str, token: str | None, upload: str) -> None:
    """Give an upload up. Its bytes are gone."""

    async def ask(remote: Remote) -> Upload:
        found = await remote.find(upload)
        await remote.cancel(found["id"])
        return found

    found = _ask(server, token, ask)
    click.echo(f"{found['id']} ({printable(found['key'])}) is cancelled.")


# --- objects and files


def _transfer_options(command: Callable[..., None]) -> Callable[..., None]:
    """How to reach the object, and what to show."""
    of_the_store = [_parameter(field, OPTIONS[field]) for field in ("s3_path_style", "s3_endpoint_url", "sse_c_key")]
    options = [
        click.option("--etag", is_flag=True, help="Compute the ETag (MD5), too, where there is a better checksum."),
        click.option(
            "-n",
            "--parallel",
            type=click.IntRange(1, 64),
            default=PARALLEL,
            show_default=True,
            help="Requests at a time.",
        ),
        _token_option,
        click.option("-q", "--quiet", is_flag=True, help="Say nothing but warnings and errors."),
        click.option("--json", "as_json", is_flag=True, help="Print a JSON line a second, and one at the end."),
    ]
    for option in reversed(options):
        command = option(command)
    command.__click_params__ += of_the_store  # type: ignore[attr-defined]  # as click's decorators do it
    return command


@main.command()
@click.argument("source", metavar="s3://BUCKET/KEY|URL")
@click.argument("file")
@_transfer_options
def get(source: str, file: str, *, etag: bool, **options: Any) -> None:
    """Download an object to FILE (or into a directory), verified against the checksums that the store keeps.

    Interrupted, by whatever, the same command goes on. FILE only ever shows what has been verified.
    """
    from streamup.client.transfer import get as download  # noqa: PLC0415 - as in _start

    path, outcome = _transfer(download(source, file, _way(**options), etag=etag))
    shown = printable(str(path))
    if not outcome.proven:
        click.echo(f"warning: of {shown} nothing but the size could be verified", err=True)
    resumed = f", {human_size(outcome.resumed)} of it earlier" if outcome.resumed else ""
    rate = human_size((outcome.size - outcome.resumed) / max(outcome.seconds, 1e-9))
    head = f"{shown}: {human_size(outcome.size)} in {outcome.seconds:.1f} s ({rate}/s){resumed}"
    numbers = {"file": str(path), "size": outcome.size, "resumed": outcome.resumed, "seconds": outcome.seconds}
    _report(head, outcome.findings, numbers, **options)


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.argument("source", metavar="s3://BUCKET/KEY|URL")
@click.option("--read", is_flag=True, help="Read the object and compare every byte, whatever the store says of it.")
@_transfer_options
def verify(file: str, source: str, *, etag: bool, read: bool, **options: Any) -> None:
    """Is FILE that object? Answered from the checksums that the store keeps, else by reading the object.

    Exit code 0 if it is proven, 1 if they differ, 3 if it cannot be found out now.
    """
    from streamup.client.transfer import verify as compare  # noqa: PLC0415 - as in _start

    findings = _transfer(compare(file, source, _way(**options), etag=etag, read=read), what=f"{file} is not {source}: ")
    _report(f"{printable(file)} is {printable(source)}", findings, {"file": file}, **options)


def _way(*, quiet: bool, as_json: bool, **reach: Any) -> Way:
    from streamup.client.transfer import Way  # noqa: PLC0415 - as in _start

    def say(text: str) -> None:
        click.echo(f"{CLEAR if show else ''}{printable(text)}", err=True)

    show = choose(quiet=quiet, as_json=as_json)
    renamed = {"s3_endpoint_url": "endpoint_url", "s3_path_style": "path_style"}
    return Way(show=show, say=say, **{renamed.get(name, name): value for name, value in reach.items()})


def _transfer(work: Coroutine[Any, Any, T], what: str = "") -> T:
    """Run it to its end. The first SIGINT or SIGTERM ends it in order: the same command goes on."""

    async def stoppable() -> T:
        stop = asyncio.create_task(_stop_signal().wait(), name="stop signal")
        task = asyncio.ensure_future(work)
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        return await task

    try:
        return asyncio.run(stoppable())
    except asyncio.CancelledError:
        raise Interruption("Interrupted. The same command goes on where this ended.") from None
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except Different as error:
        raise Failure(f"{what}{error}") from error
    except (Interrupted, StoreUnavailable) as error:
        raise (Failure if isinstance(error, AccessDenied) else Interruption)(str(error)) from error
    except StreamupError as error:
        raise Failure(str(error)) from error


def _report(
    head: str, findings: Sequence[Finding], numbers: dict[str, Any], *, quiet: bool, as_json: bool, **_: Any
) -> None:
    """What was proven by what, and what could not be."""
    if as_json:
        listed = [{"verdict": finding.verdict.value, "words": finding.words} for finding in findings]
        proven = conclude(findings) is Verdict.PROVEN
        click.echo(json.dumps({"phase": "done", **numbers, "proven": proven, "findings": listed}))
    elif not quiet:
        marks = {Verdict.PROVEN: "proven by", Verdict.OPEN: "not by"}
        click.echo("\n".join([head, *(f"  {marks[one.verdict]} {printable(one.words)}" for one in findings)]))
