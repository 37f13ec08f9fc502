"""Digests of bodies: every kind is what hashlib and zlib say, however the body was cut, and a wrong one is named."""

import hashlib
import zlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamup.digests import HASHES, Digest, Running
from streamup.errors import DigestMismatch

REFERENCES = {
    "crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "sha1": lambda data: hashlib.sha1(data).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "sha512": lambda data: hashlib.sha512(data).digest(),
}


def running(digests, *chunks):
    found = Running(digests)
    for chunk in chunks:
        found.update(chunk)
    return found


def test_there_is_a_reference_for_each():
    assert set(HASHES) == set(REFERENCES)


@given(st.sampled_from(sorted(REFERENCES)), st.lists(st.binary(max_size=50), max_size=5))
def test_the_digest_of_the_bytes_matches_however_they_are_cut(algorithm, chunks):
    running([Digest(algorithm, REFERENCES[algorithm](b"".join(chunks)))], *chunks).check()


@pytest.mark.parametrize("algorithm", sorted(REFERENCES))
def test_another_byte_is_told_with_both_digests(algorithm):
    expected, found = (REFERENCES[algorithm](data) for data in (b"abc", b"abd"))
    with pytest.raises(DigestMismatch) as refused:
        running([Digest(algorithm, expected)], b"ab", b"d").check()
    assert refused.value.numbers == {
        "expected-digest": b64encode(expected).decode(),
        "found-digest": b64encode(found).decode(),
    }
    assert algorithm in refused.value.detail


def test_all_of_several_must_match():
    right, wrong = Digest("sha256", REFERENCES["sha256"](b"abc")), Digest("crc32", REFERENCES["crc32"](b"abd"))
    running([right, right], b"abc").check()
    with pytest.raises(DigestMismatch, match="crc32"):
        running([right, wrong], b"abc").check()


def test_a_digest_of_another_size_does_not_match():
    with pytest.raises(DigestMismatch):
        running([Digest("sha256", REFERENCES["sha256"](b"abc")[:31])], b"abc").check()


def test_without_digests_anything_matches():
    running([], b"abc").check()
