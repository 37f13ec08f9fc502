"""`streamup sweep`: what an upload knows is never touched, whoever is asked; the rest goes only on a clear order."""

import asyncio
import dataclasses
import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from click.testing import CliRunner
from moto.server import ThreadedMotoServer
from process import PART, content, digest, prefix_of, until
from store_proxy import HELD_SECONDS, Fault, no, on, says

from streamup import checkpoint, cli
from streamup.checkpoint import Checkpoint, Holdings
from streamup.client import sweep
from streamup.client.sweep import Outcome, Refused, Removal, Sweep, known
from streamup.config import Config
from streamup.errors import StateDirectoryError
from streamup.layout import Layout
from streamup.stores import Multipart, ObjectMeta
from streamup.stores.experiments import MARK
from streamup.stores.s3 import S3Store
from streamup.upload import Upload

pytest_plugins = ["weed", "store_proxy", "process"]

NOW = timedelta(0)
BODY = content(PART + 1000, seed=6)


# --- a state directory without a server


@asynccontextmanager
async def opened(data, **options):
    data.mkdir(exist_ok=True)
    with ThreadPoolExecutor(1) as executor:
        state = Checkpoint(data / "checkpoint.sqlite", executor, **options)
        await state.open()
        try:
            yield state
        finally:
            await state.close()


def upload(upload_id="u", key="key", **values):
    made = Upload(upload_id, key, "subject", Layout(10), ObjectMeta("token"), created=1.0)
    return dataclasses.replace(made, **values)


@asynccontextmanager
async def state_of(place):
    """Its state, as a server leaves it."""
    async with opened(place.data) as state:
        await state.keep_place(place.place)
        yield state


@pytest.fixture
def place(tmp_path):
    """A prefix and a state directory of its own. Its name is a part of no other test's keys."""
    return Config(bucket="streamup-test", prefix=f"sweep-{os.urandom(6).hex()}/", data=tmp_path / "data")


@pytest.fixture
async def store(weed, place):
    async with weed.store(place.prefix) as store:
        yield store


async def begin(store, key):
    return await store.create_multipart(key, ObjectMeta("token"))


async def ids(store):
    return {found.multipart_id async for found in store.list_multiparts("")}


@pytest.fixture
async def behind(place, weed, store_proxy):
    """The store behind the proxy."""
    async with weed.store(place.prefix, endpoint_url=store_proxy.url) as store:
        yield store


@pytest.fixture
def run(place, store):
    """A sweep of `place`. What it told, as outcome by name."""

    async def run(*, older_than=None, using=None, config=place, **options):
        told = []
        one = Sweep(config, told.append, removal=None if older_than is None else Removal(older_than))
        await one.run(using or store, **options)
        assert one.summary.orphans == len(told)
        return {orphan.name: orphan.outcome for orphan in told}

    return run


async def test_what_a_row_knows_stays_and_what_none_knows_goes(place, store, run):
    ours, orphan = await begin(store, "key"), await begin(store, "key")
    async with state_of(place) as state:
        await state.save(upload(multipart_id=ours))
    assert await run() == {orphan: Outcome.LISTED}
    assert await run(older_than=timedelta(hours=1)) == {orphan: Outcome.YOUNG}
    assert await ids(store) == {ours, orphan}
    assert await run(older_than=NOW) == {orphan: Outcome.REMOVED}
    assert await ids(store) == {ours}


async def test_the_experiments_of_a_start_are_not_disturbed(place, store, run):
    fresh = await begin(store, "a/" + MARK + "1234")
    async with state_of(place):
        pass
    assert await run(older_than=NOW) == {fresh: Outcome.YOUNG}


async def test_an_upload_that_has_ended_still_knows_what_it_has_not_aborted(place, store, run):
    ours = await begin(store, "key")
    ended = upload(multipart_id=ours)
    ended.cancel(2.0)
    async with state_of(place) as state:
        await state.save(ended)
    assert await run(older_than=NOW) == {}


async def test_a_creation_without_an_answer_protects_its_key_from_then_on(place, store, run):
    ours, another = await begin(store, "a/key"), await begin(store, "another")
    async with state_of(place) as state:
        await state.save(upload(key="a/key", creating=time.time()))
    assert await run(older_than=NOW) == {another: Outcome.REMOVED}
    assert await ids(store) == {ours}


