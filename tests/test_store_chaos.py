"""The faults of a store are what their names say, in the shares that they have, and the same for the same seed."""

import pytest
from store_chaos import KINDS, STORMS, Chaos, in_body, in_field, one_letter
from store_proxy import Answer, Fault, Request, no

OPERATIONS = {
    "HeadObject": ("HEAD", "a"),
    "PutObject": ("PUT", "a"),
    "CreateMultipartUpload": ("POST", "a?uploads"),
    "UploadPart": ("PUT", "a?partNumber=1&uploadId=u"),
    "CompleteMultipartUpload": ("POST", "a?uploadId=u"),
    "ListParts": ("GET", "a?uploadId=u"),
}


def asked(operation, number=1):
    method, target = OPERATIONS[operation]
    return Request(method, f"/bucket/{target}", {"content-length": "1000"}, number, operation, 0.0)


def fates(seed, count=400, **options):
    chaos = Chaos(seed, {}, **options)
    return [(name, chaos(asked(name, n))) for n in range(count) for name in OPERATIONS], chaos


def named(found):
    return [(operation, fault and fault.name) for operation, fault in found]


def test_the_same_seed_has_the_same_fates():
    assert named(fates(3)[0]) == named(fates(3)[0])
    assert named(fates(3)[0]) != named(fates(4)[0])


def test_every_kind_of_fault_comes_and_at_its_operations_only():
    found, chaos = fates(1, 4000)
    met = {(fault.name, operation) for operation, fault in found if fault}
    for kind in KINDS:
        wanted = {name for name in OPERATIONS if not kind.operations or name in kind.operations}
        assert {operation for name, operation in met if name == kind.name} == wanted, kind.name
    assert {kind.name for kind in chaos.met["bucket/a"]} == {kind.name for kind in KINDS}


def test_no_operation_meets_more_than_it_has_requests():
    for operation in OPERATIONS:
        assert sum(kind.share for kind in KINDS if not kind.operations or operation in kind.operations) < 0.6


def test_who_is_spared_meets_nothing_that_ends_or_reorders():
    chaos = fates(1, 4000, spared=lambda _: True)[1]
    assert [kind.name for kind in chaos.met["bucket/a"] if kind.ends or kind.reorders] == []


@pytest.mark.parametrize("name", STORMS)
def test_in_a_storm_nearly_all_requests_meet_it_and_then_it_is_over(name):
    chaos = Chaos(1, {})
    with chaos.storm(name):
        hit = [chaos(asked("HeadObject", n)) == STORMS[name] for n in range(500)]
    assert 350 < sum(hit) < 450
    assert STORMS[name] not in [chaos(asked("HeadObject", n)) for n in range(500)]
    chaos.over = True
    assert [chaos(asked("HeadObject", n)) for n in range(500)] == [None] * 500


def test_somebody_else_acts():
    acted = []
    chaos = Chaos(1, {"aborts": acted.append})
    faults = [chaos(asked("UploadPart", n)) for n in range(2000)]
    (fault, *_) = [fault for fault in faults if fault and fault.name == "aborts"]
    fault.act(asked("UploadPart"))
    assert len(acted) == 1


def test_one_bit_of_an_answer_turns():
    assert [one_letter(text) for text in ('"a1"', "/+9=", "7", "==")] == ['"`1"', "/+8=", "6", "=="]
    change = in_field("etag")(None, None).change
    assert change(Answer(200, {"etag": '"b1"', "date": "b"})) == Answer(200, {"etag": '"c1"', "date": "b"})
    assert change(no(404, "NoSuchKey")) == no(404, "NoSuchKey")
    fault = in_body("<Size>(.*?)</")(None, None)
    assert isinstance(fault, Fault)
    assert fault.change(Answer(200, {}, b"<a><Size>10</Size><Size>10</Size></a>")).body == (
        b"<a><Size>00</Size><Size>10</Size></a>"
    )
