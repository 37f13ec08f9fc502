"""What goes with an object, by its key."""

import pytest

from streamup.object_options import ObjectOptions, ObjectRules, tag_objection

KEY = bytes(range(32))
GLOBAL = ObjectOptions(sse="aws:kms", sse_kms_key_id="k", storage_class="STANDARD", tags=(("team", "video"),))
RULES = ObjectRules(
    GLOBAL,
    {
        "recordings/live/": {"acl": "private", "storage_class": None, "tags": ()},
        "recordings/": {"storage_class": "STANDARD_IA", "cache_control": "no-store"},
        "secret/": {"sse_c_key": KEY},
        "plain/": {"sse": None},
        "other/": {"sse_kms_key_id": "k2"},
    },
)


@pytest.mark.parametrize("key", ["a", "recordings", "recordings2/a", "live/a", "x/recordings/a"])
def test_no_prefix_is_above_other_keys(key):
    assert RULES.of(key) == GLOBAL


def test_a_prefix_changes_what_it_names_and_the_longer_one_has_the_last_word():
    above = RULES.of("recordings/a")
    assert (above.storage_class, above.cache_control, above.tags) == ("STANDARD_IA", "no-store", GLOBAL.tags)
    below = RULES.of("recordings/live/b/c")
    assert (below.storage_class, below.cache_control, below.tags, below.acl) == (None, "no-store", (), "private")
    assert below.sse_kms_key_id == "k"


@pytest.mark.parametrize(
    ("key", "encryption"),
    [("secret/a", (None, None, KEY)), ("plain/a", (None, None, None)), ("other/a", ("aws:kms", "k2", None))],
)
def test_who_says_how_to_encrypt_says_all_of_it(key, encryption):
    options = RULES.of(key)
    assert (options.sse, options.sse_kms_key_id, options.sse_c_key) == encryption
    assert not list(options.objections())


def test_each_set_of_options_can_be_looked_at_beforehand():
    assert RULES.each.keys() == {"", *RULES.prefixes}
    assert RULES.each["recordings/live/"] == RULES.of("recordings/live/any")


def test_a_customers_key_is_known_by_its_md5_and_not_shown():
    options = ObjectOptions(sse_c_key=KEY)
    assert options.sse_c_key_md5 == "tP/LI3N87DFaSk0aoqYgzg=="  # `printf … | openssl md5 -binary | base64`
    assert GLOBAL.sse_c_key_md5 is None
    assert "sse_c_key" not in repr(options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sse": "AES"}, "--sse AES is unknown"),
        ({"sse": "AES256", "sse_c_key": KEY}, "exclude each other"),
        ({"sse_kms_key_id": "k"}, "--sse-kms-key-id only means something with --sse aws:kms"),
        ({"sse_kms_key_id": "k", "sse": "AES256"}, "--sse-kms-key-id only means something"),
        ({"sse_kms_context": (("a", "b"),)}, "--sse-kms-context only means something"),
        ({"sse_bucket_key": False}, "--sse-bucket-key only means something"),
        ({"sse_bucket_key": True, "sse": "aws:kms:dsse"}, "--sse-bucket-key only means something"),
        ({"acl": "public"}, "no canned ACL of S3. Choose from private, public-read"),
        ({"tags": tuple((str(number), "") for number in range(11))}, "given 11 times"),
        ({"tags": (("a", "1"), ("b", "1"), ("a", "2"))}, "--tag a is given twice"),
    ],
)
def test_what_s3_would_refuse_is_objected_to(options, words):
    (objection,) = ObjectOptions(**options).objections()
    assert words in objection


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sse": "aws:kms", "sse_kms_key_id": "k", "sse_kms_context": (("a", "b"),), "sse_bucket_key": True},
        {"sse": "aws:kms:dsse", "sse_kms_key_id": "k"},
        {"sse_c_key": KEY, "acl": "bucket-owner-full-control"},
        {"tags": tuple((str(number), "") for number in range(10))},
    ],
)
def test_what_s3_takes(options):
    assert list(ObjectOptions(**options).objections()) == []


@pytest.mark.parametrize(
    ("name", "value"), [("a", ""), ("x" * 128, "y" * 256), ("Größe 1", "a+b=c/d:e@f_g.h-i"), ("東京", "٣")]
)
def test_good_tags(name, value):
    assert tag_objection(name, value) is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("", "v", "1 to 128"),
        ("x" * 129, "v", "1 to 128"),
        ("a", "y" * 257, "256 at most"),
        ("aws:a", "v", "belong to AWS"),
        ("AWS:a", "v", "belong to AWS"),
        ("a&b", "v", "letters, digits"),
        ("a", "v\n", "letters, digits"),
        ("a", "\N{GRINNING FACE}", "letters, digits"),
    ],
)
def test_tags_that_s3_refuses(name, value, words):
    assert words in tag_objection(name, value)
