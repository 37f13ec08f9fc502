"""Hashes of a whole: as hashlib, zlib and awscrt say, however the bytes were cut, and after a restart in between."""

import hashlib
import json
import zlib

import pytest
from awscrt import checksums
from hypothesis import given
from hypothesis import strategies as st

from streamup import hashes
from streamup.digests import SIZES
from streamup.hashes import Hashes

REFERENCES = {
    "crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "crc32c": lambda data: checksums.crc32c(data).to_bytes(4, "big"),
    "crc64nvme": lambda data: checksums.crc64nvme(data).to_bytes(8, "big"),
} | {name: lambda data, name=name: hashlib.new(name, data).digest() for name in ("md5", "sha1", "sha256", "sha512")}

ALGORITHMS = sorted(REFERENCES)


def test_there_is_a_reference_for_each_and_its_size_is_right():
    assert {name: len(reference(b"")) for name, reference in REFERENCES.items()} == SIZES


def test_known_answers():
    """The check value of CRC-64/NVME and CRC-32C (the catalogue's), and of SHA-256 (FIPS 180-4's example)."""
    running = Hashes.begun(["crc64nvme", "crc32c"])
    running.update(b"123456789")
    assert running.digests() == {"crc64nvme": bytes.fromhex("ae8b14860a799888"), "crc32c": bytes.fromhex("e3069283")}
    running = Hashes.begun(["sha256"])
    running.update(b"abc")
    assert running.digests()["sha256"].hex().startswith("ba7816bf8f01cfea")


@given(st.sets(st.sampled_from(ALGORITHMS)), st.lists(st.binary(max_size=200), max_size=6), st.integers(0, 6))
def test_they_go_on_from_their_state_however_the_bytes_were_cut(algorithms, chunks, restart):
    running = Hashes.begun(algorithms)
    for number, chunk in enumerate([*chunks, b""]):
        if number == restart:
            running = Hashes.resumed(algorithms, running.state, running.position)
        running.update(chunk)
    whole = b"".join(chunks)
    assert (len(whole), {name: REFERENCES[name](whole) for name in algorithms}) == (running.position, running.digests())


def test_to_look_changes_nothing():
    running = Hashes.begun(ALGORITHMS)
    running.update(b"abc")
    assert running.digests() == {name: REFERENCES[name](b"abc") for name in ALGORITHMS}
    running.update(b"def")
    assert running.digests() == {name: REFERENCES[name](b"abcdef") for name in ALGORITHMS}


def test_what_was_not_running_cannot_be_resumed():
    running = Hashes.begun(["sha256"])
    assert Hashes.resumed(["sha256", "md5"], running.state, 0) is None
    assert Hashes.resumed(["sha256"], None, 0) is None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_without_a_shared_openssl_hashlib_does_it_until_a_restart(monkeypatch, algorithm):
    monkeypatch.setattr(hashes, "LIBRARY", None)
    running = Hashes.begun([algorithm])
    running.update(b"ab")
    running.update(b"c")
    assert running.digests() == {algorithm: REFERENCES[algorithm](b"abc")}
    survives = algorithm.startswith("crc")
    assert survives == (running.state is not None)
    assert survives == (Hashes.resumed([algorithm], json.dumps({algorithm: ""}), 0) is not None)
