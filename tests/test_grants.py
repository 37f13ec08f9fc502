"""grants.py: what a credential allows, intent by intent."""

import pytest

from streamup.errors import Forbidden, NotFound, TooLarge
from streamup.grants import Grant, decide
from streamup.layout import Layout
from streamup.protocols import Append, BodyTerms, Cancel, Create, Description, Discover, Fetch, Inspect, Look
from streamup.stores import ObjectMeta
from streamup.upload import Upload

LIVE = Grant(subject="ann", prefix="live")
ONE = Grant(subject="ann", key="live/a")


def upload(key="live/a", subject="ann", **values) -> Upload:
    return Upload("id", key, subject, Layout(10), ObjectMeta("token"), created=1.0, **values)


def body(content_length=None, **values) -> BodyTerms:
    return BodyTerms(content_length=content_length, seals=True, **values)


def create(key="live/a", terms=None, **described) -> Create:
    return Create(key=key, body=terms or body(), description=Description(**described))


def append(offset=0, terms=None, **place) -> Append:
    return Append(offset=offset, body=terms or body(), **place)


BY_KEY = {
    "create": create,
    "append": lambda key: append(key=key),
    "inspect": lambda key: Inspect(key=key),
    "look": lambda key: Look(key=key),
    "fetch": lambda key: Fetch(key=key),
    "cancel": lambda key: Cancel(key=key),
}
BY_ID = {
    "append": append(upload_id="id"),
    "inspect": Inspect(upload_id="id"),
    "look": Look(upload_id="id"),
    "cancel": Cancel(upload_id="id"),
}


def allowed(grant, intent, found=None, method="PUT", *, deletes=False) -> bool:
    try:
        decide(grant, method, intent, found, deletes=deletes)
    except (Forbidden, NotFound):
        return False
    return True


# -- which keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grant", "key", "reached"),
    [
        (Grant(subject="ann"), "any/thing", True),
        (LIVE, "live/a", True),
        (LIVE, "live/b/c", True),
        (LIVE, "live", False),
        (LIVE, "liver/a", False),
        (LIVE, "Live/a", False),
        (LIVE, "a/live/a", False),
        (Grant(subject="ann", prefix="live/"), "live/a", True),
        (Grant(subject="ann", prefix="live/"), "liver", False),
        (ONE, "live/a", True),
        (ONE, "live/a/b", False),
        (ONE, "live/a-1", False),
        (ONE, "live/", False),
    ],
)
@pytest.mark.parametrize("intent", BY_KEY)
def test_a_key_is_reached_by_itself_or_below_a_prefix(grant, key, reached, intent):
    assert allowed(grant, BY_KEY[intent](key)) is reached
    assert grant.owns(upload(key)) is reached


@pytest.mark.parametrize("place", ["", "/", "/live", "live//", "a//b", "../a", "a/./b", "a\\b", "a\n", "x" * 1025])
@pytest.mark.parametrize("name", ["key", "prefix"])
def test_a_grant_for_what_can_be_no_key_is_none(name, place):
    with pytest.raises(ValueError, match=f"^{name}: "):
        Grant(subject="ann", **{name: place})


def test_a_grant_has_a_key_or_a_prefix():
    with pytest.raises(ValueError, match="not for both"):
        Grant(subject="ann", key="a", prefix="b")


# -- whose uploads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intent", BY_ID)
@pytest.mark.parametrize(
    ("found", "own"),
    [(upload(), True), (None, False), (upload(subject="bob"), False), (upload("other/a"), False)],
    ids=["own", "none", "somebody else's", "out of reach"],
)
def test_an_upload_that_is_not_ones_own_is_unknown_whatever_is_asked_of_it(intent, found, own):
    assert allowed(LIVE, BY_ID[intent], found) is own
    if not own:
        with pytest.raises(NotFound) as refusal:
            decide(LIVE, "PUT", BY_ID[intent], found, deletes=True)
        with pytest.raises(NotFound) as never_was:
            decide(LIVE, "PUT", BY_ID[intent], None, deletes=True)
        assert refusal.value.detail == never_was.value.detail


