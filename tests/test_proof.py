"""client/proof.py: what a store's words say about bytes. Computed here the way S3's documentation does it, by hand."""

import hashlib
from base64 import b64encode
from zlib import crc32

import pytest
from awscrt import checksums
from hypothesis import example, given
from hypothesis import strategies as st

from streamup.client.hashing import combined, digest
from streamup.client.proof import (
    KINDS,
    MAX_CUTS,
    Claim,
    Finding,
    Verdict,
    claims_of,
    compare,
    conclude,
    cut_of,
    likely_cuts,
    part_claims,
    spans_of,
)
from streamup.client.reading import MAX_SPAN_BYTES, SPAN_BYTES, span_bytes, spans_between
from streamup.digests import SIZES
from streamup.layout import MIB, Layout, choose_layout
from streamup.stores import StoredObject, StoredPart

MD5 = "0123456789abcdef0123456789abcdef"
CRC32 = b64encode(b"1234").decode()


def stored(etag=f'"{MD5}"', **fields):
    return StoredObject("k", 100, etag, **fields)


def told(**fields):
    """Claims and reasons of an object, as text."""
    claims, passed_over = claims_of(stored(**fields))
    return [(claim.name, claim.text, claim.composite) for claim in claims], [one.words for one in passed_over]


def base64_of(value):
    return b64encode(value).decode()


# What is claimed


def test_an_etag_is_the_md5_of_the_whole():
    assert told() == ([("ETag", MD5, False)], [])


def test_an_etag_with_a_count_is_the_md5_of_so_many_md5s():
    (claim,), _ = claims_of(stored(f'"{MD5}-17"'))
    assert (claim.composite, claim.parts, claim.value.hex(), claim.text) == (True, 17, MD5, f"{MD5}-17")


@pytest.mark.parametrize("encryption", ["aws:kms", "aws:kms:dsse", "SSE-C"])
def test_under_some_encryption_an_etag_says_nothing(encryption):
    claims, (why,) = told(encryption=encryption)
    assert claims == []
    assert encryption in why


def test_under_the_stores_own_key_it_does():
    assert told(encryption="AES256") == ([("ETag", MD5, False)], [])


@pytest.mark.parametrize(
    "etag", ['"0123"', f'W/"{MD5}"', '"abc-1"', f'"{MD5}-0"', f'"{MD5.upper()}"', f'"{MD5}-123456"', ""]
)
def test_other_etags_are_no_md5(etag):
    claims, (why,) = told(etag=etag)
    assert claims == []
    assert "no MD5" in why


def test_checksums_come_before_the_etag_the_strongest_first():
    words = {"crc32": CRC32, "crc64nvme": base64_of(bytes(8)), "sha256": base64_of(bytes(32))}
    assert [name for name, _, _ in told(checksums=words)[0]] == ["CRC64NVME", "SHA256", "CRC32", "ETag"]


def test_a_count_or_the_stores_word_makes_a_checksum_a_composite():
    assert told(checksums={"crc32": f"{CRC32}-3"})[0][0] == ("CRC32", f"{CRC32}-3", True)
    assert told(checksums={"crc32": CRC32}, checksum_type="COMPOSITE")[0][0] == ("CRC32", CRC32, True)
    assert told(checksums={"crc32": CRC32}, checksum_type="FULL_OBJECT")[0][0] == ("CRC32", CRC32, False)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("crc32", "not base64!", "not written"),
        ("crc32", f"{CRC32}-x", "not written"),
        ("crc32", base64_of(b"12345"), "length"),
        ("xxhash3", base64_of(bytes(8)), "not known"),
    ],
)
def test_a_checksum_that_cannot_be_read_is_passed_over_and_said_to_be(name, text, why):
    claims, reasons = told(checksums={name: text})
    assert [claim[0] for claim in claims] == ["ETag"]
    assert why in reasons[0]


# Where parts end


def test_the_stores_parts_are_taken_if_they_are_the_objects():
    parts = [StoredPart(1, 60), StoredPart(2, 40)]
    assert cut_of(parts, 100) == (60, 100)
    assert cut_of(parts, 101) is None
    assert cut_of(None, 100) is cut_of([], 100) is None
    assert cut_of([StoredPart(1, 0)], 0) == (0,)


@st.composite
def objects(draw):
    """Sizes and part sizes as tools make them."""
    mebibytes = draw(st.sampled_from((5, 6, 7, 8, 15, 16, 50, 64)))
    size = draw(st.integers(1, 5_000) | st.integers(1, 300).map(lambda n: n * mebibytes * MIB)) + draw(
        st.integers(0, 200 * mebibytes * MIB)
    )
    return size, mebibytes * MIB