@pytest.mark.parametrize(
    ("key", "seconds", "protected"),
    [
        ("a/key", 0, True),
        ("a/key", -60, True),  # a listing has whole seconds, and clocks differ
        ("a/key", -901, False),
        ("key", 0, True),  # a sweep of a longer prefix
        ("prefix/a/key", 0, True),  # of a shorter one
        ("a/other", 0, False),
        ("ey", 0, False),
    ],
)
def test_which_multipart_uploads_a_creation_protects(key, seconds, protected):
    began = datetime(2026, 1, 1, tzinfo=UTC)
    held = Holdings(None, [], [], [("a/key", began.timestamp())])
    assert known(held, Multipart(key, "m", began + timedelta(seconds=seconds))) == protected


async def test_what_is_known_is_asked_after_the_store_was_listed(place, store, run, store_proxy, behind):
    """An upload that begins in between is in the listing and, by then, in a row."""
    (ours,) = {await begin(store, "key")}

    def meanwhile(said):
        if not place.data.exists():
            with ThreadPoolExecutor(1) as pool:
                pool.submit(asyncio.run, save()).result()
        return said

    async def save():
        async with state_of(place) as state:
            await state.save(upload(multipart_id=ours))

    store_proxy.rule = on("ListMultipartUploads", Fault(change=meanwhile))
    assert await run(older_than=NOW, using=behind) == {}
    assert await ids(store) == {ours}


async def test_part_files_of_no_upload_go_and_others_stay(place, run):
    spool = place.data / "spool"
    async with state_of(place) as state:
        await state.save(upload("alive"))
    spool.mkdir()
    for name in ("alive.1", "dead.1", "dead.12", "notes.txt", "dead.1.bak"):
        (spool / name).write_bytes(b"1234")
    dead = {str(spool / name) for name in ("dead.1", "dead.12")}
    assert await run() == dict.fromkeys(dead, Outcome.LISTED)
    assert await run(older_than=timedelta(hours=1)) == dict.fromkeys(dead, Outcome.YOUNG)
    assert await run(older_than=NOW) == dict.fromkeys(dead, Outcome.REMOVED)
    assert {path.name for path in spool.iterdir()} == {"alive.1", "notes.txt", "dead.1.bak"}


# --- when it refuses


async def test_without_a_state_directory_nothing_is_known(place, store, run):
    orphan = await begin(store, "key")
    for older_than in (None, NOW):
        with pytest.raises(Refused, match=r"no state in .*--data.*--state-is-lost"):
            await run(older_than=older_than)
    assert not place.data.exists(), "looking makes no state"
    (place.data / "spool").mkdir(parents=True)
    (place.data / "spool" / "precious.1").write_bytes(b"1234")
    assert await run(older_than=NOW, state_is_lost=True) == {orphan: Outcome.REMOVED}
    assert (place.data / "spool" / "precious.1").exists(), "nobody knows whose it was"


async def test_a_state_that_is_there_is_not_lost(place, store, run):
    await begin(store, "key")
    async with state_of(place):
        pass
    with pytest.raises(Refused, match="is there"):
        await run(older_than=NOW, state_is_lost=True)


async def test_a_state_of_another_version_is_not_brought_to_this_one(place, store, run):
    await begin(store, "key")
    async with opened(place.data, migrations=checkpoint.MIGRATIONS[:1]):
        pass
    with pytest.raises(StateDirectoryError, match=r"older streamup.*Start streamup serve once"):
        await run()
    async with opened(place.data, migrations=checkpoint.MIGRATIONS[:1]):
        pass


async def test_a_state_of_which_nothing_is_in_this_place_is_another_ones(place, store, run):
    orphan = await begin(store, "key")
    async with state_of(place) as state:
        await state.save(upload(multipart_id="elsewhere"))
    with pytest.raises(Refused, match="none of them is below this prefix"):
        await run(older_than=NOW)
    assert await run() == {orphan: Outcome.LISTED}


@pytest.mark.parametrize("where", ["s3://streamup-test/elsewhere/", None])
async def test_the_state_of_another_place_is_not_believed_though_it_knows_nothing(place, store, run, where):
    orphan = await begin(store, "key")
    async with opened(place.data) as state:
        if where:
            await state.keep_place(where)
    with pytest.raises(Refused, match=where or "an older streamup"):
        await run(older_than=NOW)
    assert await ids(store) == {orphan}


