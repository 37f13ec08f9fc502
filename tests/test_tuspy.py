"""tuspy, the tus client in Python, against the real server: in chunks, resumed, through a crash, with checksums."""

import asyncio
import contextlib
import hashlib
import io
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import pytest
from process import MIB, Server, content, digest, prefix_of, until
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed
from tusclient.storage.filestorage import FileStorage
from tusclient.uploader import AsyncUploader, Uploader

pytest_plugins = ["weed", "process"]
SIZE = 12 * MIB + 345
KEY = "0123456789abcdef"

FILM = content(SIZE)


@pytest.fixture
def film(tmp_path) -> Iterator[BinaryIO]:
    """An open file, because tuspy leaves the closing of those that it opens to the garbage collector."""
    path = tmp_path / "film.mp4"
    path.write_bytes(FILM)
    with path.open("rb") as file:
        yield file


def client(server: Server, **headers: str) -> TusClient:
    return TusClient(f"{server.url}/uploads", headers=headers)


def uploader(server: Server, film: BinaryIO, key: str, **options: Any) -> Uploader:
    options = {"file_stream": film, "chunk_size": 5_000_000, "metadata": {"key": key}, **options}
    return client(server).uploader(**options)


class OfOtherBytes(Uploader):
    """An uploader whose chunks were damaged on their way."""

    CHECKSUM_ALGORITHM_PAIR = ("sha1", lambda chunk: hashlib.sha1(chunk + b"!"))


def check(server: Server, bucket, key: str, data: bytes) -> None:
    assert digest(bucket.read(prefix_of(server) + key)) == digest(data)
    assert [upload["state"] for upload in server.uploads(key)] == ["complete"]


def test_a_file_with_its_name_and_type(server, bucket, film):
    """Without a key the object is named after the file, and so that nobody else's has the same name."""
    metadata = {"filename": "Überblick 1.mp4", "filetype": "video/mp4", "camera": "2", "empty": ""}
    sender = client(server).uploader(file_stream=film, chunk_size=5_000_000, metadata=metadata)
    sender.upload()
    assert sender.offset == SIZE
    assert sender.get_offset() == SIZE
    upload = server.ask("GET", sender.url.removeprefix(server.url)).json()
    assert upload["key"] == f"{upload['id']}/Überblick 1.mp4"
    check(server, bucket, upload["key"], FILM)
    head = bucket.client.head_object(Bucket=bucket.name, Key=prefix_of(server) + upload["key"])
    assert head["ContentType"] == "video/mp4"
    assert head["Metadata"]["camera"] == "2"


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # and here that it is one piece of memory
def test_a_file_object_by_the_asynchronous_uploader(server, bucket):
    data = content(6 * MIB)
    options = {"file_stream": io.BytesIO(data), "chunk_size": 2 * MIB, "metadata": {"key": "async"}}
    sender: AsyncUploader = client(server).async_uploader(**options)
    asyncio.run(sender.upload())
    check(server, bucket, "async", data)


@pytest.mark.parametrize("size", [0, 1, 5 * MIB])
def test_a_file_in_one_request(server, bucket, size):
    """The smallest ones, and one that ends with its part."""
    data = content(size)
    client(server).uploader(file_stream=io.BytesIO(data), metadata={"key": f"one-{size}"}).upload()
    check(server, bucket, f"one-{size}", data)


def test_a_file_that_nothing_is_said_of(server, bucket):
    """tuspy then sends an empty `Upload-Metadata`."""
    sender = client(server).uploader(file_stream=io.BytesIO(b"nameless"))
    sender.upload()
    upload = server.ask("GET", sender.url.removeprefix(server.url)).json()
    check(server, bucket, upload["key"], b"nameless")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # where URLs are stored, it opens the file itself
def test_another_client_goes_on_from_a_stored_url(server, bucket, film, tmp_path):
    def with_storage() -> Uploader:
        options = {"file_stream": None, "store_url": True, "url_storage": storage}
        return uploader(server, film, "stored", file_path=film.name, **options)

    with contextlib.closing(FileStorage(tmp_path / "urls.json")) as storage:
        first = with_storage()
        first.upload(stop_at=7_000_001)
    assert server.received("stored") == 7_000_001
    with contextlib.closing(FileStorage(tmp_path / "urls.json")) as storage:
        second = with_storage()
        assert (second.url, second.offset) == (first.url, 7_000_001)
        second.upload()
    check(server, bucket, "stored", FILM)


def test_a_checksum_for_each_chunk(server, bucket, film):
    """One that is wrong takes nothing: 460, and the offset is where it was."""
    sender = uploader(server, film, "sha1", upload_checksum=True)
    sender.upload_chunk()
    wrong = OfOtherBytes(
        file_stream=film, url=sender.url, client=sender.client, chunk_size=5_000_000, upload_checksum=True
    )
    with pytest.raises(TusUploadFailed) as refused:
        wrong.upload_chunk()
    assert refused.value.status_code == 460
    assert sender.get_offset() == sender.offset == 5_000_000
    sender.upload()
    check(server, bucket, "sha1", FILM)


@pytest.mark.parametrize("checksum", [False, pytest.param(True, marks=pytest.mark.campaign)], ids=["plain", "checksum"])
def test_the_server_is_killed_in_the_middle_of_a_chunk(serve, bucket, film, checksum):
    """tuspy's retries ask for the offset as soon as somebody answers, and go on there."""
    server = serve().start("after_write:8")
    options = {"upload_checksum": checksum, "retries": 200, "retry_delay": 0.1}
    sender = uploader(server, film, "killed", **options)
    failed: list[Exception] = []

    def upload() -> None:
        try:
            sender.upload()
        except TusCommunicationError as error:
            failed.append(error)

    thread = threading.Thread(target=upload, daemon=True)
    thread.start()
    until(server.killed, what="the failpoint")
    server.start()
    thread.join(60)
    assert not thread.is_alive()
    assert not failed
    check(server, bucket, "killed", FILM)


def test_a_new_client_after_a_kill_with_a_key(serve, bucket, film):
    """The same with nobody who retries, and with a key, which is asked for at every request."""
    server = serve(f"--api-key={KEY}").start()
    right = client(server, Authorization=f"Bearer {KEY}")
    wrong = client(server, Authorization=f"Bearer {KEY[:-1]}X")
    metadata = {"key": "film"}
    with pytest.raises(TusCommunicationError) as refused:
        wrong.uploader(file_stream=film, metadata=metadata).upload()
    assert refused.value.status_code == 401
    first = right.uploader(file_stream=film, metadata=metadata, chunk_size=5_000_000)
    first.upload_chunk()
    server.kill()
    with pytest.raises(TusUploadFailed):
        first.upload_chunk()
    server.start()
    with pytest.raises(TusCommunicationError) as refused:
        wrong.uploader(file_stream=film, url=first.url)
    assert refused.value.status_code == 401
    second = right.uploader(file_stream=film, url=first.url, chunk_size=5_000_000)
    assert second.offset == 5_000_000
    second.upload()
    assert digest(bucket.read(prefix_of(server) + "film")) == digest(FILM)
