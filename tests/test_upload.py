"""`Upload`: every state meets every method, and each pair either changes as the picture shows or changes nothing."""

import copy
from contextlib import nullcontext

import pytest

from streamup.digests import Digest
from streamup.errors import (
    BadRequest,
    DigestMismatch,
    Gone,
    KeyConflict,
    LengthExceeded,
    OffsetMismatch,
    PreconditionFailed,
    TooLarge,
    UploadBusy,
)
from streamup.layout import Layout
from streamup.stores import ObjectMeta, Receipt, StoredObject
from streamup.upload import ALLOWED, LIVE, State, Upload, smallest

OPEN, SEALED, COMPLETING, COMPLETE, CANCELLED, EXPIRED, FAILED = State
NOW = 1000.0
STORED = StoredObject("key", 12, '"etag"', "token")


def make(state=OPEN, **fields):
    upload = Upload("id", "key", "subject", Layout(5), ObjectMeta("token"), created=1.0, state=state, received=12)
    if state is not OPEN:
        upload.size, upload.sealed_order = 12, 1
    for name, value in fields.items():
        setattr(upload, name, value)
    return upload


METHODS = {
    "begin_append": lambda upload: upload.begin_append(offset=12, length=None, seal_at=None),
    "require_open": lambda upload: upload.require_open(),
    "receive": lambda upload: upload.receive(3),
    "seal": lambda upload: upload.seal(7),
    "announce_completion": lambda upload: upload.announce_completion('"old"'),
    "finish": lambda upload: upload.finish(STORED, NOW),
    "cancel": lambda upload: upload.cancel(NOW),
    "expire": lambda upload: upload.expire(NOW),
    "fail": lambda upload: upload.fail("reason", NOW),
}

TABLE = {
    #                       open        sealed      completing  complete    cancelled  expired  failed
    "begin_append":        (OPEN,       UploadBusy, UploadBusy, UploadBusy, Gone,      Gone,    Gone),
    "require_open":        (OPEN,       UploadBusy, UploadBusy, UploadBusy, Gone,      Gone,    Gone),
    "receive":             (OPEN,       UploadBusy, UploadBusy, UploadBusy, Gone,      Gone,    Gone),
    "seal":                (SEALED,     UploadBusy, UploadBusy, UploadBusy, Gone,      Gone,    Gone),
    "announce_completion": (UploadBusy, COMPLETING, COMPLETING, Gone,       Gone,      Gone,    Gone),
    "finish":              (UploadBusy, UploadBusy, COMPLETE,   Gone,       Gone,      Gone,    Gone),
    "cancel":              (CANCELLED,  CANCELLED,  UploadBusy, Gone,       Gone,      Gone,    Gone),
    "expire":              (EXPIRED,    UploadBusy, UploadBusy, Gone,       Gone,      Gone,    Gone),
    "fail":                (FAILED,     FAILED,     FAILED,     Gone,       Gone,      Gone,    Gone),
}  # fmt: skip
CASES = [(state, method, outcome) for method, row in TABLE.items() for state, outcome in zip(State, row, strict=True)]


