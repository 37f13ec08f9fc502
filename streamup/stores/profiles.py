"""What the known object stores can do, as data. The start-up probe (`probe.py`) corrects it by experiment.

A profile is found by the store's `Server` header, else by its host name. What no experiment can find cheaply (sizes,
numbers of parts) is only here; checksums and conditions are here for a start without a store, and then probed.
Sources: the stores' documentation, and measurements where a comment says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from streamup.stores import Checksum, StoreLimits

BOTH = frozenset({Checksum.CRC64NVME, Checksum.SHA256})
NEITHER: frozenset[Checksum] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreProfile:
    """What one store takes, and checks.

    `checksums`: kinds it compares with the bytes of every part and keeps with the object (CRC64NVME as the full
    object's, SHA256 as composite). `content_md5`: whether it compares `Content-MD5`, our way out where CRC64NVME is
    not known. `conditional_put`, `conditional_complete`: `If-None-Match: *` is honoured there.
    `server`, `host`: by which it is recognised, a part of the `Server` header and the end of the endpoint's host name.
    """

    name: str
    checksums: frozenset[Checksum] = BOTH
    content_md5: bool = True
    conditional_put: bool = True
    conditional_complete: bool = True
    limits: StoreLimits = field(default_factory=StoreLimits)
    server: str = ""
    host: str = ""


UNKNOWN = StoreProfile(name="unknown", checksums=NEITHER, conditional_put=False, conditional_complete=False)

PROFILES = (
    StoreProfile(name="aws", server="AmazonS3", host="amazonaws.com"),
    # Its part files are named %04d and listed by name, so that 10000 comes before 1001, and the names of its entries
    # have 255 bytes (4.48, both measured).
    StoreProfile(name="seaweedfs", server="SeaweedFS", limits=StoreLimits(max_parts=9_999, max_name_bytes=255)),
    StoreProfile(name="minio", server="MinIO", limits=StoreLimits(max_name_bytes=255)),
    StoreProfile(name="r2", host="r2.cloudflarestorage.com", limits=StoreLimits(equal_parts=True)),
    # The XML API knows its own x-goog-hash and x-goog-if-generation-match instead.
    replace(UNKNOWN, name="gcs", server="UploadServer", host="storage.googleapis.com"),
    StoreProfile(name="ceph", server="Ceph", checksums=frozenset({Checksum.SHA256})),
    replace(UNKNOWN, name="b2", host="backblazeb2.com"),
    UNKNOWN,
)


def recognise(server: str, host: str) -> StoreProfile:
    """The profile for a `Server` header and an endpoint's host name; `UNKNOWN` if neither says anything."""
    for profile in PROFILES:
        if profile.host and f".{host}".endswith(f".{profile.host}"):
            return profile
    for profile in PROFILES:
        if profile.server and profile.server.lower() in server.lower():
            return profile
    return UNKNOWN
