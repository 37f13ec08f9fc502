"""Whom this server knows, as one value that can be exchanged as a whole: API keys, and the keys that sign tokens.

A credential comes as `Authorization: Bearer`, as the password of `Authorization: Basic` (ffmpeg and OBS:
`http://any:TOKEN@host/`), or as `?token=`. A URL ends up in logs and in histories, so there it may open one key only.
No message has anything of a credential.
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Self

from streamup.config import Config
from streamup.errors import ConfigError, Forbidden, Unauthorized
from streamup.grants import Grant
from streamup.token_keys import NAME_DIGITS, read_keys, secret_key
from streamup.tokens import Verifier


@dataclass(frozen=True, slots=True)
class Credentials:
    """API keys by their SHA-256, and what verifies tokens. False if there are none: then nobody is asked for any."""

    key_hashes: tuple[bytes, ...] = ()
    verifier: Verifier = field(default_factory=Verifier)

    @classmethod
    def of(cls, config: Config) -> Self:
        """Reads the file of `--jwt-keys`. Raises `ConfigError`, also for two of one name: each could end the other's
        uploads, and one would outlive its revocation.
        """
        secret = [] if config.jwt_secret is None else [secret_key(config.jwt_secret)]
        public = read_keys(config.jwt_keys) if config.jwt_keys else ()
        verifier = Verifier((*secret, *public), config.jwt_audience, config.jwt_issuer)
        credentials = cls(config.api_key_sha256, verifier)
        twice = [name for name, times in Counter(credentials._names()).items() if times > 1]
        if twice:
            raise ConfigError(f"Two credentials go by the name {twice[0]}. Take one of them out, or make another.")
        return credentials

    def __bool__(self) -> bool:
        return bool(self.key_hashes or self.verifier.keys)

    def grant(self, authorization: str, url_token: str, now: float) -> Grant:
        """What is allowed at this unix time to who presents this: a credential in `Authorization`, else that of the
        URL. Either may be empty. Raises `Unauthorized`, `Forbidden`.
        """
        in_header = _secret(authorization)
        secret = in_header or url_token
        if not secret:
            raise Unauthorized(
                "Send an API key or a token as `Authorization: Bearer TOKEN`, or as the password of a Basic one."
            )
        grant = self._of_key(secret) or self._of_token(secret, now)
        if not in_header and grant.key is None:
            raise Forbidden("A URL may carry a token for a single key only. Send this one as `Authorization: Bearer`.")
        return grant

    def __str__(self) -> str:
        return ", ".join(self._names()) or "none, and nobody is asked for any"

    def knows(self, credential: str) -> bool:
        """Whether what goes by this name (`Grant.credential`) has not been revoked since."""
        return credential.partition("/")[0] in self._names()

    def _names(self) -> list[str]:
        return [*map(_key_name, self.key_hashes), *(key.id for key in self.verifier.keys)]

    def _of_key(self, secret: str) -> Grant | None:
        digest = sha256(secret.encode(errors="surrogateescape")).digest()
        # Every key is compared, and each in constant time: how long it takes tells nothing.
        if not any([hmac.compare_digest(digest, known) for known in self.key_hashes]):  # noqa: C419 - as said above
            return None
        return Grant(subject=_key_name(digest), credential=_key_name(digest))

    def _of_token(self, secret: str, now: float) -> Grant:
        if not self.verifier.keys or "." not in secret:
            raise Unauthorized(
                "This server does not know that API key. Is it whole, and of this server? If so, ask its operator."
            )
        return self.verifier.grant(secret, now)


def _key_name(digest: bytes) -> str:
    return f"key-{digest.hex()[:NAME_DIGITS]}"


def _secret(text: str) -> str | None:
    """The secret in an `Authorization` header: a Bearer token, or the password of Basic."""
    scheme, _, rest = text.strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip() or None
    if scheme.lower() != "basic":
        return None
    try:
        _, _, password = b64decode(rest.strip(), validate=True).partition(b":")
    except ValueError:
        return None
    return password.decode(errors="surrogateescape") or None
