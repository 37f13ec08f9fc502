"""What an operator adds to a bucket, as the documents AWS takes: policy, lifecycle rules, CORS rules.

`put-bucket-lifecycle-configuration` and `put-bucket-cors` replace all rules there are, so these documents hold the
bucket's other rules as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

Rule = Mapping[str, Any]

DAY_SECONDS = 24 * 3600.0
SPARE_DAYS = 7
"""How long a stream may have run before it is interrupted for the last time. S3 counts from the upload's beginning, not
from the last byte, as `--expire` does."""

ON_BUCKET = frozenset(
    {
        "s3:GetBucketCORS",
        "s3:GetBucketObjectLockConfiguration",
        "s3:GetBucketVersioning",
        "s3:GetEncryptionConfiguration",
        "s3:GetLifecycleConfiguration",
        "s3:ListBucket",
        "s3:ListBucketMultipartUploads",
        "s3:ListBucketVersions",
    }
)
"""Actions that are granted on the bucket; the others of s3 are granted on its objects."""

EXPOSED = (
    "Accept-Ranges",
    "Content-Range",
    "ETag",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-sha256",
    "x-amz-checksum-type",
    "x-amz-mp-parts-count",
)
"""What a page must be able to read of a download, to resume and to verify it. S3 takes no wildcard here."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the objects are. `partition` is AWS's (`aws`, `aws-cn`); `kms_key` an ARN, an id or an alias."""

    bucket: str
    prefix: str = ""
    partition: str = "aws"
    kms_key: str | None = None


def policy(place: Place, actions: Iterable[str]) -> Mapping[str, Any]:
    """An IAM policy that allows exactly these actions, exactly there."""
    wanted = set(actions)
    bucket = f"arn:{place.partition}:s3:::{place.bucket}"
    of_key = {action for action in wanted if action.startswith("kms:")}
    statements: list[tuple[str, set[str], Mapping[str, Any]]] = [
        ("StreamupBucket", wanted & ON_BUCKET, {"Resource": bucket}),
        ("StreamupObjects", wanted - ON_BUCKET - of_key, {"Resource": f"{bucket}/{place.prefix}*"}),
        ("StreamupKey", of_key, _key(place)),
    ]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Sid": sid, "Effect": "Allow", "Action": sorted(some), **where} for sid, some, where in statements if some
        ],
    }


def _key(place: Place) -> Mapping[str, Any]:
    """The KMS key in a policy. An alias is no resource there; it is a condition on the request."""
    key = place.kms_key or "*"
    if key.startswith("arn:") and ":alias/" not in key:
        return {"Resource": key}
    anything = f"arn:{place.partition}:kms:*:*:key/"
    if "alias/" not in key:
        return {"Resource": anything + key}
    alias = "alias/" + key.partition("alias/")[2]
    return {"Resource": anything + "*", "Condition": {"StringEquals": {"kms:RequestAlias": alias}}}


# --- lifecycle


def wanted_days(expire_seconds: float) -> int:
    """After how many days an unfinished multipart upload can be of no more use."""
    return ceil(expire_seconds / DAY_SECONDS) + SPARE_DAYS


def abort_days(rules: Iterable[Rule], prefix: str) -> int | None:
    """After how many days S3 aborts every unfinished upload below `prefix`; None: never, or not all of them."""
    days = [_days(rule) for rule in rules if _aborts(rule) and prefix.startswith(_prefix(rule))]
    return min(days, default=None)


def too_short(rules: Iterable[Rule], prefix: str, expire_seconds: float) -> Sequence[Rule]:
    """The rules that abort an upload, of this prefix or a part of it, which a client may still come back to."""
    return [
        rule
        for rule in rules
        if _aborts(rule)
        and (prefix.startswith(_prefix(rule)) or _prefix(rule).startswith(prefix))
        and _days(rule) * DAY_SECONDS < expire_seconds
    ]


def lifecycle(rules: Sequence[Rule], prefix: str, expire_seconds: float) -> Mapping[str, Any]:
    """The bucket's lifecycle rules with one that aborts what is left below `prefix`, and none that does it early."""
    days = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": wanted_days(expire_seconds)}}
    short = too_short(rules, prefix, expire_seconds)
    kept = [{**rule, **days} if rule in short else rule for rule in rules]
    if abort_days(kept, prefix) is None:
        name = "-".join(["streamup-abort-incomplete", *filter(None, prefix.split("/"))])
        kept = [*kept, {"ID": name[:255], "Status": "Enabled", "Filter": {"Prefix": prefix}, **days}]
    return {"Rules": kept}


def _aborts(rule: Rule) -> bool:
    """Whether it aborts multipart uploads. They have no tags and no size yet: S3 takes no such filter with that."""
    among = rule.get("Filter", {}).keys() | rule.get("Filter", {}).get("And", {}).keys()
    return rule.get("Status") == "Enabled" and "AbortIncompleteMultipartUpload" in rule and among <= {"Prefix", "And"}


def _prefix(rule: Rule) -> str:
    """Old rules have it outside of their filter."""
    chosen = rule.get("Filter", {})
    return str(chosen.get("Prefix") or chosen.get("And", {}).get("Prefix") or rule.get("Prefix") or "")


def _days(rule: Rule) -> int:
    return int(rule["AbortIncompleteMultipartUpload"].get("DaysAfterInitiation", 0))


# --- CORS


def allows_downloads(rules: Iterable[Rule]) -> bool:
    """Whether pages may read objects, and what is told of them.

    A page of another origin comes by a redirect, and then its browser says `Origin: null` (Fetch, "redirect-tainted").
    """
    exposed = {name.lower() for name in EXPOSED}
    return any(
        {"*", "null"} & set(rule.get("AllowedOrigins", ()))
        and {"GET", "HEAD"} <= set(rule.get("AllowedMethods", ()))
        and exposed <= {name.lower() for name in rule.get("ExposeHeaders", ())}
        for rule in rules
    )


def cors(rules: Sequence[Rule]) -> Mapping[str, Any]:
    """The bucket's CORS rules with one for downloads. Any origin: what may be read is decided by the presigned URL."""
    return {
        "CORSRules": [
            *rules,
            {
                "ID": "streamup-downloads",
                "AllowedOrigins": ["*"],
                "AllowedMethods": ["GET", "HEAD"],
                "AllowedHeaders": ["*"],
                "ExposeHeaders": list(EXPOSED),
                "MaxAgeSeconds": 3600,
            },
        ]
    }
