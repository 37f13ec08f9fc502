"""The campaign `endings` in CI's size, and what it reckons with."""

import random

import pytest
from campaigns import Size, endings
from raw_client import LAST_CHUNK

SOME = list(endings.endings(random.Random(1), 400))


@pytest.mark.campaign
def test_whatever_ends_a_body_only_a_clean_end_completes():
    endings.run(Size.CI, seed=1).save_if_wanted()


def test_every_end_is_there_early_and_late_whole_and_cut():
    assert {(one.how, one.late) for one in SOME} >= {
        *((how, late) for how in endings.LATE for late in (True, False)),
        ("reset", False),
        ("nonsense", False),
    }
    assert {one.whole for one in SOME} == {True, False}
    assert {one.framing for one in SOME} == {"chunked", "length", "range"}


def test_what_arrives_is_what_the_parser_may_take_for_body():
    for one in (one for one in SOME if one.framing == "chunked"):
        sent, body = one.wire[: one.cut], b""
        while sent:
            size, separator, rest = sent.partition(b"\r\n")
            if not separator or size == b"0":
                break
            body, sent = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        assert one.arrives == len(body), one
        assert one.body.startswith(body)
    assert all(one.wire.endswith(LAST_CHUNK) for one in SOME if one.framing == "chunked")


@pytest.mark.parametrize("mistake", ["a_reset_is_an_end", "silence_is_an_end", "leaves_the_tail"])
def test_a_mistake_at_the_end_of_a_body_is_noticed(mistake):
    with pytest.raises(endings.Broken):
        endings.run(Size.CI, seed=1, planted=mistake)
