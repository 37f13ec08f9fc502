"""Who is let in, over real sockets: credentials wherever they come, and their exchange while a server runs."""

from __future__ import annotations

import asyncio
import logging
import os
import pty
import signal
import sys
import time
from base64 import b64encode
from dataclasses import replace
from urllib.parse import quote

import jwt
import pytest
from aiohttp.test_utils import make_mocked_request
from certificates import make_certificate, trusting
from conftest import BODY
from cryptography import x509
from process import Server, until
from raw_client import CHUNKED, LAST_CHUNK, Client, chunk, eventually, head, refused
from test_tokens import ED25519, OTHER_ED25519, RSA, pem, private_pem

from streamup.errors import ConfigError
from streamup.exchange import head_of
from streamup.service import _renew
from streamup.values import parse_api_key

pytest_plugins = ["weed", "process"]
pytestmark = pytest.mark.usefixtures("impatient")

SECRET = b"a secret of thirty-two bytes or more"
API_KEY = "an-api-key-of-many-chars"


def token(signer=SECRET, algorithm="HS256", *, kid: str | None = None, **claims) -> str:
    """A token of the next hour: some are made when tests are collected, which may be minutes before they run."""
    said = {"sub": "alice", "exp": time.time() + 3600, **claims}
    return jwt.encode(said, signer, algorithm, {"kid": kid} if kid else None)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def basic(secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"any:{secret}".encode()).decode()}


@pytest.fixture
async def guarded(start_service):
    return await start_service(jwt_secret=SECRET, api_key_sha256=(parse_api_key(API_KEY),), downloads=True)


# --- where a credential may be


@pytest.mark.parametrize("headers", [bearer, basic])
async def test_a_token_opens_what_it_is_for(guarded, headers):
    for_a = headers(token(key="a"))
    assert (await guarded.ask("PUT", "/objects/a", BODY, for_a)).status == 201
    refused(await guarded.ask("PUT", "/objects/b", BODY, for_a), 403)
    refused(await guarded.ask("PUT", "/objects/a", BODY, headers(token(key="a", exp=time.time() - 60))), 401)
    assert set(guarded.store.objects) == {"a"}


async def test_a_token_in_the_url_opens_one_key(guarded):
    for_a = token(key="a b")
    answer = await guarded.ask("PUT", f"/objects/a%20b?token={for_a}&upload-complete=0", BODY)
    assert answer.status == 201
    assert "token" not in answer.headers["location"]
    assert (await guarded.ask("HEAD", f"{answer.headers['location']}?%74oken={for_a}")).status == 204
    refused(await guarded.ask("PUT", f"/objects/other?token={for_a}", BODY), 403)


@pytest.mark.parametrize("secret", [API_KEY, token(), token(prefix="a/")], ids=["API key", "everything", "prefix"])
async def test_no_more_than_one_key_is_opened_by_a_url(guarded, secret):
    answer = refused(await guarded.ask("PUT", f"/objects/a/b?token={secret}", BODY), 403)
    assert "single key" in answer.json["detail"]
    assert not guarded.store.objects


async def test_the_header_goes_before_the_url(guarded):
    for_a = token(key="a")
    refused(await guarded.ask("PUT", f"/objects/a?token={for_a}", BODY, bearer("unknown-key-of-somebody")), 401)
    assert (await guarded.ask("PUT", f"/objects/a?token={for_a}", BODY, {"Authorization": "Digest x"})).status == 201
    assert (await guarded.ask("PUT", "/objects/a?token=", BODY, bearer(for_a))).status == 201


async def test_what_is_wrong_with_a_request_is_told_to_who_may_ask(guarded):
    refused(await guarded.ask("PUT", "/objects/a//b?token=" + token(key="a"), BODY), 400)
    refused(await guarded.ask("PUT", "/objects/a//b?token=" + token(key="a", exp=1), BODY), 401)
    refused(await guarded.ask("PUT", "/objects/a?token=x&key=%ff", BODY), 401)


# --- nothing of a credential is told


def test_no_protocol_is_told_the_token_of_the_url():
    head = head_of(make_mocked_request("PUT", "/objects/a?token=of-the-url&token=another&b=c"), {}, "")
    assert (head.query, head.url_token) == ({"b": "c"}, "of-the-url")
    assert "of-the-url" not in repr(head)


MARKER = "fa1afe1fa1afe1fa1afe1"
"""In every credential below; base64 that begins at a third byte has no other form of it."""