@pytest.mark.parametrize(
    ("state", "method", "outcome"), CASES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_each_method_in_each_state(state, method, outcome):
    upload = make(state)
    before = copy.deepcopy(upload)
    if isinstance(outcome, State):
        METHODS[method](upload)
        assert outcome is upload.state
        assert outcome is state or outcome in ALLOWED[state]
    else:
        with pytest.raises(outcome):
            METHODS[method](upload)
        assert before == upload


def test_the_table_shows_every_allowed_change_but_the_one_of_recovery():
    shown = {(state, outcome) for state, _, outcome in CASES if isinstance(outcome, State) and outcome is not state}
    allowed = {(state, after) for state, others in ALLOWED.items() for after in others}
    assert allowed == shown | {(SEALED, OPEN)}


def test_outcomes_are_final():
    assert {state for state in State if not ALLOWED[state]} == set(State) - LIVE


# -- appends ------------------------------------------------------------------------------------------------------


def test_a_writer_takes_over_with_its_word():
    upload = make(touched=5.0)
    upload.begin_append(offset=12, length=20, seal_at=15)
    assert (20, 15, None) == (upload.length, upload.seal_at, upload.touched)


def test_a_declared_length_stays_and_the_end_of_the_last_writer_goes():
    upload = make(length=20, seal_at=15)
    upload.begin_append(offset=None, length=None, seal_at=None)
    assert (20, None) == (upload.length, upload.seal_at)


@pytest.mark.parametrize("offset", [0, 11, 13])
def test_another_offset_is_refused_with_ours(offset):
    upload = make()
    before = copy.deepcopy(upload)
    with pytest.raises(OffsetMismatch) as refused:
        upload.begin_append(offset=offset, length=None, seal_at=None)
    assert {"expected-offset": 12, "provided-offset": offset} == refused.value.numbers
    assert before == upload


@pytest.mark.parametrize(
    ("declared", "length", "seal_at"),
    [
        (20, 21, None),  # another length than before
        (None, 11, None),  # less than is there
        (20, None, 21),  # an end beyond the length
        (None, 20, 21),
    ],
)
def test_lengths_that_contradict_each_other_are_refused(declared, length, seal_at):
    upload = make(length=declared)
    before = copy.deepcopy(upload)
    with pytest.raises(BadRequest) as refused:
        upload.begin_append(offset=12, length=length, seal_at=seal_at)
    assert "expected-length" in refused.value.numbers
    assert before == upload


@pytest.mark.parametrize("declared", [{"length": 15}, {}])
def test_a_body_that_must_end_within_the_length_is_refused_beyond_it(declared):
    upload = make(**declared)
    before = copy.deepcopy(upload)
    with pytest.raises(TooLarge) as refused:
        upload.begin_append(offset=12, length=15, seal_at=15, end=16)
    assert (15, "max-size", before) == (refused.value.limit, refused.value.name, upload)
    upload.begin_append(offset=12, length=15, seal_at=15, end=15)


def test_where_no_length_is_known_a_body_may_end_anywhere():
    upload = make()
    upload.begin_append(offset=12, length=None, seal_at=None, end=1 << 60)
    assert upload.length is None


def test_a_provisional_append_is_marked_where_it_begins_and_forgotten_by_the_next():
    upload = make()
    upload.begin_append(offset=12, length=None, seal_at=15, provisional=True)
    assert (12, 15) == (upload.provisional, upload.seal_at)
    upload.begin_append(offset=12, length=None, seal_at=None)
    assert upload.provisional is None


def test_a_confirmed_append_keeps_its_word():
    upload = make(provisional=12, seal_at=12)
    upload.confirm()
    assert (None, True) == (upload.provisional, upload.due)


@pytest.mark.parametrize(
    ("fields", "seal_at"),
    [
        ({"provisional": 12, "seal_at": 12}, None),
        ({"provisional": 12, "seal_at": 20, "length": 20}, None),
        ({"provisional": 12}, None),
        ({"seal_at": 15}, 15),  # there was none to withdraw
    ],
)
def test_a_withdrawn_append_takes_its_word_along(fields, seal_at):
    upload = make(**fields)
    upload.withdraw()
    assert (None, seal_at, 12) == (upload.provisional, upload.seal_at, upload.received)


def test_bytes_are_received_up_to_the_declared_length():
    upload = make(length=15)
    upload.receive(3)
    assert upload.received == 15
    with pytest.raises(LengthExceeded) as refused:
        upload.receive(1)
    assert {"limit": 15} == refused.value.numbers
    assert upload.received == 15


def test_the_offset_never_falls():
    upload = make()
    for offset in (5, 12, 7):
        upload.announce(offset)
    assert upload.offset == 12


# -- the way to the object ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "due"),
    [
        ({}, False),
        ({"seal_at": 12}, True),
        ({"seal_at": 13}, False),
        ({"seal_at": 12, "state": SEALED}, False),
        ({"seal_at": 12, "provisional": 12}, False),  # nobody has verified that this is all
        ({"seal_at": 0, "received": 0}, True),
    ],
)
def test_an_upload_is_due_when_it_has_reached_the_announced_end(fields, due):
    assert due == make(**fields).due


def test_a_seal_fixes_size_and_order():
    upload = make()
    upload.seal(7)
    assert (12, 7) == (upload.size, upload.sealed_order)


def test_a_seal_short_of_the_declared_length_is_refused_and_leaves_it_open():
    upload = make(length=20)
    before = copy.deepcopy(upload)
    with pytest.raises(BadRequest) as refused:
        upload.seal(1)
    assert {"expected-length": 20, "expected-offset": 12} == refused.value.numbers
    assert before == upload


@pytest.mark.parametrize(
    ("fields", "single"),
    [
        ({"received": 3}, False),  # nobody knows the end
        ({"length": 5}, True),
        ({"length": 6}, False),
        ({"seal_at": 5}, True),
        ({"seal_at": 6, "length": 5}, False),  # the nearer word counts
        ({"size": 0, "seal_at": 9}, True),
        ({"size": 5}, True),
        ({"size": 6}, False),
        ({"size": 5, "multipart_id": "m"}, False),
    ],
)
def test_an_upload_is_single_when_its_known_end_lies_in_part_1(fields, single):
    assert single == make(**fields).single


def test_stored_counts_the_contiguous_run_of_receipts():
    upload = make()
    for number in (1, 2, 4):
        upload.add_receipt(Receipt(number, 5, f'"{number}"'))
    assert upload.stored == 10


def test_creation_is_announced_and_then_known_or_gone():
    upload = make()
    upload.announce_creation(NOW)
    assert (NOW, None) == (upload.creating, upload.multipart_id)
    upload.multipart_created("m")
    assert (None, "m") == (upload.creating, upload.multipart_id)
    upload.multipart_gone()
    assert (None, None) == (upload.creating, upload.multipart_id)


def test_a_creation_that_was_given_up_is_in_doubt_whatever_becomes_of_others():
    upload = make()
    upload.announce_creation(NOW)
    upload.multipart_created("m", others=True)
    assert (NOW, "m") == (upload.creating, upload.multipart_id)
    upload.multipart_gone()
    assert (NOW, None) == (upload.creating, upload.multipart_id)
    upload.multipart_created("m", others=True)
    upload.buried()
    assert (None, None) == (upload.creating, upload.multipart_id)


