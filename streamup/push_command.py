"""`streamup push`: files, a pipe, or the output of a command, to a server."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import click

from streamup.client.destination import OBJECTS, Destination, is_url, pair, parse_destination
from streamup.client.progress import Lines, choose
from streamup.client.table import human_size, printable, sentence
from streamup.errors import BadRequest, ConfigError
from streamup.exits import Failure, Interruption
from streamup.keys import validate_key
from streamup.options import DEFAULT_SERVER, Written, renewable, server_options
from streamup.protocols import fields
from streamup.signals import run_stoppable
from streamup.values import parse_duration, parse_pair, parse_size

if TYPE_CHECKING:
    from streamup.client import Client, ClientError
    from streamup.client.live import Outcome, Piped, Source
    from streamup.client.pipe import Pipe
    from streamup.client.pushes import FileOutcome

PARALLEL = 2
"""Files at a time: the second one fills the pauses of the first, and each of them gets on."""

_OF_FILES = ("parallel", "afresh")
_OF_STREAMS = ("backlog_size", "backlog_dir", "allow_empty", "ok_codes", "on_failure")
"""Options that mean nothing to the others."""

_COMMAND = "streamup.command"
"""Where click's context keeps what follows `--`."""

NOT_FOUND = 127
NOT_EXECUTABLE = 126
"""A command that cannot be started, as shells, `env` and `timeout` tell it."""


