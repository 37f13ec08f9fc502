"""The command line. What a command needs is imported by that command: botocore alone takes half a second.

Exit codes: 0 done · 1 failed for good · 2 wrong usage or refused configuration · 3 interrupted, or nobody answered:
the same command may go on.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from streamup import logs
from streamup.client import Client, ClientError, Upload
from streamup.client.progress import choose
from streamup.client.proof import Finding, Verdict, conclude
from streamup.client.reading import PARALLEL
from streamup.client.table import human_size, printable, upload_details, uploads_table
from streamup.config import OPTIONS, Config, build
from streamup.errors import (
    AccessDenied,
    ConfigError,
    Different,
    Interrupted,
    StateDirectoryError,
    StoreUnavailable,
    StreamupError,
)
from streamup.exits import Failure, Interruption, Refusal
from streamup.options import CONFIG_FILE, Written, parameter, require_known_files, server_options, token_option
from streamup.push_command import push
from streamup.signals import run_stoppable
from streamup.token_command import token
from streamup.values import parse_duration

if TYPE_CHECKING:
    from streamup.client.transfer import Way

T = TypeVar("T")


class Commands(click.Group):
    """Ctrl-C at any moment is exit code 3: click's own 1 would mean that something failed, or differs."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interruption("Interrupted.") from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamup")
def main() -> None:
    """Stream HTTP bodies of unknown length into S3, and lose none of their bytes."""


def _serve(store: str | None, **values: Any) -> None:
    """Receive uploads over HTTP and store them as objects in s3://BUCKET/PREFIX, or with --local on this machine.

    Every option is also a variable in the environment (--part-size: STREAMUP_PART_SIZE) and a key of the TOML file
    (part-size); a flag goes before the environment, and that before the file. Sizes and durations take units.
    """
    from streamup.service import new_event_loop, serve  # noqa: PLC0415 - as the module says

    try:
        config = build(store, values)
        logs.start(config.log_format)
        with asyncio.Runner(loop_factory=partial(new_event_loop, config)) as runner:
            runner.run(serve(config, click.get_current_context().obj))
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except StreamupError as error:
        raise Failure(str(error)) from error


class Serve(click.Command):
    """What stands in its environment and in files can be read again while it runs."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Its object is the function that reads the configuration again. That raises `ConfigError`."""
        given = tuple(args)
        require_known_files(os.environ, OPTIONS.values())

        def reread() -> Config:
            try:
                values = make(info_name, list(given), parent).params
                return build(values.pop("store"), values)
            except click.ClickException as error:
                raise ConfigError(error.format_message()) from error

        make = super().make_context
        context = make(info_name, args, parent, **extra)
        context.obj = reread
        return context


_STORE = click.Argument(["store"], required=False, envvar="STREAMUP_STORE", metavar="[s3://BUCKET/PREFIX]")
main.add_command(
    Serve(
        "serve",
        callback=_serve,
        help=_serve.__doc__,
        params=[_STORE, CONFIG_FILE, *(parameter(field, option) for field, option in OPTIONS.items())],
    )
)


# --- commands about a store, with the options of `serve`


