"""The keys that make tokens and those that verify them, as the operator's files have them. Each is bound to one
algorithm (RFC 8725, 3.1). No message quotes anything of a key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from streamup.errors import ConfigError

Algorithm = Literal["HS256", "EdDSA", "RS256"]

MIN_RSA_BITS = 2048
"""RFC 7518, 3.3."""

NAME_DIGITS = 16
"""Of the SHA-256 in a credential's name, hexadecimal: what belongs to a name is only as safe as another that has the
same digits is hard to find.
"""

_SCHEMES: Mapping[tuple[str, str], Algorithm] = {("RSA", ""): "RS256", ("OKP", "Ed25519"): "EdDSA"}
"""The algorithm of a JWK, by `kty` and `crv` (RFC 7518, 6.1; RFC 8037, 2)."""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key that verifies tokens. `id` tells it from others in logs and opens nothing; `name` is its `kid`, if any."""

    id: str
    algorithm: Algorithm
    material: bytes | Ed25519PublicKey | RSAPublicKey = field(repr=False)
    name: str | None = None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that makes tokens."""

    algorithm: Algorithm
    material: bytes | Ed25519PrivateKey | RSAPrivateKey = field(repr=False)


def secret_key(secret: bytes) -> TokenKey:
    return TokenKey(_key_id(secret), "HS256", secret)


def read_keys(path: Path) -> tuple[TokenKey, ...]:
    """The public keys in a file. Raises `ConfigError`."""
    try:
        return public_keys(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--jwt-keys {path} cannot be read: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"--jwt-keys {path}: {error}") from error


def public_keys(text: str) -> tuple[TokenKey, ...]:
    """Those in a file of PEM public keys, or in a JWKS (RFC 7517, 5), of which keys for other purposes are left out.

    Raises `ConfigError`: there is none, one cannot be read or is too short, one is private.
    """
    if "PRIVATE KEY" in text:
        raise _private()
    keys = tuple(_of_jwks(text) if text.lstrip().startswith("{") else _of_pem(text))
    if not keys:
        raise ConfigError("It has no public key of RSA or Ed25519, neither as PEM nor in a JWKS.")
    return keys


def private_key(pem: bytes) -> SigningKey:
    """Raises `ConfigError`."""
    try:
        material = load_pem_private_key(pem, password=None)
    except TypeError:
        raise ConfigError("It has a passphrase. Take that off: openssl pkey -in FILE -out NEW.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError("It is not a private key in PEM, as openssl genpkey -algorithm ed25519 makes one.") from None
    if not isinstance(material, Ed25519PrivateKey | RSAPrivateKey):
        raise ConfigError("It is a private key of another kind. Tokens are signed with Ed25519 or RSA.")
    return SigningKey(_scheme(material.public_key()), material)


def _of_pem(text: str) -> Iterator[TokenKey]:
    for block in re.finditer(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", text, re.DOTALL):
        try:
            material = load_pem_public_key(block[0].encode())
        except (ValueError, UnsupportedAlgorithm):
            raise ConfigError(
                f"It has a {block[1]} that is not a public key in PEM. openssl pkey -in PRIVATE -pubout makes one."
            ) from None
        yield _public(material)


def _of_jwks(text: str) -> Iterator[TokenKey]:
    try:
        members = json.loads(text)["keys"]
    except (ValueError, KeyError, RecursionError):
        members = None
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise ConfigError('It is not a JWKS, which is {"keys": [...]}.')
    for member in members:
        if member.get("kty") == "oct" or "d" in member:
            raise _private()
        algorithm = _SCHEMES.get((str(member.get("kty")), str(member.get("crv", ""))))
        if algorithm and member.get("alg", algorithm) == algorithm and member.get("use", "sig") == "sig":
            yield _of_jwk(member, algorithm)


def _of_jwk(member: dict[str, Any], algorithm: Algorithm) -> TokenKey:
    name = member.get("kid")
    if not (name is None or isinstance(name, str)):
        raise ConfigError("It has a key whose kid is not text.")
    try:
        return _public(jwt.PyJWK(member, algorithm).key, name)
    except (jwt.PyJWTError, ValueError):
        raise ConfigError(f"Its {algorithm} key {name or 'without a kid'} cannot be read.") from None


def _public(material: Any, name: str | None = None) -> TokenKey:
    algorithm = _scheme(material)
    der = material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return TokenKey(_key_id(der), algorithm, material, name)


def _scheme(material: Any) -> Algorithm:
    if isinstance(material, Ed25519PublicKey):
        return "EdDSA"
    if not isinstance(material, RSAPublicKey):
        raise ConfigError("It has a public key of another kind. Tokens are signed with Ed25519 or RSA.")
    if material.key_size < MIN_RSA_BITS:
        raise ConfigError(f"It has an RSA key of {material.key_size} bits. At least {MIN_RSA_BITS} are safe.")
    return "RS256"


def _key_id(public: bytes) -> str:
    return f"jwt-{sha256(public).hexdigest()[:NAME_DIGITS]}"


def _private() -> ConfigError:
    return ConfigError(
        "It has a private or secret key, which belongs to who signs tokens, and not here. Its public half: "
        "openssl pkey -in FILE -pubout."
    )
