from keystream import BLOCK, Keystream

STREAM = Keystream("a", 3 * BLOCK + 5)


def test_every_position_can_be_had_without_those_before():
    whole = STREAM[:]
    assert len(whole) == STREAM.size
    for start, stop in [(0, 1), (BLOCK - 1, BLOCK + 1), (40, 40), (5, 3 * BLOCK), (3 * BLOCK, 9 * BLOCK)]:
        assert STREAM[start:stop] == whole[start:stop]


def test_no_other_name_and_no_other_block_has_the_same_bytes():
    blocks = [Keystream(name, 5 * BLOCK)[n * BLOCK : (n + 1) * BLOCK] for name in "ab" for n in range(5)]
    for length in (32, BLOCK):
        assert len({block[:length] for block in blocks}) == len(blocks)


def test_what_differs_is_found():
    whole = STREAM[:]
    assert STREAM.differs(0, whole) is None
    assert STREAM.differs(BLOCK, whole[BLOCK : BLOCK + 100]) is None
    damaged = whole[: BLOCK + 7] + bytes([whole[BLOCK + 7] ^ 1]) + whole[BLOCK + 8 :]
    assert STREAM.differs(0, damaged) == BLOCK + 7
    assert STREAM.differs(10, whole[11:90]) == 10
    assert STREAM.differs(STREAM.size - 1, whole[-1:] + b"x") is not None