def test_completion_remembers_what_it_replaces_from_its_first_announcement():
    upload = make(SEALED)
    upload.announce_completion('"old"')
    upload.announce_completion('"newer"')
    assert upload.replaces == '"old"'


def test_a_finished_upload_has_its_object_and_perhaps_other_creations_in_the_store():
    upload = make(COMPLETING, multipart_id="m", creating=1.0)
    upload.finish(STORED, NOW)
    assert (STORED, NOW, 12, 1.0, None) == (
        upload.stored_object,
        upload.ended,
        upload.offset,
        upload.creating,
        upload.multipart_id,
    )


@pytest.mark.parametrize(
    ("state", "digests", "refused"),
    [
        (COMPLETE, {"md5": b"right"}, None),
        (COMPLETE, {"md5": b"wrong"}, DigestMismatch),
        (COMPLETE, {"sha256": b"right"}, BadRequest),
        (COMPLETING, {"md5": b"right"}, None),
        (SEALED, {}, UploadBusy),
    ],
)
def test_an_ending_that_is_repeated_is_held_to_what_it_says_of_the_whole(state, digests, refused):
    upload = make(state, digests=digests)
    upload.check_again([])
    with pytest.raises(refused) if refused else nullcontext():
        upload.check_again([Digest("md5", b"right")])


# -- the other ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "reason", "kind"),
    [
        (CANCELLED, None, Gone),
        (EXPIRED, None, Gone),
        (FAILED, "spool: no such file", Gone),
        (FAILED, "precondition: the object exists", PreconditionFailed),
        (FAILED, "conflict: somebody else", KeyConflict),
    ],
)
def test_an_upload_without_an_object_says_why(state, reason, kind):
    failure = make(state, reason=reason).failure
    assert type(failure) is kind
    assert state in failure.detail
    assert (reason or "") in failure.detail


@pytest.mark.parametrize("state", [OPEN, SEALED, COMPLETING, COMPLETE])
def test_no_failure_while_there_is_or_may_be_an_object(state):
    assert make(state).failure is None


@pytest.mark.parametrize(("method", "reason"), [("cancel", None), ("expire", None), ("fail", "reason")])
def test_an_end_has_its_time_and_reason(method, reason):
    upload = make()
    METHODS[method](upload)
    assert (NOW, reason) == (upload.ended, upload.reason)


def test_only_an_open_upload_without_a_writer_expires():
    upload = make()
    assert upload.expires(60) is None
    upload.end_append(NOW)
    assert upload.expires(60) == NOW + 60
    upload.seal(1)
    assert upload.expires(60) is None


# -- recovery -----------------------------------------------------------------------------------------------------


def test_a_restart_takes_what_it_finds():
    upload = make(received=0, offset=5)
    for number in (1, 2, 3):
        upload.add_receipt(Receipt(number, 5, f'"{number}"'))
    upload.recover(7, NOW)
    assert (OPEN, 7, {1, 2}, NOW) == (upload.state, upload.received, set(upload.receipts), upload.touched)


def test_a_restart_forgets_a_provisional_append_and_its_word():
    upload = make(received=0, provisional=12, seal_at=12)
    upload.recover(12, NOW)
    assert (OPEN, None, None, False) == (upload.state, upload.provisional, upload.seal_at, upload.due)


def test_a_receipt_that_begins_where_the_run_ends_goes():
    upload = make()
    upload.add_receipt(Receipt(2, 5, '"2"'))
    upload.recover(5, NOW)
    assert upload.receipts == {}


def test_a_restart_does_not_prolong_an_expiry():
    upload = make(touched=3.0)
    upload.recover(12, NOW)
    assert upload.touched == 3.0


@pytest.mark.parametrize("state", [OPEN, SEALED])
def test_less_than_was_announced_fails_closed(state):
    upload = make(state, offset=12)
    upload.recover(11, NOW)
    assert (FAILED, NOW) == (upload.state, upload.ended)
    assert upload.reason.startswith("state lost")


def test_completing_and_short_is_for_the_store_to_decide():
    upload = make(COMPLETING)  # the store may have the object: the drain looks, and fails it if not
    upload.recover(11, NOW)
    assert upload.state is COMPLETING


def test_completing_and_whole_goes_on():
    upload = make(COMPLETING)
    upload.recover(12, NOW)
    assert upload.state is COMPLETING


def test_sealed_and_short_but_never_answered_opens_again():
    upload = make(SEALED, offset=4)
    upload.recover(7, NOW)
    assert (OPEN, None, None, 7) == (upload.state, upload.size, upload.sealed_order, upload.received)


def test_sealed_and_whole_stays_sealed():
    upload = make(SEALED)
    upload.recover(12, NOW)
    assert (SEALED, 12, 1) == (upload.state, upload.size, upload.sealed_order)


def test_the_smallest_limit_counts():
    assert (None, 1, 2, 1) == (smallest(None), smallest(1, 2), smallest(None, 2), smallest(2, 1, None))