def wrong_ones() -> list[str]:
    """Each way of being wrong, with the marker in what is parsed and, in plain, in what is not."""
    now = time.time()
    marked = {"jti": MARKER, "kid": MARKER}
    ways = [
        token(exp=1, **marked),
        token(nbf=now + 600, **marked),
        token(aud=MARKER, **marked),
        token(key="a", prefix="b", **marked),
        token(max_bytes=MARKER, **marked),
        token(key=f"{MARKER}/../x", **marked),
        token(sub=MARKER * 20, **marked),
        token(key=MARKER, **marked),
        token(methods=["GET"], **marked),
        token(SECRET[::-1], **marked),
        token(None, "none", **marked),
        token(RSA, "RS256", **marked),
    ]
    return [*ways, f"{ways[0]}.{MARKER}", f"{MARKER}.{MARKER}.{MARKER}", MARKER, f"{MARKER}-é", MARKER * 290]


async def test_no_credential_is_told_again(guarded, caplog):
    """Wherever it comes, whatever is wrong with it, and where it opens something, too."""
    caplog.set_level(logging.DEBUG)
    told = []
    good = token(key="a", jti=MARKER, kid=MARKER)
    secrets = [good, *wrong_ones()]
    for secret in secrets:
        url = f"?token={quote(secret)}"
        for target in (f"/objects/a{url}", f"/uploads{url}&key=a", f"/uploads/x{url}", f"/objects/..{url}", f"/x{url}"):
            told.append(await guarded.ask("PUT", target, b"body"))
            told.append(await guarded.ask("GET", target))
        told.append(await guarded.ask("PUT", "/objects/a", b"body", bearer(secret)))
        told.append(await guarded.ask("PUT", "/objects/a", b"body", basic(secret)))
    assert {answer.status for answer in told} >= {201, 307, 400, 401, 403, 404}
    parts = {part for secret in secrets for part in [secret, *secret.split(".")] if len(part) > 15}
    shown = [str(answer) for answer in told] + [record.getMessage() for record in caplog.records]
    assert not [text for text in shown if any(part in text for part in [MARKER, *parts])]


# --- credentials that change


async def test_a_credential_that_is_revoked_completes_nothing(guarded):
    client = await guarded.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED | bearer(API_KEY)) + chunk(BODY))
    await eventually(guarded.spooled)
    guarded.server.renew(replace(guarded.config, api_key_sha256=()))
    await client.send(LAST_CHUNK)
    assert "same subject" in refused(await client.answer(), 403).json["detail"], "an API key is its own"
    refused(await guarded.ask("GET", "/uploads", None, bearer(API_KEY)), 401)
    refused(await guarded.ask("PUT", "/objects/a?interrupted=append", BODY, bearer(token())), 409)
    assert guarded.data("a") is None


async def test_an_api_key_is_rotated_by_the_new_one_beside_the_old(start_service):
    old, new = "the-old-api-key-of-many", "the-new-api-key-of-many"
    keys = tuple(map(parse_api_key, (old, new)))
    service = await start_service(api_key_sha256=keys[:1])
    client = await service.connect()
    await client.send(head("PUT", "/objects/a", CHUNKED | bearer(old)) + chunk(BODY))
    await eventually(service.spooled)
    service.server.renew(replace(service.config, api_key_sha256=keys))
    assert (await service.ask("PUT", "/objects/b", BODY, bearer(new))).status == 201
    await client.send(LAST_CHUNK)
    assert (await client.answer()).status == 201
    service.server.renew(replace(service.config, api_key_sha256=keys[1:]))
    refused(await service.ask("GET", "/uploads", None, bearer(old)), 401)