class Push(click.Command):
    """What follows `--` is a command with options of its own, and none of click's business."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[_COMMAND] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)


@dataclass(frozen=True)
class Terms:
    """What is the same for all that is pushed."""

    token: str | Callable[[], str] | None
    content_type: str | None
    metadata: Mapping[str, str]
    patience: float
    as_json: bool
    quiet: bool

    def lines(self) -> Lines:
        return choose(quiet=self.quiet, as_json=self.as_json)


@click.command(cls=Push)
@click.argument("words", nargs=-1, metavar="SRC... URL | - URL | URL -- COMMAND...")
@server_options
@click.option("--content-type", metavar="TYPE", help="Stored with the object.")
@click.option(
    "--meta",
    type=Written(parse_pair, "NAME=VALUE"),
    metavar="NAME=VALUE",
    multiple=True,
    help="Stored with the object, as x-amz-meta-NAME. Repeatable.",
)
@click.option(
    "--patience",
    type=Written(parse_duration, "TIME"),
    metavar="TIME",
    default="1d",
    show_default=True,
    help="Give up when there has been no progress for so long.",
)
@click.option(
    "--backlog-size",
    type=Written(parse_size, "SIZE"),
    metavar="SIZE",
    default="10GiB",
    show_default=True,
    help="Of a stream: how much may be kept in a temporary file, while the server is away. Then the producer waits.",
)
@click.option(
    "--backlog-dir",
    type=click.Path(exists=True, file_okay=False, writable=True),
    metavar="DIR",
    help="Where that file is, in place of TMPDIR or /var/tmp.",
)
@click.option("--allow-empty", is_flag=True, help="Of a stream without a byte make an object, too.")
@click.option(
    "--ok-code",
    "ok_codes",
    type=click.IntRange(0, 255),
    metavar="N",
    multiple=True,
    help="An exit code of the command that means success, beside 0. Repeatable. (ffmpeg: 255 after Ctrl-C.)",
)
@click.option(
    "--on-failure",
    type=click.Choice(["keep", "cancel"]),
    default="keep",
    show_default=True,
    help="What becomes of the upload when the command fails.",
)
@click.option(
    "-j",
    "--parallel",
    type=click.IntRange(1, 64),
    default=PARALLEL,
    show_default=True,
    metavar="N",
    help="Files at a time.",
)
@click.option("--afresh", is_flag=True, help="Give up what an earlier push of these files has sent, and begin anew.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but warnings and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line a second, and one at the end.")
@click.pass_context
def push(ctx: click.Context, /, words: tuple[str, ...], *, server: str, token: str | None, **options: Any) -> None:
    """Send files or a stream to a server, and go on after whatever happens in between.

    \b
    streamup push SRC... URL                 files
    producer | streamup push - URL           a pipe, for as long as it lasts
    streamup push URL -- COMMAND ARGS...     the output of a command; complete only if that exits with 0

    URL is http://HOST/objects/KEY. Files may go to one that ends in / and are called there what they are called here;
    without a URL they go to --server.

    Files: interrupted, by whatever, the same command goes on, also after a reboot. What the server has is compared with
    the file first, and a file that has changed meanwhile is refused.

    Streams: what the server has not made durable is kept here, in memory and then in a temporary file; the producer
    only ever sees a slow pipe. URL may be a KEY if the server is named otherwise.

    Ctrl-C: a pipe is sent to its end, but its upload stays open, since nobody knows whether that is all. A command ends
    in its own way, and its exit code decides.

    Exit code: 0 done, 1 (one of them) failed for good, 2 wrong usage, 3 interrupted, and what arrived is kept: the same
    command goes on with files; with COMMAND that of the command, 127 if there is none of that name, 126 if it cannot be
    started.
    """  # noqa: D301 - click's mark for lines that stay as they are is that very character
    command: tuple[str, ...] | None = ctx.meta.get(_COMMAND)
    explicit = ctx.get_parameter_source("server") is not click.core.ParameterSource.DEFAULT
    if not words:
        raise click.UsageError("Where to? Name a destination: http://127.0.0.1:8080/objects/KEY.")
    live = command is not None or words[:-1] == ("-",)
    _require_apt(ctx, _OF_FILES if live else _OF_STREAMS, "files" if live else "streams")
    if live:
        sources: Sequence[str] = words[:-1]
        destination = _destination(words[-1], server if explicit else None)
    else:
        sources, destination = _files_and_destination(words, server)
    about = {name: options.pop(name) for name in ("content_type", "patience", "as_json", "quiet")}
    _require_type(about["content_type"])
    terms = Terms(destination.token or renewable(ctx, token), metadata=dict(options.pop("meta")), **about)
    of_files = {name: options.pop(name) for name in _OF_FILES}
    if command is not None and (sources or not command):
        raise click.UsageError("With a command it is: streamup push URL -- COMMAND ARGS...")
    if live:
        _live(destination, terms, command, **options)
    _files(sources, destination, terms, **of_files)


def _destination(word: str, server: str | None) -> Destination:
    if not is_url(word):
        if server is None:
            raise click.UsageError(f"{word!r} is no URL. Write it as http://127.0.0.1:8080/objects/KEY.")
        word = f"{server.rstrip('/')}{OBJECTS}{quote(word)}"
    try:
        return parse_destination(word)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def _require_type(content_type: str | None) -> None:
    try:
        fields.described_type("--content-type", content_type)
    except BadRequest as error:
        raise click.UsageError(error.detail) from error


def _require_apt(ctx: click.Context, inapt: Collection[str], others: str) -> None:
    """Refuse options that would be overlooked."""
    for parameter in ctx.command.params:
        given = ctx.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
        if given and parameter.name in inapt:
            raise click.UsageError(f"{parameter.opts[-1]} is for {others} only.")


# --- files


def _files_and_destination(words: Sequence[str], server: str) -> tuple[Sequence[str], Destination]:
    """What is to be sent, and where to: without a URL to the server that is named otherwise."""
    if not is_url(words[-1]):
        if len(words) > 1 and OBJECTS in words[-1] and not Path(words[-1]).exists():
            raise click.UsageError(f"{printable(words[-1])} is no file, and no URL. Write it as http://{words[-1]}")
        words = [*words, f"{server.rstrip('/')}{OBJECTS}"]
    *sources, url = words
    if not sources:
        raise click.UsageError("Which files? It is: streamup push SRC... URL, or: streamup push - URL for a pipe.")
    if "-" in sources:
        raise click.UsageError("Standard input goes alone: streamup push - URL. A file that is called - is ./-")
    if several := [source for source in sources if is_url(source)]:
        raise click.UsageError(f"One destination at a time: {printable(several[0])} is a second one.")
    return sources, _destination(url, None)


def _files(sources: Sequence[str], destination: Destination, terms: Terms, *, parallel: int, afresh: bool) -> NoReturn:
    """Push files, and end with the exit code that tells what has become of all of them."""
    from streamup.client.pushes import FileOutcome, Pushes  # noqa: PLC0415 - as `cli` says
    from streamup.client.unfinished import Notes, state_directory  # noqa: PLC0415 - as above

    try:
        pairs = pair(sources, destination)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    lines = terms.lines()
    outcomes: list[FileOutcome] = []

    def report(outcome: FileOutcome) -> None:
        outcomes.append(outcome)
        _say(outcome, lines, quiet=terms.quiet or terms.as_json)

    notes = Notes(state_directory())
    notes.bound()
    about = {"content_type": terms.content_type, "metadata": terms.metadata, "patience": terms.patience}
    pushes = Pushes(pairs, terms.token, notes, lines, report, parallel=parallel, afresh=afresh, about=about)
    try:
        left = run_stoppable(pushes.run())
    except asyncio.CancelledError:
        raise Interruption("Interrupted. The same command goes on where this ended.") from None
    finally:
        if terms.as_json:
            known = {outcome.path for outcome in outcomes}
            open_ = (FileOutcome(*one, error="Interrupted.", again=True) for one in pairs if one[0] not in known)
            click.echo("\n".join(json.dumps(_told(outcome)) for outcome in (*outcomes, *open_)))
    if left:
        lines.say(f"{left} more {'file was' if left == 1 else 'files were'} not begun.")
    failed = [outcome.again for outcome in outcomes if outcome.pushed is None]
    sys.exit(0 if not failed else Interruption.exit_code if all(failed) else Failure.exit_code)


def _told(outcome: FileOutcome) -> dict[str, Any]:
    """What has become of a file, for programs."""
    about, pushed = {"file": outcome.path, "key": outcome.destination.key}, outcome.pushed
    if pushed is None:
        return {"phase": "failed", **about, "error": outcome.error, "again": outcome.again}
    numbers = {"size": pushed.size, "resumed": pushed.resumed, "seconds": round(pushed.seconds, 3)}
    proof = {"checksum": pushed.checksum, "etag": pushed.etag, "upload": pushed.upload_id}
    return {"phase": "done", **about, **numbers, **proof}


def _say(outcome: FileOutcome, lines: Lines, *, quiet: bool) -> None:
    """... and for people, in one line."""
    name, pushed = outcome.path, outcome.pushed
    if pushed is None:
        going_on = " The same command goes on." if outcome.again else ""
        lines.say(f"error: {name}: {sentence(outcome.error)}{going_on}")
    elif quiet:
        return
    elif pushed.etag is None:
        lines.tell(
            f"{name}: every one of {pushed.size} bytes is safe at the server. It completes when the store takes them: "
            f"streamup status --server {outcome.destination.server} {pushed.upload_id}"
        )
    elif pushed.resumed == pushed.size > 0:
        lines.tell(f"{name}: all {human_size(pushed.size)} of it were sent earlier")
    else:
        rate = human_size((pushed.size - pushed.resumed) / max(pushed.seconds, 1e-9))
        resumed = f", {human_size(pushed.resumed)} of it earlier" if pushed.resumed else ""
        lines.tell(f"{name}: {human_size(pushed.size)} in {pushed.seconds:.1f} s ({rate}/s){resumed}")


# --- a live stream


def _live(
    destination: Destination,
    terms: Terms,
    command: Sequence[str] | None,
    *,
    ok_codes: Sequence[int],
    on_failure: str,
    **options: Any,
) -> NoReturn:
    """Push a stream, and end with the exit code that tells what has become of it."""
    if destination.takes_names:
        raise click.UsageError(f"A stream has no name: {destination} needs a key behind it.")
    try:
        validate_key(destination.key, "")
    except BadRequest as error:
        raise click.UsageError(f"{destination}: {error.detail}") from error
    stream = _Stream(destination, terms, **options)
    work = _piped(stream) if command is None else _produced(stream, command, ok_codes, on_failure)
    sys.exit(asyncio.run(work))


@dataclass(frozen=True)
class _Stream:
    """What a stream's push consists of."""

    destination: Destination
    terms: Terms
    backlog_size: int
    backlog_dir: str | None
    allow_empty: bool

    def pipe(self, descriptor: int, lines: Lines) -> Pipe:
        """A pipe that is being read."""
        from streamup.client.backlog import MEMORY_BYTES, Backlog  # noqa: PLC0415 - as `cli` says
        from streamup.client.pipe import Pipe  # noqa: PLC0415 - as above

        def full_disk(error: OSError) -> None:
            lines.say(f"No more of the stream can be kept on disk ({error.strerror}): its producer may have to wait.")

        pipe = Pipe(descriptor, Backlog(MEMORY_BYTES, self.backlog_size, self.backlog_dir, full_disk=full_disk))
        pipe.start()
        return pipe

    async def send(self, source: Source, client: Client, lines: Lines) -> Outcome:
        from streamup.client import live  # noqa: PLC0415 - as `cli` says
        from streamup.client.sending import Progress, Sending  # noqa: PLC0415 - as above

        def begin(tell: Callable[[Progress], None]) -> Sending:
            return Sending(
                client,
                source.pipe,
                self.destination.key,
                content_type=self.terms.content_type,
                metadata=self.terms.metadata,
                patience=self.terms.patience,
                tell=tell,
            )

        return await live.send(source, begin, lines, self.destination.key, allow_empty=self.allow_empty)

    def ended(self, outcome: Outcome, seconds: float) -> None:
        """Say that it is done."""
        key, size = self.destination.key, outcome.durable
        if self.terms.as_json:
            etag = outcome.stored and outcome.stored["etag"]
            about = {"name": key, "upload": outcome.upload_id, "size": size, "seconds": round(seconds, 3)}
            click.echo(json.dumps({"phase": "done", **about, "etag": etag}))
        elif not self.terms.quiet and outcome.stored is None:
            click.echo(
                f"{printable(key)}: every one of {size} bytes is safe at the server. It completes when the store takes "
                f"them: {self.way('status', outcome)}"
            )
        elif not self.terms.quiet:
            rate = human_size(size / max(seconds, 1e-9))
            click.echo(f"{printable(key)}: {human_size(size)} in {seconds:.1f} s ({rate}/s)")

    def failed(self, outcome: Outcome, why: str, kind: type[Failure]) -> Failure:
        """What to raise, or to show. `why` ends with a full stop."""
        words = why
        if outcome.upload_id is not None:
            lost = outcome.read - outcome.durable
            words += f" {outcome.durable} bytes are safe at the server" + (f", {lost} are lost" if lost else "")
            kept = not outcome.error or getattr(outcome.error, "again", False)
            tells = f"{self.way('finish', outcome)} makes an object of them"
            words += f". {tells if kept else self.way('status', outcome) + ' tells what is left'}."
        failure = kind(words)
        if self.terms.as_json:
            click.echo(json.dumps({"phase": "failed", "error": failure.message, "upload": outcome.upload_id}))
        return failure

    def way(self, command: str, outcome: Outcome) -> str:
        """A command line for this upload."""
        server = "" if self.destination.server == DEFAULT_SERVER else f" --server {self.destination.server}"
        return f"streamup {command}{server} {outcome.upload_id}"


