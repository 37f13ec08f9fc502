"""What goes with an object beside its bytes, by its key: encryption, storage class, ACL, tags, Cache-Control.

The names and the limits are S3's. A key's options are those of the whole server, changed by each configured prefix
above the key, the longer one last.
"""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Pairs = tuple[tuple[str, str], ...]

ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")
CANNED_ACLS = (
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
)
MOST_TAGS = 10
MOST_TAG_NAME = 128
MOST_TAG_VALUE = 256
CUSTOMER_KEY_BYTES = 32

UNENCRYPTED: Mapping[str, Any] = {
    "sse": None,
    "sse_kms_key_id": None,
    "sse_kms_context": (),
    "sse_bucket_key": None,
    "sse_c_key": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectOptions:
    """What is sent with an object, by S3's names; None and () are not sent, so that the bucket's defaults hold.

    `sse_c_key` is a customer's key (SSE-C): it also goes with each part, and with every question about the object.
    """

    sse: str | None = None
    sse_kms_key_id: str | None = None
    sse_kms_context: Pairs = ()
    sse_bucket_key: bool | None = None
    sse_c_key: bytes | None = field(default=None, repr=False)
    storage_class: str | None = None
    acl: str | None = None
    tags: Pairs = ()
    cache_control: str | None = None

    @property
    def sse_c_key_md5(self) -> str | None:
        """What S3 knows a customer's key by, and what may be shown of it."""
        if self.sse_c_key is None:
            return None
        return base64.b64encode(hashlib.md5(self.sse_c_key, usedforsecurity=False).digest()).decode()

    def changed(self, changes: Mapping[str, Any]) -> ObjectOptions:
        """These options with some others. Who says how to encrypt says all of it: a KMS key goes with its `sse`."""
        if changes.keys() & {"sse", "sse_c_key"}:
            changes = {**UNENCRYPTED, **changes}
        return replace(self, **changes)

    def objections(self) -> Iterator[str]:
        """Why S3 would refuse them."""
        yield from self._encryption_objections()
        if self.acl not in (None, *CANNED_ACLS):
            yield f"--acl {self.acl} is no canned ACL of S3. Choose from {', '.join(CANNED_ACLS)}."
        names = [name for name, _ in self.tags]
        if len(names) > MOST_TAGS:
            yield f"--tag is given {len(names)} times, and an object has {MOST_TAGS} tags at most."
        if doubled := {name for name in names if names.count(name) > 1}:
            yield f"--tag {', '.join(sorted(doubled))} is given twice. A tag has one value."

    def _encryption_objections(self) -> Iterator[str]:
        if self.sse not in (None, *ENCRYPTIONS):
            yield f"--sse {self.sse} is unknown in S3. Choose AES256, aws:kms or aws:kms:dsse."
        if self.sse and self.sse_c_key:
            yield "--sse and --sse-c-key exclude each other: the store's key, or yours. Leave one of them out."
        with_kms = {"--sse-kms-key-id": self.sse_kms_key_id, "--sse-kms-context": self.sse_kms_context}
        for name, value in with_kms.items():
            if value and not (self.sse or "").startswith("aws:kms"):
                yield f"{name} only means something with --sse aws:kms. Add that, or leave it out."
        if self.sse_bucket_key is not None and self.sse != "aws:kms":
            yield "--sse-bucket-key only means something with --sse aws:kms. Add that, or leave it out."


@dataclass(frozen=True, slots=True)
class ObjectRules:
    """The options of every key: `default`, and what is another below a prefix (which ends in `/`)."""

    default: ObjectOptions = ObjectOptions()
    prefixes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    def of(self, key: str) -> ObjectOptions:
        options = self.default
        for prefix in sorted(self.prefixes, key=len):
            if key.startswith(prefix):
                options = options.changed(self.prefixes[prefix])
        return options

    @property
    def each(self) -> Mapping[str, ObjectOptions]:
        """All options there can be, by prefix."""
        return {"": self.default} | {prefix: self.of(prefix) for prefix in self.prefixes}


AS_THE_BUCKET_HAS_IT = ObjectRules()
"""Nothing is said of any object: the bucket's defaults hold."""


def tag_objection(name: str, value: str) -> str | None:
    """Why S3 would refuse this tag."""
    if not 1 <= len(name) <= MOST_TAG_NAME or len(value) > MOST_TAG_VALUE:
        return f"A tag's name has 1 to {MOST_TAG_NAME} characters, its value {MOST_TAG_VALUE} at most"
    if name.lower().startswith("aws:"):
        return "Names that begin with aws: belong to AWS"
    if not all(unicodedata.category(letter)[0] in "LNZ" or letter in "_.:/=+-@" for letter in name + value):
        return "A tag has letters, digits, spaces and _ . : / = + - @ only"
    return None