async def test_a_store_without_ages_is_not_swept(place):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    async with state_of(place):
        pass
    try:
        async with S3Store("swept", endpoint_url=url, access_key="a", secret_key="b", path_style=True) as moto:
            await moto.create_bucket()
            orphan = await begin(moto, "key")
            with pytest.raises(Refused, match="Ages cannot be trusted"):
                await Sweep(place, lambda _: None, removal=Removal(NOW)).run(moto)
            assert await ids(moto) == {orphan}
    finally:
        server.stop()


@pytest.fixture
async def admin(place):
    """An admin listener that says of itself what `told` is, beside a locked state directory."""
    told = {"data": str(place.data.resolve()), "place": place.place}
    told |= {"uploads": [], "multiparts": [], "creating": []}
    app = web.Application()

    async def tell(_):
        return web.Response(status=told["status"]) if "status" in told else web.json_response(told)

    app.router.add_get("/holdings", tell)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with state_of(place):
        yield told, runner.addresses[0][:2]
    await runner.cleanup()


async def test_a_running_server_is_asked(place, store, run, admin):
    told, address = admin
    ours, creating, orphan = [await begin(store, key) for key in ("a", "b", "c")]
    told |= {"multiparts": [ours], "creating": [["b", time.time()]]}
    config = dataclasses.replace(place, admin_listen=address)
    assert await run(older_than=NOW, config=config) == {orphan: Outcome.REMOVED}
    assert await ids(store) == {ours, creating}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": "/elsewhere"}, "another state"),
        ({"place": "s3://another/"}, "is that of s3://another/"),
        ({"multiparts": None}, "what streamup does not"),
        ({"creating": [["key", "then"]]}, "what streamup does not"),
        ({"status": 403}, "answers 403"),
        ({"status": 404}, "answers 404"),
    ],
)
async def test_a_server_that_is_another_or_says_nothing_is_not_believed(place, run, admin, change, words):
    told, address = admin
    told |= change
    with pytest.raises(Refused, match=words):
        await run(config=dataclasses.replace(place, admin_listen=address))


async def test_a_server_that_cannot_be_asked(place, store, run):
    await begin(store, "key")
    async with state_of(place):
        with pytest.raises(Refused, match=r"does not answer.*stop it"):
            await run(config=dataclasses.replace(place, admin_listen=("0.0.0.0", 1)))
        with pytest.raises(Refused, match="--admin-listen off"):
            await run(config=dataclasses.replace(place, admin_listen=None))


# --- removing


@pytest.fixture
async def orphan(place, store, monkeypatch):
    """A multipart upload that an empty state does not know."""
    monkeypatch.setattr(sweep, "ABORT_AGAIN_SECONDS", 0)
    async with state_of(place):
        return await begin(store, "key")


@pytest.mark.parametrize(("aborts", "outcome"), [(1, Outcome.REMOVED), (99, Outcome.LEFT)])
async def test_an_abort_is_repeated_until_it_is_gone(orphan, store, run, store_proxy, behind, aborts, outcome):  # noqa: PLR0917 - fixtures
    """Parts that were in flight may land after it."""
    swallowed = Fault(instead=says(204))
    store_proxy.rule = lambda request: (
        swallowed if request.operation == "AbortMultipartUpload" and request.number <= aborts else None
    )
    assert await run(older_than=NOW, using=behind) == {orphan: outcome}
    assert (orphan in await ids(store)) == (outcome is Outcome.LEFT)


async def test_one_that_goes_by_itself_is_no_trouble(orphan, run, store_proxy, behind):
    store_proxy.rule = on("ListParts", Fault(instead=no(404, "NoSuchUpload")))
    assert await run(older_than=NOW, using=behind) == {orphan: Outcome.GONE}


@pytest.mark.usefixtures("orphan")
async def test_without_the_permission_to_abort_it_says_so(run, store_proxy, behind):
    store_proxy.rule = on("AbortMultipartUpload", Fault(instead=no(403, "AccessDenied")))
    with pytest.raises(Refused, match="may have stayed behind"):
        await run(older_than=NOW, using=behind)


# --- the command line, and a real server


@pytest.fixture
def command(monkeypatch):
    """`streamup sweep` beside a server, with its own command line."""
    for name in [name for name in os.environ if name.startswith(("STREAMUP_", "AWS_"))]:
        monkeypatch.delenv(name)

    def run(server, *words, store=None):
        line = [*(store or server.store), f"--data={server.data}", f"--admin-listen=127.0.0.1:{server.ports[1]}"]
        keys = {name: value for name, value in server.environ.items() if name.startswith("AWS_")}
        return CliRunner(env=keys).invoke(cli.main, ["sweep", *line, *server.options, *words])

    return run