@given(objects())
@example((16 * MIB, 8 * MIB))
@example((16 * MIB + 1, 8 * MIB))
def test_likely_cuts_are_cuts_of_this_object(made):
    size, part_bytes = made
    count = -(-size // part_bytes)
    cuts = likely_cuts(size, count)
    assert 1 <= len(cuts) <= MAX_CUTS
    for cut in cuts:
        assert len(cut) == count
        assert cut[-1] == size
        assert list(cut) == sorted(set(cut))


@given(st.integers(2, 400), st.sampled_from((5, 8, 16, 50, 64)), st.integers(1, 5 * MIB))
def test_the_usual_sizes_are_found(full_parts, mebibytes, rest):
    size = full_parts * mebibytes * MIB + rest
    part_bytes = mebibytes * MIB
    assert (*range(part_bytes, size, part_bytes), size) in likely_cuts(size, full_parts + 1)


def test_a_known_length_that_is_divided_is_found():
    length = 10**12 + 7
    layout = choose_layout(length, part_bytes=8 * MIB)
    cut = tuple(min(layout.part(number).end, length) for number in range(1, layout.part_at(length - 1).number + 1))
    assert cut in likely_cuts(length, len(cut))
    assert (34, 67, 100) not in likely_cuts(100, 2)
    assert (34, 68, 100) in likely_cuts(100, 3)


@pytest.mark.parametrize("part_bytes", [5 * MIB, 8 * MIB, 64 * MIB])
def test_our_own_growing_streams_are_found(part_bytes):
    layout = Layout(part_bytes, 900)
    size = layout.part(1_234).end + 5
    cut = (*(layout.part(number).end for number in range(1, 1_235)), size)
    assert cut in likely_cuts(size, 1_235)


def test_an_object_that_no_growing_stream_of_small_parts_could_be():
    assert all(len(cut) == 9_000 for cut in likely_cuts(40 << 40, 9_000))


def test_no_cut_is_likely_where_none_is_possible():
    assert likely_cuts(5, 6) == []
    assert likely_cuts(5, 0) == []
    assert likely_cuts(0, 1) == [(0,)]


def test_the_spans_of_a_cut():
    assert spans_of((3, 5, 9)) == [(0, 3), (3, 5), (5, 9)]
    assert spans_of((0,)) == [(0, 0)]


@given(st.lists(st.integers(1, 40 * MIB), min_size=1, max_size=40), st.data())
def test_requests_cover_the_gaps_and_begin_and_end_where_parts_do(sizes, data):
    cut = tuple(sum(sizes[: index + 1]) for index in range(len(sizes)))
    gap = sorted(data.draw(st.tuples(st.integers(0, cut[-1] - 1), st.integers(1, cut[-1]))))
    spans = list(spans_between([tuple(gap)] if gap[0] < gap[1] else [], cut, SPAN_BYTES))
    assert [point for span in spans for point in span][::2][1:] == [end for _, end in spans][:-1]
    assert (spans[0][0], spans[-1][1]) == tuple(gap) if spans else gap[0] == gap[1]
    for start, end in spans:
        assert 0 < end - start <= SPAN_BYTES
        inside = [point for point in cut if start < point < end]
        assert not inside or end in cut or end == gap[1], "a part begun with others is read to its end"


def test_large_objects_are_asked_for_in_larger_spans():
    assert span_bytes(5, 8) == span_bytes(100 * MIB, 8) == SPAN_BYTES
    assert span_bytes(1024 * MIB, 8) == 32 * MIB
    assert span_bytes(1 << 40, 8) == MAX_SPAN_BYTES


# What follows


def claim_of(name, algorithm, data, parts=0):
    pieces = [data] if not parts else [data[index::parts] for index in range(parts)]
    value = (
        digest(algorithm, b"".join(digest(algorithm, piece) for piece in pieces)) if parts else digest(algorithm, data)
    )
    return Claim(name, algorithm, value, bool(parts), parts)


def test_a_value_that_agrees_is_a_proof():
    claim = claim_of("CRC32", "crc32", b"abc")
    assert compare(claim, digest("crc32", b"abc")).verdict is Verdict.PROVEN


def test_a_value_that_differs_is_told_beside_the_stores():
    claim = claim_of("ETag", "md5", b"abc", 3)
    found = compare(claim, hashlib.md5(b"x").digest())
    assert found.verdict is Verdict.DIFFERENT
    assert claim.text in found.words
    assert hashlib.md5(b"x").hexdigest() in found.words


def test_of_guessed_parts_a_miss_says_nothing():
    claim = claim_of("ETag", "md5", b"abc", 3)
    assert compare(claim, bytes(16), certain=False).verdict is Verdict.OPEN
    assert compare(claim, claim.value, certain=False).verdict is Verdict.PROVEN


@pytest.mark.parametrize(
    ("verdicts", "conclusion"),
    [("", "OPEN"), ("O", "OPEN"), ("OP", "PROVEN"), ("PD", "DIFFERENT"), ("DOP", "DIFFERENT")],
)
def test_one_difference_outweighs_every_proof(verdicts, conclusion):
    words = {verdict.name[0]: verdict for verdict in Verdict}
    assert conclude(Finding(words[letter], "") for letter in verdicts) is Verdict[conclusion]


def test_of_each_part_the_strongest_checksum_is_taken():
    words = {"crc32": CRC32, "sha256": base64_of(bytes(32)), "xxhash3": "AAAA"}
    parts = [StoredPart(1, 5, words), StoredPart(2, 5), StoredPart(3, 5, {"crc32": f"{CRC32}-2"})]
    ((part, claim),) = part_claims(parts)
    assert (part.number, claim.name) == (1, "SHA256")


# The arithmetic, against other implementations of it


@pytest.mark.parametrize("algorithm", KINDS)
def test_every_kind_has_the_length_that_is_expected(algorithm):
    assert len(digest(algorithm, b"123456789")) == SIZES[algorithm]


def test_known_values():
    assert digest("crc64nvme", b"123456789").hex() == "ae8b14860a799888"
    assert digest("crc32c", b"123456789").hex() == "e3069283"
    assert digest("crc32", b"123456789") == crc32(b"123456789").to_bytes(4, "big")
    assert digest("sha1", b"abc") == hashlib.sha1(b"abc").digest()


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_crcs_of_pieces_combine_to_that_of_the_whole(pieces):
    for algorithm in ("crc32", "crc32c", "crc64nvme"):
        crcs = [(digest(algorithm, piece), len(piece)) for piece in pieces]
        assert combined(algorithm, crcs) == digest(algorithm, b"".join(pieces))
    assert checksums.crc64nvme(b"".join(pieces)) == int.from_bytes(digest("crc64nvme", b"".join(pieces)), "big")
