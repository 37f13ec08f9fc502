"""An IETF client by hand, on sockets, against the real server over SeaweedFS: what the 104s say is true, and stays."""

import pytest
from process import MIB, content, digest, prefix_of
from raw_client import CHUNKED, Client, chunk, head

pytest_plugins = ["weed", "process"]

VERSION = "Upload-Draft-Interop-Version"
FILM = content(20 * MIB + 17)


async def send(client: Client, start: int, end: int) -> None:
    for position in range(start, end, MIB):
        await client.send(chunk(FILM[position : min(position + MIB, end)]))


@pytest.mark.parametrize(
    ("version", "method", "target"),
    [("6", "PUT", "/objects/film"), pytest.param("9", "POST", "/uploads?key=film", marks=pytest.mark.campaign)],
)
async def test_a_film_goes_on_after_the_server_was_killed(serve, bucket, version, method, target):
    """The client has no answer to its first request but the interim ones, and needs no other."""
    server = serve().start()
    client = await Client.connect(("127.0.0.1", server.ports[0]))
    await client.send(head(method, target, CHUNKED | {VERSION: version, "Upload-Complete": "?1"}))
    created = await client.told()
    assert (created.status, created.headers[VERSION.lower()]) == (104, version)
    location = created.headers["location"]

    told, sent = 0, 0
    for end in (3 * MIB, 11 * MIB, 15 * MIB + 5):
        await send(client, sent, end)
        sent = end
        report = await client.told()
        assert (report.status, "location" in report.headers) == (104, False)
        assert told < report.offset <= sent
        told = report.offset
    server.kill()
    client.close()

    server.start()
    found = server.ask("HEAD", location, {VERSION: version})
    offset = int(found.headers["Upload-Offset"])
    assert told <= offset <= sent
    assert found.headers["Upload-Complete"] == "?0"
    rest = {VERSION: version, "Upload-Complete": "?1", "Upload-Offset": str(offset)}
    answer = server.ask("PATCH", location, rest | {"Content-Type": "application/partial-upload"}, FILM[offset:])
    assert (answer.status, answer.headers["Upload-Complete"]) == (201, "?1")
    assert digest(bucket.read(prefix_of(server) + "film")) == digest(FILM)
    assert [upload["state"] for upload in server.uploads("film")] == ["complete"]
    again = server.ask("PATCH", location, rest | {"Content-Type": "application/partial-upload"}, FILM[offset:])
    assert again.json() == answer.json()