DELETE = ("--delete", "--older-than=0s", "--prefix-is-ours-alone")


def spawn(place, url, environ):
    """`streamup sweep` in a process of its own."""
    line = [f"s3://{place.bucket}/{place.prefix}", f"--data={place.data}", f"--s3-endpoint-url={url}"]
    return asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "streamup", "sweep", "--s3-path-style", *line),
        env={**os.environ, **environ},
        stdout=-1,
        stderr=-1,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.campaign)])
async def test_an_interruption_says_so(place, weed, store_proxy, number):
    held = threading.Event()
    store_proxy.rule = on("ListMultipartUploads", Fault(act=lambda _: held.set(), after=HELD_SECONDS))
    process = await spawn(place, store_proxy.url, weed.environ)
    assert await asyncio.to_thread(held.wait, 20)
    process.send_signal(number)
    _, err = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, err.decode()[:19]) == (3, "error: Interrupted.")


def test_beside_a_server_that_runs_and_one_that_was_killed(serve, bucket, command):
    server = serve().start()
    prefix = prefix_of(server)
    assert server.ask("PUT", "/objects/live?upload-complete=0", body=BODY).status == 201
    until(lambda: bucket.multiparts(prefix) == ["live"], what="its multipart upload")
    for place in (prefix + "live", prefix + "orphan", "foreign/" + prefix):
        bucket.client.create_multipart_upload(Bucket=bucket.name, Key=place)
    stray = server.data / "spool" / "stray.1"
    stray.write_bytes(b"1234")
    lines = [json.loads(line) for line in command(server, "--json").output.splitlines()]
    assert [line["name"] for line in lines[:-1] if line["kind"] == "part file"] == [str(stray)]
    assert sorted(line["key"] for line in lines[:-1] if line["kind"] == "multipart") == ["live", "orphan"]
    assert lines[-1] == {"known": 1, "orphans": 3, "removed": 0, "freed": 0, "left": 0}
    for order in (("--delete",), DELETE[:2], (DELETE[0], DELETE[2])):
        assert command(server, *order).exit_code == 2
    assert len(bucket.multiparts(prefix)) == 3
    result = command(server, *DELETE)
    assert (result.exit_code, bucket.multiparts(prefix)) == (0, ["live"]), result.output
    assert bucket.multiparts("foreign/" + prefix) == [""]
    assert not stray.exists()

    server.kill()
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key=prefix + "orphan")
    assert command(server, *DELETE, store=(f"s3://{bucket.name}/elsewhere", *server.store[1:])).exit_code == 2
    result = command(server, *DELETE)
    assert (result.exit_code, bucket.multiparts(prefix)) == (0, ["live"]), result.output

    server.start()
    headers = {"Content-Range": f"bytes {len(BODY)}-{len(BODY)}/{len(BODY) + 1}"}
    assert server.ask("PUT", "/objects/live", headers, b"!").status == 201
    assert digest(bucket.read(prefix + "live")) == digest(BODY + b"!")
    holdings = server.ask_admin("/holdings").json()
    assert (holdings["data"], holdings["place"]) == (str(server.data), f"s3://{bucket.name}/{prefix}")
    assert holdings["uploads"] == holdings["multiparts"] == holdings["creating"] == []


def test_exit_codes(serve, command):
    server = serve()
    assert command(server).exit_code == 2
    assert command(server, "--state-is-lost").exit_code == 0
    assert command(server, "--state-is-lost", "--s3-endpoint-url=http://127.0.0.1:1").exit_code == 3
    assert command(server, store=("--local",)).exit_code == 2
    missing = command(server, store=("s3://there-is-no-such-bucket", *server.store[1:]))
    assert (missing.exit_code, "There is no bucket" in missing.stderr) == (2, True), missing.stderr
    server.environ["AWS_SECRET_ACCESS_KEY"] = "wrong"
    server.environ = {**server.environ, "AWS_SECRET_ACCESS_KEY": "wrong"}
    denied = command(server)
    assert (denied.exit_code, "streamup doctor says" in denied.stderr, ".." in denied.stderr) == (3, True, False)
