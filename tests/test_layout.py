"""Positions and parts: contiguous, legal for S3, equal where asked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamup.errors import TooLarge
from streamup.layout import GIB, MIB, TIB, Layout, Part, choose_layout

LARGEST = 10_000 * 5 * GIB
"""48.8 TiB: what S3 takes in one object by parts."""

part_bytes = st.integers(5 * MIB, 5 * GIB)
layouts = st.builds(
    Layout,
    st.integers(1, 50),
    st.integers(0, 7),
    st.integers(50, 400),
    st.integers(1, 60),
)
fast = settings(deadline=None, max_examples=60)


@fast
@given(layouts)
def test_parts_are_contiguous_from_byte_0(layout):
    parts = [layout.part(number) for number in range(1, layout.max_parts + 1)]
    assert [part.start for part in parts] == [0] + [part.end for part in parts[:-1]]
    assert [part.number for part in parts] == list(range(1, layout.max_parts + 1))
    assert all(part.size > 0 for part in parts)
    assert layout.capacity == parts[-1].end


@fast
@given(layouts, st.data())
def test_part_at_is_the_inverse_of_part(layout, data):
    number = data.draw(st.integers(1, layout.max_parts))
    part = layout.part(number)
    inside = data.draw(st.integers(part.start, part.end - 1))
    assert [layout.part_at(position) for position in (part.start, inside, part.end - 1)] == [part] * 3


@fast
@given(layouts, st.integers(0, 10))
def test_nothing_lies_beyond_the_last_part(layout, beyond):
    for ask in (lambda: layout.part_at(layout.capacity + beyond), lambda: layout.part(layout.max_parts + 1 + beyond)):
        with pytest.raises(TooLarge) as refused:
            ask()
        assert refused.value.numbers == {"limit": layout.capacity}


@pytest.mark.parametrize("number", [0, -1])
def test_parts_are_numbered_from_1(number):
    with pytest.raises(TooLarge):
        Layout(8).part(number)


def test_a_growing_layout_doubles_every_step_up_to_its_maximum():
    layout = Layout(10, 3, 35, 11)
    assert [layout.part(number).size for number in range(1, 12)] == [10, 10, 10, 20, 20, 20, 35, 35, 35, 35, 35]


def test_a_part_knows_its_size():
    assert Part(3, 20, 32).size == 12


@fast
@given(part_bytes)
def test_a_stream_of_unknown_length_may_pass_5_tib_in_legal_parts(size):
    layout = choose_layout(None, part_bytes=size)
    assert layout.max_parts == 10_000
    assert layout.capacity > 5 * TIB
    assert all(size <= layout.part(number).size <= 5 * GIB for number in range(1, 10_001, 450))


def test_the_default_spool_bears_a_stream_past_5_tib():
    layout = choose_layout(None, part_bytes=8 * MIB, max_part_bytes=10 * GIB // 8)
    assert layout.capacity > 5 * TIB
    assert layout.part(10_000).size == 10 * GIB // 8


@fast
@given(st.integers(0, LARGEST), st.integers(5 * MIB, 64 * MIB))
def test_a_declared_length_gets_equal_parts_that_hold_it(length, size):
    layout = choose_layout(length, part_bytes=size)
    assert layout.part(1).size == layout.part(10_000).size == layout.part_bytes
    assert size <= layout.part_bytes <= 5 * GIB
    assert layout.capacity >= length
    if length:
        assert layout.part_at(length - 1).number <= 10_000


def test_parts_larger_than_asked_are_whole_mebibytes():
    layout = choose_layout(10_000 * 8 * MIB + 1, part_bytes=8 * MIB)
    assert layout == Layout(9 * MIB, 0, 5 * GIB, 10_000)


def test_a_length_that_fits_keeps_the_part_size():
    assert choose_layout(10_000 * 8 * MIB, part_bytes=8 * MIB).part_bytes == 8 * MIB


def test_the_largest_object_of_s3_can_be_declared():
    assert choose_layout(LARGEST, part_bytes=8 * MIB).capacity == LARGEST


def test_a_length_beyond_the_store_is_refused_with_the_limit():
    with pytest.raises(TooLarge) as refused:
        choose_layout(LARGEST + 1, part_bytes=8 * MIB)
    assert refused.value.numbers == {"limit": LARGEST}


@fast
@given(st.integers(1, 10**9), st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 2000))
def test_a_length_is_refused_only_where_it_does_not_fit(length, size, most, max_parts):
    fits = max(size, -(-length // max_parts)) <= most
    if fits:
        layout = choose_layout(length, part_bytes=size, max_part_bytes=most, max_parts=max_parts)
        assert layout.capacity >= length
        assert layout.part(1).size <= most
    else:
        with pytest.raises(TooLarge) as refused:
            choose_layout(length, part_bytes=size, max_part_bytes=most, max_parts=max_parts)
        assert refused.value.numbers == {"limit": most * max_parts}


def test_equal_parts_stay_equal_for_unknown_lengths_where_asked():
    layout = choose_layout(None, part_bytes=8 * MIB, growing=False)
    assert {layout.part(number).size for number in (1, 900, 901, 10_000)} == {8 * MIB}
    assert layout.capacity == 10_000 * 8 * MIB
