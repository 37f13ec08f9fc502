"""`streamup token`: mint, inspect, explain."""

import json
import time

import jwt
import pytest
from click.testing import CliRunner
from test_tokens import ED25519, OTHER_ED25519, RSA, jwk, jwks, pem, private_pem

from streamup import cli
from streamup.token_keys import public_keys, secret_key
from streamup.tokens import Verifier

SECRET = "a-secret-of-thirty-two-characters"
MINT = ("mint", "--sub", "alice")


@pytest.fixture
def run():
    """`run(*words)` → exit code, stdout, stderr, with the secret in the environment unless `secret` is another."""

    def run(*words, secret=SECRET, stdin=None):
        done = CliRunner(env={"STREAMUP_JWT_SECRET": secret}).invoke(cli.main, ["token", *map(str, words)], input=stdin)
        assert SECRET not in done.output
        return done.exit_code, done.stdout, done.stderr

    return run


def minted(run, *words, **how) -> str:
    code, token, err = run(*MINT, *words, **how)
    assert (code, err) == (0, "")
    assert token.count("\n") == 1, "it is alone, for TOKEN=$(...)"
    return token.strip()


def told(run, token, *words, **how) -> dict[str, str]:
    """The rows of `inspect`."""
    _, out, _ = run("inspect", token, *words, **how)
    return {row[:14].strip(): row[14:] for row in out.splitlines()}


# --- mint


def test_what_is_minted_is_what_was_asked_for(run):
    token = minted(
        *(run, "--prefix", "live", "--for", "2h", "--method", "PUT", "--method", "head", "--max-bytes", "5GiB"),
        *("--no-overwrite", "--content-type", "video/*", "--idle", "5m", "--min-rate", "0", "--jti", "17"),
    )
    grant = Verifier((secret_key(SECRET.encode()),)).grant(token, time.time())
    assert (grant.subject, grant.prefix, grant.methods) == ("jwt:alice", "live", {"PUT", "HEAD"})
    assert (grant.max_bytes, grant.overwrite, grant.content_types) == (5 << 30, False, ("video/*",))
    assert (grant.idle_seconds, grant.min_rate) == (300, 0)
    assert grant.credential.endswith("/17")
    assert grant.expires == pytest.approx(time.time() + 7200, abs=5)


@pytest.mark.parametrize(("private", "algorithm"), [(ED25519, "EdDSA"), (RSA, "RS256")])
def test_a_private_key_signs(run, tmp_path, private, algorithm):
    (tmp_path / "key.pem").write_bytes(private_pem(private))
    token = minted(run, "--private-key", tmp_path / "key.pem", "--kid", "new", "--key", "a", secret="")
    header = jwt.get_unverified_header(token)
    assert (header["alg"], header["kid"]) == (algorithm, "new")
    assert Verifier(public_keys(jwks(jwk(private, kid="new")))).grant(token, time.time()).key == "a"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("mint",), "--sub"),
        ((*MINT, "--key", "a", "--prefix", "b"), "not for both"),
        ((*MINT, "--key", "../a"), "no `..`"),
        ((*MINT, "--method", "SING"), "'--method': 'SING' is not one of"),
        ((*MINT, "--content-type", "video"), "--content-type is not a list of"),
        (("mint", "--sub", ""), "--sub is not text of"),
        ((*MINT, "--idle", "0.5s"), "--idle is not a number of seconds"),
        ((*MINT, "--for", "soon"), "is not a duration"),
        ((*MINT, "--for", "0"), "--for is less than a second"),
        ((*MINT, "--max-bytes", "much"), "is not a size"),
        ((*MINT, "--private-key", __file__), "not a private key"),
        ((*MINT, "--private-key", "nowhere"), "does not exist"),
    ],
)
def test_what_no_server_would_take_is_not_minted(run, words, message):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())


def test_there_must_be_something_to_sign_with(run):
    code, _, err = run(*MINT, secret="")
    assert (code, "STREAMUP_JWT_SECRET_FILE" in err) == (2, True)


# --- inspect


def test_inspect_tells_what_is_in_it(run):
    token = minted(run, "--key", "a/ö.mp4", "--max-bytes", "5GiB", "--method", "PUT")
    rows = told(run, token)
    assert rows["signature"].startswith("HS256, good, by jwt-")
    assert (rows["subject"], rows["for"], rows["methods"]) == ("jwt:alice", "a/ö.mp4", "PUT")
    assert (rows["upload size"], rows["overwrites"]) == ("up to 5.0 GiB", "yes")
    assert rows["expires"].endswith("+00:00")
    assert run("inspect", token)[0] == 0
    assert token not in "".join(run("inspect", token)[1:])


def test_a_token_may_come_from_a_file_or_standard_input(run, tmp_path):
    token = minted(run)
    (tmp_path / "token").write_text(token + "\n")
    rows = told(run, token)
    assert rows == told(run, tmp_path / "token") == told(run, "-", stdin=token + "\n")
    assert run("inspect", stdin=token)[0] == 0