async def test_what_cannot_be_renewed_whole_is_not_renewed(start_service, tmp_path):
    certificate = make_certificate(tmp_path)
    service = await start_service(tls_cert=certificate[0], tls_key=certificate[1], jwt_secret=SECRET)
    (tmp_path / "key.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="--tls-cert"):
        service.server.renew(replace(service.config, jwt_secret=SECRET[::-1]))
    client = await service.connect(tls=trusting(certificate))
    assert (await client.ask("PUT", "/objects/a", BODY, bearer(token()))).status == 201


async def test_asking_for_credentials_ends_with_a_restart_only(guarded):
    """A line that is lost from the configuration must not open the server to everybody."""
    with pytest.raises(ConfigError, match="needs a restart"):
        guarded.server.renew(replace(guarded.config, api_key_sha256=(), jwt_secret=None))
    refused(await guarded.ask("PUT", "/objects/a", BODY), 401)
    assert (await guarded.ask("PUT", "/objects/a", BODY, bearer(API_KEY))).status == 201


@pytest.mark.parametrize("had", [False, True])
async def test_https_begins_and_ends_with_a_restart(start_service, tmp_path, had):
    files = make_certificate(tmp_path)
    certificate, none = {"tls_cert": files[0], "tls_key": files[1]}, {"tls_cert": None, "tls_key": None}
    service = await start_service(jwt_secret=SECRET, **(certificate if had else none))
    with pytest.raises(ConfigError, match="needs a restart"):
        service.server.renew(replace(service.config, jwt_secret=SECRET[::-1], **(none if had else certificate)))
    client = await service.connect(tls=trusting(files) if had else None)
    assert (await client.ask("PUT", "/objects/a", BODY, bearer(token()))).status == 201


async def test_a_second_subject_is_held_to_its_share_from_the_next_start(start_service, caplog):
    keys = tuple(map(parse_api_key, (API_KEY, API_KEY[::-1])))
    service = await start_service(api_key_sha256=keys[:1])
    hangup, renewed = asyncio.Event(), replace(service.config, api_key_sha256=keys)
    renewal = asyncio.create_task(_renew(service.server, service.config, lambda: renewed, hangup))
    hangup.set()
    await eventually(lambda: "several subjects can come now" in caplog.text)
    assert "other options" not in caplog.text
    renewal.cancel()


def hang_up(server: Server, line: str) -> None:
    """SIGHUP, and its effect."""
    count = server.log.count(line)
    os.kill(server.pid, signal.SIGHUP)
    until(lambda: server.log.count(line) > count, what=line)


READ, KEPT = "are read again", "stay as they were"


def test_sighup_exchanges_credentials_and_keeps_them_if_the_new_are_wrong(serve, tmp_path):
    old, new = "the-old-api-key-of-many", "the-new-api-key-of-many"
    api_keys, jwt_keys, config = tmp_path / "api-keys", tmp_path / "keys.pem", tmp_path / "streamup.toml"
    api_keys.write_text(old)
    jwt_keys.write_text(pem(ED25519))
    config.write_text(f'jwt-keys = "{jwt_keys}"\nidle = "30s"\n')
    server = serve(f"--config={config}")
    server.environ = {**server.environ, "STREAMUP_API_KEY_FILE": str(api_keys)}
    server.start()

    def status(secret: str) -> int:
        return server.ask("HEAD", "/objects/a", bearer(secret)).status

    signed, by_another = token(ED25519, "EdDSA"), token(OTHER_ED25519, "EdDSA")
    assert [status(old), status(new), status(signed), status(by_another)] == [404, 401, 404, 401]

    api_keys.write_text(f"{new}\n")
    jwt_keys.write_text(pem(OTHER_ED25519) + pem(RSA))
    hang_up(server, READ)
    assert [status(old), status(new), status(signed), status(by_another)] == [401, 404, 401, 404]
    assert "other options" not in server.log

    in_force = [401, 404, 401, 404]
    for path, broken in (
        (jwt_keys, private_pem(ED25519).decode()),
        (jwt_keys, "no key"),
        (api_keys, ""),
        (api_keys, f"short {old}"),
        (config, "jwt-keys = "),
    ):
        kept = path.read_text()
        path.write_text(broken)
        hang_up(server, KEPT)
        assert [status(old), status(new), status(signed), status(by_another)] == in_force, path
        path.write_text(kept)
    assert server.log.count(KEPT) == 5
    config.write_text(config.read_text().replace("30s", "31s"))
    hang_up(server, "other options have changed")
    assert [status(old), status(new), status(signed), status(by_another)] == in_force
    server.stop()
    told = (old, new, signed, by_another, private_pem(ED25519).decode().splitlines()[1])
    assert not [secret for secret in told if secret in server.log]


def serial_of(client: Client) -> int:
    der = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(der).serial_number


async def test_a_certificate_is_exchanged_for_connections_to_come(start_service, tmp_path):
    certificate = make_certificate(tmp_path, serial=1)
    service = await start_service(tls_cert=certificate[0], tls_key=certificate[1])
    first = await service.connect(tls=trusting(certificate))
    make_certificate(tmp_path, serial=2)
    service.server.renew(service.config)
    second = await service.connect(tls=trusting(certificate))
    assert [serial_of(client) for client in (first, second)] == [1, 2]
    for client in (first, second):
        assert (await client.ask("PUT", "/objects/a", BODY)).status == 201
    assert not second.writer.get_extra_info("ssl_object").session.has_ticket


# --- signals

PROGRAM = """
import asyncio, os
from streamup.signals import stop_signal

async def main():
    hangup = asyncio.Event()
    stopped = stop_signal(hangup)
    print("ready", flush=True)
    waiting = [asyncio.create_task(event.wait()) for event in (hangup, stopped)]
    await asyncio.wait(waiting, return_when="FIRST_COMPLETED")
    os._exit(10 * hangup.is_set() + 20 * stopped.is_set())  # past what an exception would say

asyncio.run(main())
"""


@pytest.mark.parametrize(("gone", "code"), [(True, 20), (False, 10)])
def test_a_terminal_that_is_gone_ends_what_was_started_from_it(gone, code):
    """SIGHUP from anybody else is a question."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM])
    shown = b""
    while not shown.endswith(b"\n"):  # else what is still being written fails when the terminal goes
        shown += os.read(terminal, 100)
    if gone:
        os.close(terminal)
    else:
        os.kill(pid, signal.SIGHUP)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    if not gone:
        os.close(terminal)