async def _piped(stream: _Stream) -> int:
    from streamup.client import Client  # noqa: PLC0415 - as `cli` says
    from streamup.client.live import Piped  # noqa: PLC0415 - as above

    if sys.stdin is None:  # then 0 may be any file that we have opened ourselves
        raise Failure("Standard input is closed: nothing can come.")
    lines, began = stream.terms.lines(), time.monotonic()
    source = Piped(stream.pipe(sys.stdin.fileno(), lines))
    async with Client(stream.destination.server, stream.terms.token) as client:
        outcome = await stream.send(source, client, lines)
    if outcome.sealed:
        stream.ended(outcome, time.monotonic() - began)
        return 0
    raise stream.failed(outcome, *_why(outcome, source))


def _why(outcome: Outcome, source: Piped) -> tuple[str, type[Failure]]:
    """What went wrong with standard input or its upload, and of which kind that is."""
    if outcome.error is not None:
        return _error(outcome.error)
    if source.interrupted:
        return ("Interrupted." if outcome.upload_id else "Interrupted before anything came."), Interruption
    if source.pipe.error is not None:
        return f"Standard input cannot be read: {source.pipe.error.strerror}.", Failure
    return "Nothing came: the producer has failed, or has nothing. --allow-empty makes an empty object.", Failure