def test_inspect_says_what_a_server_would_not_take(run, tmp_path):
    (tmp_path / "keys").write_text(pem(OTHER_ED25519))
    expired = jwt.encode({"sub": "a", "exp": 1}, SECRET, "HS256")
    wrong = jwt.encode({"sub": "a\x1b[31m", "exp": 1, "prefix": 7}, SECRET, "HS256")
    for token, words, message in (
        (expired, (), "has expired"),
        (wrong, (), "`prefix`"),
        (minted(run), ("--jwt-keys", tmp_path / "keys"), ""),
        (jwt.encode({"sub": "a", "exp": 1}, ED25519, "EdDSA"), ("--jwt-keys", tmp_path / "keys"), "not signed"),
        (minted(run, "--jwt-audience", "up"), (), "another audience"),
        ("garbage", (), "not a JWT"),
        ("x" * 7000, (), "longer"),
        ("\0", (), "not a JWT"),
    ):
        code, out, err = run("inspect", token, *words)
        assert (code, message in err, "\x1b" in out) == (1 if message else 0, True, False), (message, err)
    assert run("inspect", minted(run), "--jwt-keys", __file__)[0] == 2


def test_inspect_tells_a_good_signature_from_what_else_is_wrong(run):
    assert "good, by jwt-" in told(run, minted(run, "--jwt-audience", "up"))["signature"]
    assert told(run, minted(run), secret=SECRET[::-1])["signature"] == "HS256, by none of the keys"


def test_what_is_no_token_may_have_been_meant_as_a_file(run, tmp_path):
    for words in (("inspect", tmp_path / "nowhere"), ("explain", "nowhere.txt", "PUT", "a")):
        code, _, err = run(*words)
        assert (code, "no such file" in err, "not a JWT" in err) == (1, True, True)
    assert "no such file" not in run("inspect", stdin="garbage")[2]
    code, _, err = run("inspect", stdin=" \n")
    assert (code, "Nothing came" in err) == (2, True)


def test_inspect_prints_json(run):
    token = minted(run, "--key", "a")
    document = json.loads(run("inspect", "--json", token)[1])
    assert (document["claims"]["key"], document["problem"]) == ("a", None)
    assert document["signature"].startswith("good")


# --- explain


@pytest.mark.parametrize(
    ("terms", "question", "answer"),
    [
        ((), ("PUT", "a"), "yes"),
        (("--key", "a"), ("PUT", "a"), "yes"),
        (("--key", "a"), ("put", "b"), "no: This credential is not for this key"),
        (("--prefix", "a"), ("GET", "a/b"), "yes"),
        (("--prefix", "a"), ("GET", "ab"), "no: This credential is not for this key"),
        (("--method", "PUT"), ("PATCH", "a"), "no: This credential does not allow PATCH"),
        (("--method", "PUT"), ("HEAD", "a"), "no: This credential does not allow HEAD"),
        (("--max-bytes", "5MiB"), ("PUT", "a", "--size", "5MiB"), "yes"),
        (("--max-bytes", "5MiB"), ("PUT", "a", "--size", "6MiB"), "no: An upload may have 5242880 bytes"),
        (("--max-bytes", "5MiB"), ("PATCH", "a", "--size", "6MiB"), "no: An upload may have 5242880 bytes"),
        (("--content-type", "video/*"), ("POST", "a", "--content-type", "video/mp4"), "yes"),
        (("--content-type", "video/*"), ("POST", "a"), "no: This credential allows these content types only"),
        (("--content-type", "video/*"), ("POST", "a", "--content-type", "video/mp4, a/b"), "no: --content-type is not"),
        (("--no-overwrite",), ("PUT", "a"), "yes, if there is no object of that key"),
        (("--no-overwrite",), ("DELETE", "a"), "no: This credential does not allow removing"),
        ((), ("PUT", "a/../b"), "no: A key has no empty segments"),
    ],
)
def test_explain_answers_as_the_server_would(run, terms, question, answer):
    code, out, err = run("explain", minted(run, *terms), *question)
    assert (out or err.removeprefix("error: ")).startswith(answer)
    assert code == (0 if answer.startswith("yes") else 1)


def test_no_script_takes_a_signature_that_was_not_checked_for_a_good_one(run):
    forged = jwt.encode({"sub": "a", "exp": time.time() + 60}, SECRET[::-1], "HS256")
    for question, answer in ((("inspect", forged), "HS256, not checked"), (("explain", forged, "PUT", "a"), "yes, if")):
        code, out, err = run(*question, secret="")
        assert (code, answer in out) == (3, True)
        assert "STREAMUP_JWT_SECRET_FILE" in err
        assert "--jwt-keys" in err
        assert run(*question)[0] == 1
    expired = jwt.encode({"sub": "a", "exp": 1}, SECRET, "HS256")
    assert run("inspect", expired, secret="")[0] == 1, "no server takes it, whoever has signed it"


@pytest.mark.parametrize("key", ["/a", "http://127.0.0.1:8080/objects/a"])
def test_explain_takes_a_key_and_no_address(run, key):
    code, _, err = run("explain", minted(run), "PUT", key)
    assert (code, "without an address or a leading slash" in " ".join(err.split())) == (2, True)


def test_explain_knows_its_methods(run):
    assert run("explain", minted(run), "SING", "a")[0] == 2