def test_a_list_and_what_a_server_can_are_for_everybody_with_a_credential():
    assert allowed(LIVE, Look())
    assert allowed(Grant(subject="ann", methods=frozenset()), Discover())


def test_what_has_no_rule_is_not_allowed():
    with pytest.raises(Forbidden, match="no rule"):
        decide(Grant(subject="ann"), "POST", create(None), None, deletes=False)


# -- methods --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intent", [*(make("live/a") for make in BY_KEY.values()), *BY_ID.values(), Look()])
def test_a_method_is_allowed_only_by_its_name(intent):
    grant = Grant(subject="ann", methods=frozenset({"GET", "PUT"}))
    assert allowed(grant, intent, upload(), "PUT")
    for method in ("HEAD", "PATCH", "put"):
        # Before anything is looked for: of an upload that is there no more is said than of one that is not.
        with pytest.raises(Forbidden, match=method):
            decide(grant, method, intent, None, deletes=False)


@pytest.mark.parametrize(("deletes", "overwrite", "expected"), [(0, 0, 1), (0, 1, 1), (1, 0, 0), (1, 1, 1)])
def test_who_may_not_overwrite_an_object_may_not_remove_it(deletes, overwrite, expected):
    grant = Grant(subject="ann", overwrite=bool(overwrite))
    assert allowed(grant, Cancel(key="a"), deletes=bool(deletes)) is bool(expected)
    assert allowed(grant, Cancel(upload_id="id"), upload(), deletes=bool(deletes))


# -- types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("video/mp4", True),
        ('VIDEO/mp4 ; codecs="avc1, mp4a"; a=b', True),
        ("audio/ogg", True),
        ("video/mp4v", False),
        ("video/webm", False),
        ("text/html", False),
        ("", False),
        (None, False),
    ],
)
def test_the_content_type_is_one_of_those(found, expected):
    grant = Grant(subject="ann", content_types=("Video/MP4", "audio/*"))
    assert allowed(grant, create(content_type=found)) is expected
    assert allowed(grant, append(key="live/a", create=create(content_type=found))) is expected
    assert allowed(Grant(subject="ann"), create(content_type=found))


def test_a_body_without_a_type_is_bytes():
    assert allowed(Grant(subject="ann", content_types=("application/octet-stream",)), create())
    assert not allowed(Grant(subject="ann", content_types=()), create())


# -- sizes ----------------------------------------------------------------------------------------------------------

SMALL = Grant(subject="ann", max_bytes=100)


@pytest.mark.parametrize(
    ("intent", "found", "limit"),
    [
        (create(terms=body(100)), None, None),
        (create(terms=body(101)), None, 100),
        (create(terms=body(length=101)), None, 100),
        (create(terms=body()), None, None),
        (create(terms=body(41)), upload(received=60), 100),
        (create(terms=body(41)), upload(received=60, subject="bob"), None),
        (append(60, body(40), key="a"), upload("a"), None),
        (append(60, body(41), key="a"), upload("a"), 100),
        (append(60, body(limit=101), key="a"), None, 100),
        (append(60, body(41), upload_id="id"), upload(), 100),
        (append(60, body(31), upload_id="id"), upload(max_bytes=90), 90),
        (append(60, body(31), key="live/a"), upload(max_bytes=90), 90),
        (append(60, body(31), key="live/a"), upload(max_bytes=90, subject="bob"), None),
        (append(60, body(41), upload_id="id"), upload(max_bytes=110), 100),
        (append(0, body(length=101), upload_id="id"), upload(), 100),
    ],
)
def test_more_than_is_allowed_is_refused_before_a_byte_of_it(intent, found, limit):
    if limit is None:
        decide(SMALL, "PUT", intent, found, deletes=False)
    else:
        with pytest.raises(TooLarge) as refusal:
            decide(SMALL, "PUT", intent, found, deletes=False)
        assert refusal.value.numbers["limit"] == limit
