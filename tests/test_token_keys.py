"""token_keys.py: what the files of keys may hold, and what they may not."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PublicFormat
from test_tokens import ED25519, MARKER, RSA, SECRET, VERIFIER, jwk, jwks, pem, private_pem

from streamup.errors import ConfigError
from streamup.token_keys import SigningKey, private_key, public_keys


@pytest.mark.parametrize(
    ("text", "algorithms"),
    [
        (pem(RSA), ["RS256"]),
        ("a comment\n" + pem(ED25519) + "another\r\n" + pem(RSA).replace("\n", "\r\n"), ["EdDSA", "RS256"]),
        (RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode(), ["RS256"]),
        (jwks(jwk(RSA), jwk(ED25519, alg="EdDSA", use="sig")), ["RS256", "EdDSA"]),
        ("\n " + jwks(jwk(RSA, alg="RS512"), jwk(RSA, use="enc"), {"kty": "EC", "crv": "P-256"}, jwk(RSA)), ["RS256"]),
    ],
)
def test_files_of_public_keys(text, algorithms):
    assert [key.algorithm for key in public_keys(text)] == algorithms


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("", "no public key"),
        ("garbage", "no public key"),
        (jwks(), "no public key"),
        (jwks({"kty": "EC", "crv": "P-256"}), "no public key"),
        (jwks({"kty": ["RSA"], "crv": {}}), "no public key"),
        (pem(ED25519) + private_pem(RSA).decode(), "private or secret key"),
        ("-----BEGIN RSA PRIVATE KEY-----\ncut off", "private or secret key"),
        (jwks(jwk(RSA), jwk(ED25519, d=MARKER)), "private or secret key"),
        (jwks({"kty": "oct", "k": MARKER}), "private or secret key"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "another kind"),
        (pem(ed448.Ed448PrivateKey.generate()), "another kind"),
        (pem(rsa.generate_private_key(65537, 1024)), "1024 bits"),
        (jwks(jwk(rsa.generate_private_key(65537, 1024))), "1024 bits"),
        ("-----BEGIN PUBLIC KEY-----\n!!!\n-----END PUBLIC KEY-----", "not a public key"),
        ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----", "not a public key"),
        ("{", "not a JWKS"),
        ("{}", "not a JWKS"),
        ('{"keys": {}}', "not a JWKS"),
        ('{"keys": ["a"]}', "not a JWKS"),
        ('{"keys": ' + "[" * 9000, "not a JWKS"),
        (json.dumps(jwk(RSA)), "not a JWKS"),
        (jwks(jwk(RSA, kid=7)), "kid is not text"),
        (jwks({"kty": "OKP", "crv": "Ed25519", "x": "AA"}), "cannot be read"),
        (jwks({"kty": "RSA", "n": 7, "e": []}), "cannot be read"),
        (jwks({"kty": "RSA"}), "cannot be read"),
    ],
)
def test_files_that_are_refused(text, because):
    with pytest.raises(ConfigError, match=because) as refusal:
        public_keys(text)
    assert MARKER not in str(refusal.value)


def test_keys_show_nothing_of_themselves():
    assert all(shown not in repr((VERIFIER, SigningKey("HS256", SECRET))) for shown in (repr(SECRET), "Key object"))


@pytest.mark.parametrize(
    ("text", "because"),
    [
        (b"", "not a private key"),
        (pem(RSA).encode(), "not a private key"),
        (private_pem(RSA, BestAvailableEncryption(b"passphrase")), "passphrase"),
        (private_pem(ec.generate_private_key(ec.SECP256R1())), "another kind"),
        (private_pem(rsa.generate_private_key(65537, 1024)), "1024 bits"),
    ],
)
def test_private_keys_that_are_refused(text, because):
    with pytest.raises(ConfigError, match=because):
        private_key(text)