def _store_command(name: str, callback: Callable[..., None], shown: Sequence[str], *own: click.Parameter) -> None:
    """A command that takes `serve`'s command line, environment and file as they are, and shows what it looks at."""
    options = [parameter(field, option, hidden=field not in shown) for field, option in OPTIONS.items()]
    params = [_STORE, *own, CONFIG_FILE, *options]
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
    from streamup.client.doctor import Doctor, as_line, ending, row  # noqa: PLC0415 - as the module says
    from streamup.service import store_for  # noqa: PLC0415 - as above

    config = _store_config(store, values)
    doctor = Doctor(config, store_for, lambda finding: click.echo(as_line(finding) if as_json else row(finding)))
    problem = None

    try:
        run_stoppable(doctor.examine())
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
    1 something was not removed, 2 wrong usage, no such bucket, or what is ours cannot be known, 3 the store cannot be
    asked now.
    """
    from streamup.client.sweep import Refused, Removal, Sweep  # noqa: PLC0415 - as the module says
    from streamup.service import store_for  # noqa: PLC0415 - as above

    if delete and (older_than is None or not ours_alone):
        raise click.UsageError(
            f"--delete goes with --older-than TIME (for example 7d) and with {_OURS_ALONE}: your word that nothing but "
            "the server of --data stores below this prefix. Another's unfinished uploads look like orphans here."
        )
    config = _store_config(store, values)
    removal = Removal(timedelta(seconds=older_than or 0)) if delete else None

    sweep = Sweep(config, lambda orphan: click.echo(orphan.as_line() if as_json else str(orphan)), removal=removal)

    async def run() -> None:
        async with store_for(config) as opened:
            await sweep.run(opened, state_is_lost=state_is_lost)

    try:
        run_stoppable(run())
    except (Refused, StateDirectoryError) as error:
        raise Refusal(str(error)) from error
    except AccessDenied as error:
        words = str(error).rstrip(".")
        raise Interruption(f"The store cannot be asked now: {words}. streamup doctor says what to allow.") from error
    except StoreUnavailable as error:
        if error.code == "NoSuchBucket":
            raise Refusal(f"There is no bucket {config.bucket!r}. Create it, or name another one.") from error
        raise Interruption(f"The store cannot be asked now: {error}") from error
    except asyncio.CancelledError:
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


def _ask(server: str, token: str | None, question: Callable[[Client], Awaitable[T]]) -> T:
    """What the server answers to `question`."""

    async def ask() -> T:
        async with Client(server, token) as client:
            return await question(client)

    try:
        return asyncio.run(ask())
    except ClientError as error:
        raise (Interruption if error.again else Failure)(str(error)) from error


@main.command()
@server_options
@click.option("--all", "everything", is_flag=True, help="Also those that have ended.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls(server: str, token: str | None, *, everything: bool, as_json: bool) -> None:
    """List unfinished and failed uploads."""
    uploads = _ask(server, token, lambda client: client.uploads())
    shown = [u for u in uploads if everything or u["state"] not in ("complete", "cancelled", "expired")]
    if as_json:
        click.echo(json.dumps(shown, indent=2))
    elif shown:
        click.echo(uploads_table(shown))
    else:
        click.echo("No uploads." if everything else "No unfinished uploads.", err=True)


@main.command()
@server_options
@click.argument("upload", metavar="ID|KEY")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every part.")
def status(server: str, token: str | None, upload: str, *, as_json: bool) -> None:
    """Look at an upload. This never disturbs it."""
    found = _ask(server, token, lambda client: client.find(upload))
    click.echo(json.dumps(found, indent=2) if as_json else upload_details(found))


@main.command()
@server_options
@click.argument("upload", metavar="ID|KEY")
@click.option("--force", is_flag=True, help="Even if a client is sending now. It is cut off.")
def finish(server: str, token: str | None, upload: str, *, force: bool) -> None:
    """Complete an interrupted upload with the bytes that have arrived."""

    async def ask(client: Client) -> tuple[Upload, Upload | None]:
        found = await client.find(upload)
        return found, await client.finish(found, force=force)

    found, stored = _ask(server, token, ask)
    if stored is None:
        click.echo(
            f"{printable(found['key'])} is sealed, and every byte of it is safe at the server. It completes when the "
            f"store takes it: streamup status {found['id']}"
        )
    else:
        click.echo(f"{printable(stored['key'])} is complete: {human_size(stored['size'])}, ETag {stored['etag']}")


@main.command()
@server_options
@click.argument("upload", metavar="ID|KEY")
def cancel(server: str, token: str | None, upload: str) -> None:
    """Give an upload up. Its bytes are gone."""

    async def ask(client: Client) -> Upload:
        found = await client.find(upload)
        if found["state"] in ("failed", "expired", "cancelled"):
            raise ClientError(f"Upload {found['id']} is {found['state']} already, and nothing of it is left to cancel.")
        await client.cancel(found["id"])
        return found

    found = _ask(server, token, ask)
    click.echo(f"{found['id']} ({printable(found['key'])}) is cancelled.")


main.add_command(push)
main.add_command(token)


# --- objects and files


def _transfer_options(command: Callable[..., None]) -> Callable[..., None]:
    """How to reach the object, and what to show."""
    of_the_store = [parameter(field, OPTIONS[field]) for field in ("s3_path_style", "s3_endpoint_url", "sse_c_key")]
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
        token_option,
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
    from streamup.client.transfer import get as download  # noqa: PLC0415 - as the module says

    path, outcome = _transfer(download(source, file, _way(**options), etag=etag), as_json=options["as_json"])
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

    Exit code 0 if it is proven, 1 if they differ, 2 if something must be set or mended before they can be compared,
    3 if it cannot be found out now.
    """
    from streamup.client.transfer import verify as compare  # noqa: PLC0415 - as the module says

    comparison = compare(file, source, _way(**options), etag=etag, read=read)
    findings = _transfer(comparison, as_json=options["as_json"], different=f"{file} is not {source}: ", refused=Refusal)
    _report(f"{printable(file)} is {printable(source)}", findings, {"file": file}, **options)


def _way(*, quiet: bool, as_json: bool, **reach: Any) -> Way:
    from streamup.client.transfer import Way  # noqa: PLC0415 - as the module says

    show = choose(quiet=quiet, as_json=as_json)
    renamed = {"s3_endpoint_url": "endpoint_url", "s3_path_style": "path_style"}
    return Way(show=show, say=show.say, **{renamed.get(name, name): value for name, value in reach.items()})


def _transfer(
    work: Coroutine[Any, Any, T], *, as_json: bool, different: str = "", refused: type[Failure] = Failure
) -> T:
    """Run it to its end, and say how it ended otherwise: if refused for good, as `refused`."""
    try:
        return run_stoppable(work)
    except (StreamupError, asyncio.CancelledError) as error:
        ending: click.ClickException
        match error:
            case asyncio.CancelledError():
                ending = Interruption("Interrupted. The same command goes on where this ended.")
            case ConfigError():
                ending = click.UsageError(str(error))
            case Different():
                ending = Failure(f"{different}{error}")
            case AccessDenied():
                ending = refused(str(error))
            case Interrupted() | StoreUnavailable():
                ending = Interruption(str(error))
            case _:
                ending = refused(str(error))
        if as_json:
            click.echo(json.dumps({"phase": "failed", "error": ending.message}))
        raise ending from error


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
