"""A front of SeaweedFS that knows temporary credentials, and the places where AWS hands them out.

What is signed with a session token that is good now goes on to the store, under the store's own keys; anything else is
`ExpiredToken`, with 400 and, to HEAD, without a word, as S3 answers it. STS, the instance's and the container's
metadata service hand out tokens that are good until they are revoked.

Use: `pytest_plugins = ["weed", "front"]` in a test module, then the fixture `front`. (PYTEST_DONT_REWRITE: it is
imported too.)
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

EXPIRED = '<?xml version="1.0"?>\n<Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>'
IDENTITY = "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>No.</Message></Error></ErrorResponse>"
STS = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{AccessKeyId}</AccessKeyId>
<SecretAccessKey>{SecretAccessKey}</SecretAccessKey><SessionToken>{Token}</SessionToken>
<Expiration>{Expiration}</Expiration></Credentials><SubjectFromWebIdentityToken>s</SubjectFromWebIdentityToken>
<AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn><AssumedRoleId>r:s</AssumedRoleId></AssumedRoleUser>
</AssumeRoleWithWebIdentityResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>"""

ROLE = "/latest/meta-data/iam/security-credentials/"
NOT_PASSED_ON = {"authorization", "host", "connection", "content-length", "x-amz-security-token", "x-amz-date"}


@dataclass
class Front:
    """`good` are the tokens that are taken now. `revoke_after`: so many parts more, and none is.

    `handed_out` counts tokens, which say of themselves that they live for `lifetime`; while `away`, the places that
    hand them out answer 503, and every other time 400. Who is refused gets the status `refusal`. With `needs_no_key`,
    no object has a customer's key, and S3 says 400 to one.
    """

    url: str
    store: str
    keys: Credentials
    good: set[str] = field(default_factory=set)
    handed_out: int = 0
    asked: int = 0
    away: bool = False
    refusal: int = 400
    lifetime: timedelta = timedelta(hours=1)
    revoke_after: int | None = None
    needs_no_key: bool = False
    refused: list[str] = field(default_factory=list)
    passed_on: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hand_out(self) -> dict[str, str]:
        """Credentials, by the names of the metadata services."""
        with self.lock:
            self.handed_out += 1
            token = f"token-{self.handed_out}"
            self.good.add(token)
        expiration = (datetime.now(UTC) + self.lifetime).strftime("%Y-%m-%dT%H:%M:%SZ")
        keys = {"AccessKeyId": "ASIATEMPORARY", "SecretAccessKey": "temporary", "Token": token}
        return keys | {"Expiration": expiration, "Code": "Success", "Type": "AWS-HMAC"}

    def takes(self, token: str | None, *, part: bool) -> bool:
        with self.lock:
            if part and self.revoke_after is not None:
                if self.revoke_after == 0:
                    self.good.clear()
                    self.revoke_after = None
                else:
                    self.revoke_after -= 1
            return token in self.good

    def environ(self, place: str, directory) -> dict[str, str]:
        """The variables by which a process finds credentials in this place only."""
        nothing = {
            "AWS_CONFIG_FILE": str(directory / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(directory / "credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        match place:
            case "file":
                self.write(directory)
                return nothing
            case "web identity":
                (directory / "token").write_text("the pod's own")
                return nothing | {
                    "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/r",
                    "AWS_WEB_IDENTITY_TOKEN_FILE": str(directory / "token"),
                    "AWS_ENDPOINT_URL_STS": f"{self.url}/sts",
                }
            case "instance":
                metadata = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url}
                return nothing | metadata | {"AWS_EC2_METADATA_DISABLED": "false"}
            case _:
                return nothing | {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.url}/container"}

    def write(self, directory) -> None:
        """A new session token in the shared credentials file, by rename as tools do it."""
        handed = self.hand_out()
        new = directory / "credentials.new"
        new.write_text(
            f"[default]\naws_access_key_id = {handed['AccessKeyId']}\n"
            f"aws_secret_access_key = {handed['SecretAccessKey']}\naws_session_token = {handed['Token']}\n"
        )
        new.rename(directory / "credentials")


class _Unsigned(S3SigV4Auth):
    def payload(self, _request):
        return "UNSIGNED-PAYLOAD"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    front: Front

    def log_message(self, *_):
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        if path.startswith(("/latest/", "/sts", "/container")):
            self._hand_out(path)
            return
        asked = urllib.parse.parse_qs(query)
        token = self.headers.get("x-amz-security-token") or asked.get("X-Amz-Security-Token", [None])[0]
        what = f"{self.command} {self.path}"
        if not self.front.takes(token, part="partNumber" in asked):
            self.front.refused.append(what)
            self._answer(self.front.refusal, EXPIRED.encode())
            return
        if self.front.needs_no_key and "x-amz-server-side-encryption-customer-key" in self.headers:
            self._answer(400, b"")
            return
        self.front.passed_on.append(what)
        self._pass_on(path, query, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815 - the library's names

    def _hand_out(self, path: str) -> None:
        if path == "/latest/api/token":
            self._answer(200, b"imds", {"X-aws-ec2-metadata-token-ttl-seconds": "21600"})
        elif path == ROLE:
            self._answer(200, b"role")
        else:
            self.front.asked += 1
            if self.front.away:
                self._answer(503 if self.front.asked % 2 else 400, IDENTITY.encode())
            elif path.startswith("/sts"):
                self._answer(200, STS.format(**self.front.hand_out()).encode())
            else:
                self._answer(200, json.dumps(self.front.hand_out()).encode())

    def _pass_on(self, path: str, query: str, body: bytes) -> None:
        kept = [pair for pair in query.split("&") if pair and not pair.startswith("X-Amz-")]
        url = self.front.store + path + ("?" + "&".join(kept) if kept else "")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_PASSED_ON}
        headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
        request = AWSRequest(self.command, url, headers, body)
        _Unsigned(self.front.keys, "s3", "us-east-1").add_auth(request)
        parts = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(self.command, url.removeprefix(self.front.store), body, dict(request.headers))
            answer = connection.getresponse()
            data = answer.read()
        fields = {name: value for name, value in answer.getheaders() if name.lower() != "transfer-encoding"}
        self._answer(answer.status, data, fields)

    def _answer(self, status: int, body: bytes, fields: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        fields = {"Content-Length": str(len(body)), **(fields or {})}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def front(weed) -> Iterator[Front]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    found = Front(
        f"http://127.0.0.1:{server.server_port}", weed.endpoint_url, Credentials(weed.access_key, weed.secret_key)
    )
    server.RequestHandlerClass = type("Handler", (_Handler,), {"front": found})
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