def _error(error: ClientError | OSError) -> tuple[str, type[Failure]]:
    """What it says, and whether it may succeed another time."""
    return sentence(error), Interruption if getattr(error, "again", False) else Failure


async def _produced(stream: _Stream, command: Sequence[str], ok_codes: Collection[int], on_failure: str) -> int:
    from streamup.client import Client, ClientError  # noqa: PLC0415 - as `cli` says
    from streamup.client.live import Command, start  # noqa: PLC0415 - as above
    from streamup.client.sending import cancel  # noqa: PLC0415 - as above

    lines, began = stream.terms.lines(), time.monotonic()
    try:
        reading, process = await start(command)
    except OSError as error:
        click.echo(f"error: {printable(command[0])} cannot be started: {error.strerror}.", err=True)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    source = Command(stream.pipe(reading, lines), process, {0, *ok_codes})
    async with Client(stream.destination.server, stream.terms.token) as client:
        outcome = await stream.send(source, client, lines)
        if outcome.error is not None or outcome.cut:
            await source.end()
        code = await source.code()
        if outcome.sealed:
            stream.ended(outcome, time.monotonic() - began)
            return code
        if outcome.error is not None:
            raise stream.failed(outcome, *_error(outcome.error))
        if outcome.cut:
            stream.failed(outcome, "Interrupted.", Interruption).show()
            return code or Interruption.exit_code
        if not await source.ended_well():
            why = f"{printable(command[0])} has ended with {code}."
            if on_failure == "cancel" and outcome.upload_id is not None:
                try:
                    await cancel(client, outcome.upload_id)
                except ClientError as error:
                    why += f" Its upload is not cancelled: {sentence(error)}"
                else:
                    outcome.upload_id = None
                    why += " Its upload is cancelled."
            stream.failed(outcome, why, Failure).show()
            return code
    nothing = f"{printable(command[0])} has ended well, and has written nothing. --allow-empty makes an empty object."
    raise stream.failed(outcome, nothing, Failure)
