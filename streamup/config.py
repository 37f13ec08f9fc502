"""What the operator decides: one frozen value, checked before anything starts.

`Config` is also the one table of `streamup serve`'s options. Each field says how it is written; the flag, the variable
`STREAMUP_…` and the key of the TOML file follow from its name. Add an option: one field here, and a rule in `check` if
not every value is a good one.
"""

# ruff: noqa: RUF009 - the calls in Config's body are `dataclasses.field` with what we write beside each one

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal, get_args

from streamup.errors import ConfigError
from streamup.hosts import is_loopback
from streamup.keys import check_template
from streamup.layout import GIB, MIB
from streamup.object_options import ObjectOptions, ObjectRules, Pairs
from streamup.values import (
    parse_address,
    parse_api_key,
    parse_count,
    parse_duration,
    parse_field_value,
    parse_host,
    parse_jwt_secret,
    parse_network,
    parse_origin,
    parse_pair,
    parse_percent,
    parse_size,
    parse_sse_c_key,
    parse_store,
    parse_tag,
    parse_template,
    parse_url,
    unless,
)

InterruptedPolicy = Literal["reject", "append", "replace", "new"]

MIN_PART_BYTES = 5 * MIB
MAX_PART_BYTES = 5 * GIB
SUBJECT_APPENDS = 100
"""A second: a fifth of what one process does on two cores, and twenty times what the segments of a stream need."""

SPOOL_SHARE = 8
"""The spool holds at least this many parts, so that a part which was begun can always fill while others drain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """How one field of `Config` is written down. `parse` raises `ConfigError`; a flag takes no value and has none.

    `pairs`: several NAME=VALUE, in TOML a table. `per_prefix`: it may differ for keys below a prefix, in a TOML table.
    """

    name: str
    help: str
    default: str | bool | None = None
    metavar: str = ""
    parse: Callable[[str], Any] | None = None
    multiple: bool = False
    pairs: bool = False
    negatable: bool = False
    secret: bool = False
    per_prefix: bool = False

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return "STREAMUP_" + self.name.upper().replace("-", "_")


# --- the table


def _option(name: str, parse: Callable[[str], Any], default: str | None, metavar: str, text: str, **how: bool) -> Any:
    option = Option(name=name, parse=parse, default=default, metavar=metavar, help=text, **how)
    value = None if default is None else parse(default)
    return field(default=value, metadata={"option": option}, repr=not option.secret)


def _several(name: str, parse: Callable[[str], Any], metavar: str, text: str, **how: bool) -> Any:
    option = Option(name=name, parse=parse, metavar=metavar, help=text, multiple=True, **how)
    return field(default=(), metadata={"option": option}, repr=not option.secret)


def _flag(name: str, text: str, *, as_local: bool = False) -> Any:
    """A switch. `as_local`: it follows `--local` unless somebody says otherwise, so it can be switched off, too."""
    option = Option(name=name, default=None if as_local else False, help=text, negatable=as_local)
    return field(default=False, metadata={"option": option})


def _of_an_object(name: str, parse: Callable[[str], Any], metavar: str, text: str, **how: bool) -> Any:
    """One of `ObjectOptions`, for all objects that no `[prefix."…"]` says otherwise of."""
    return _option(name, parse, None, metavar, text, per_prefix=True, **how)


def _pairs_of_an_object(name: str, parse: Callable[[str], Any], text: str) -> Any:
    return _several(name, parse, "NAME=VALUE", text, pairs=True, per_prefix=True)


def _choice(name: str, words: tuple[str, ...], default: str, text: str) -> Any:
    def parse(word: str) -> str:
        if word not in words:
            raise ConfigError(f"{word!r} is none of {', '.join(words)}.")
        return word

    return _option(name, parse, default, "|".join(words), text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All of `streamup serve`'s options, in bytes and seconds."""

    bucket: str = "streamup"
    prefix: str = ""
    """Empty, or ends in `/`. With the bucket it is `s3://bucket/prefix`, the only argument of `serve`."""
    local: bool = _flag("local", "Keep the objects on this machine, in an S3 store that is started for it.")
    listen: tuple[str, int] = _option("listen", parse_address, "127.0.0.1:8080", "HOST:PORT", "Serve here.")
    admin_listen: tuple[str, int] | None = _option(
        "admin-listen",
        unless("off", parse_address),
        "127.0.0.1:9464",
        "HOST:PORT|off",
        "Serve /metrics, /healthz and /readyz here, to anybody who reaches it: probes send no credential.",
    )
    data: Path = _option("data", Path, "streamup-data", "DIR", "State, spool and, with --local, objects.")
    any_file_system: bool = _flag(
        "any-file-system", "Take --data on what looks like a network file system, where bytes can be lost."
    )
    part_bytes: int = _option("part-size", parse_size, "8MiB", "SIZE", "Send parts of this size to the store.")
    layout: Literal["growing", "equal"] = _choice(
        "layout", ("growing", "equal"), "growing", "Parts of streams of unknown length: grow, or stay equal."
    )
    parallel_parts: int = _option("parallel-parts", parse_count, "8", "N", "Parts on their way to the store at once.")
    checksum: Literal["crc64nvme", "sha256", "none"] = _choice(
        "checksum", ("crc64nvme", "sha256", "none"), "crc64nvme", "Stored with each object, checked by the store."
    )
    spool_bytes: int = _option(
        "spool-size", parse_size, "10GiB", "SIZE", "Disk for bytes which the store does not have yet."
    )
    disk_floor_bytes: int = _option(
        "disk-floor", parse_size, "512MiB", "SIZE", "Refuse new uploads when the disk has less than this."
    )
    expire_seconds: float = _option(
        "expire", parse_duration, "24h", "TIME", "Give an interrupted upload up after this time without a client."
    )
    idle_seconds: float = _option(
        "idle", parse_duration, "30s", "TIME", "Interrupt a client that sends nothing for this long."
    )
    interrupted: InterruptedPolicy = _choice(
        "interrupted", get_args(InterruptedPolicy), "reject", "What a plain PUT to an interrupted key does."
    )
    key_template: str = _option(
        "key-template",
        parse_template,
        "{id}/{filename}",
        "TEMPLATE",
        "Name of uploads that are created without a key, of {id} and {filename}.",
    )
    store_timeout_seconds: float = _option(
        "store-timeout", parse_duration, "60s", "TIME", "Wait for the store before answering 202 instead of 201."
    )
    grace_seconds: float = _option(
        "grace", parse_duration, "20s", "TIME", "On SIGTERM, let parts on their way finish within this time."
    )
    downloads: bool = _flag("downloads", "GET redirects to the store. [default: with --local]", as_local=True)
    deletes: bool = _flag("deletes", "DELETE removes stored objects, too. [default: with --local]", as_local=True)
    max_upload_bytes: int | None = _option("max-upload-size", parse_size, None, "SIZE", "Refuse larger uploads.")
    max_open_uploads: int = _option("max-open-uploads", parse_count, "10000", "N", "Refuse more unfinished uploads.")
    max_connections: int = _option(
        # More streams than one process can carry, and at worst 1.6 GB: 0.8 MB each while the spool is full.
        "max-connections",
        parse_count,
        "2000",
        "N",
        "Serve so many clients at once; fewer where the process may not have two open files for each.",
    )
    max_age_seconds: float | None = _option(
        # Where a bucket's lifecycle rule removes what is unfinished, it usually does so after a week.
        "max-age",
        unless("off", parse_duration),
        "7d",
        "TIME|off",
        "Interrupt an upload for good this long after it began: what has arrived is kept, and can be made the object.",
    )
    min_rate: int = _option(
        # 2 kbit/s: less than any codec of speech needs, and more than a client costs its attacker who drips.
        "min-rate",
        parse_size,
        "240B",
        "SIZE",
        "Interrupt a client that sends fewer bytes a second than this, over any --idle that we have waited for it; 0: "
        "never.",
    )
    head_seconds: float = _option(
        # A head fits into one packet or three. Longer than the keep-alive of most clients, so that they end first.
        "head-timeout",
        parse_duration,
        "20s",
        "TIME",
        "Close a connection on which no whole request head has come for this long.",
    )
    subject_share_percent: int = _option(
        # No one can lock out all others, and two that behave never meet a limit that is not everybody's.
        "subject-share",
        parse_percent,
        "50%",
        "PERCENT",
        "Where several subjects can come, each has so much of --max-open-uploads, --max-connections and --spool-size.",
    )
    subject_appends: int | None = _option(
        "subject-appends",
        parse_count,
        None,
        "N",
        f"Bodies of one subject a second. [default: {SUBJECT_APPENDS}, if there are several subjects]",
    )
    s3_endpoint_url: str | None = _option("s3-endpoint-url", parse_url, None, "URL", "The store, if it is not AWS.")
    s3_public_endpoint_url: str | None = _option(
        "s3-public-endpoint-url", parse_url, None, "URL", "The store as clients reach it, for downloads."
    )
    s3_path_style: bool = _flag("s3-path-style", "Write the bucket into the path, not into the host name.")
    sse: str | None = _of_an_object("sse", str, "AES256|aws:kms|aws:kms:dsse", "Encryption by the store.")
    sse_kms_key_id: str | None = _of_an_object("sse-kms-key-id", str, "ID", "The key for --sse aws:kms.")
    sse_kms_context: Pairs = _pairs_of_an_object(
        "sse-kms-context", parse_pair, "Encryption context for --sse aws:kms. Repeatable."
    )
    sse_bucket_key: bool | None = field(
        default=None,
        metadata={
            "option": Option(
                name="sse-bucket-key",
                help="With --sse aws:kms, ask KMS for a key per bucket rather than per object.",
                negatable=True,
                per_prefix=True,
            )
        },
    )
    sse_c_key: bytes | None = _of_an_object(
        "sse-c-key",
        parse_sse_c_key,
        "KEY",
        "Encryption by the store with this key (SSE-C), which it does not keep: base64 of 32 bytes. "
        "A command line is visible to other users: better STREAMUP_SSE_C_KEY_FILE.",
        secret=True,
    )
    storage_class: str | None = _of_an_object("storage-class", str, "CLASS", "Storage class of the objects.")
    acl: str | None = _of_an_object("acl", str, "ACL", "Canned ACL of the objects, for example bucket-owner-read.")
    tags: Pairs = _pairs_of_an_object("tag", parse_tag, "A tag of the objects. Repeatable.")
    cache_control: str | None = _of_an_object(
        "cache-control", parse_field_value, "VALUE", "Cache-Control of objects whose client names none."
    )
    prefixes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    """What of all this is another for keys below a prefix (which ends in `/`): `[prefix."…"]` in the TOML file."""
    allowed_hosts: tuple[str, ...] = _several(
        "allowed-host", parse_host, "NAME", "Answer only to these names (and loopback). Repeatable."
    )
    cors_origins: tuple[str, ...] = _several(
        "cors-origin", parse_origin, "ORIGIN", "Pages of this origin may send requests. Repeatable."
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _several(
        "trusted-proxy", parse_network, "ADDRESS|CIDR", "Believe Forwarded and X-Forwarded-* from here. Repeatable."
    )
    no_interim: bool = _flag("no-interim", "Send no 104 responses: some old proxies take one for the answer.")
    api_key_sha256: tuple[bytes, ...] = _several(
        "api-key",
        parse_api_key,
        "KEY|sha256:HEX",
        "Clients must show this key. A command line is visible to other users: better STREAMUP_API_KEY_FILE, "
        "a file with one key a line. Repeatable.",
        secret=True,
    )
    jwt_secret: bytes | None = _option(
        "jwt-secret",
        parse_jwt_secret,
        None,
        "SECRET",
        "Take tokens (JWT) that are signed with this secret (HS256). A command line is visible to other users: better "
        "STREAMUP_JWT_SECRET_FILE.",
        secret=True,
    )
    jwt_keys: Path | None = _option(
        "jwt-keys",
        Path,
        None,
        "FILE",
        "Take tokens signed for these public keys, Ed25519 or RSA, in PEM or a JWKS.",
    )
    jwt_audience: str | None = _option("jwt-audience", str, None, "AUD", "Tokens must be for this audience (`aud`).")
    jwt_issuer: str | None = _option("jwt-issuer", str, None, "ISS", "Tokens must be from this issuer (`iss`).")
    insecure_no_auth: bool = _flag("insecure-no-auth", "Serve beyond this machine without any credential.")
    tls_cert: Path | None = _option("tls-cert", Path, None, "FILE", "Serve HTTPS with this certificate chain (PEM).")
    tls_key: Path | None = _option("tls-key", Path, None, "FILE", "The certificate's private key (PEM).")
    log_format: Literal["text", "json"] = _choice("log-format", ("text", "json"), "text", "How to log, on stderr.")

    @property
    def authenticated(self) -> bool:
        """Whether a credential is asked for."""
        return bool(self.api_key_sha256 or self.jwt_secret or self.jwt_keys)

    @property
    def has_several_subjects(self) -> bool:
        """Whether more than one can come. Who can only be alone may take all."""
        return len(self.api_key_sha256) > 1 or bool(self.jwt_secret or self.jwt_keys)

    def share(self, amount: int) -> int | None:
        """How much of an amount one subject may take; None: all."""
        return -(-amount * self.subject_share_percent // 100) if self.has_several_subjects else None

    @property
    def appends_a_second(self) -> int | None:
        """Of one subject; None: as many as it likes."""
        return self.subject_appends or (SUBJECT_APPENDS if self.has_several_subjects else None)

    @property
    def speaks_plainly(self) -> bool:
        """Whether anybody on the way from another machine can read along; a proxy that is trusted may speak HTTPS."""
        return not (self.tls_cert or self.trusted_proxies or is_loopback(self.listen[0]))

    @property
    def place(self) -> str:
        """Where objects go."""
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def objects(self) -> ObjectRules:
        """What goes with an object, by its key."""
        names = [each.name for each in fields(ObjectOptions)]
        return ObjectRules(ObjectOptions(**{name: getattr(self, name) for name in names}), self.prefixes)


OPTIONS: Mapping[str, Option] = {f.name: f.metadata["option"] for f in fields(Config) if f.metadata}
"""Every option, by its field in `Config`."""

PREFIX = "prefix"
"""The TOML file's tables of what is another for keys below a prefix."""


def build(store: str | None, values: Mapping[str, Any]) -> Config:
    """The checked Config of `store` (`s3://…`, or None with `--local`) and the parsed `values` of the other fields."""
    given = dict(values)
    local = bool(given.get("local"))
    if local == bool(store):
        given_both = "Both --local and a bucket are given" if local else "Neither --local nor a bucket is given"
        raise ConfigError(f"{given_both}. Say where objects go: --local, or s3://bucket/prefix.")
    for name in ("downloads", "deletes"):
        if given.get(name) is None:
            given[name] = local
    if store:
        given["bucket"], given["prefix"] = parse_store(store)
    config = Config(**given)
    check(config)
    return config


def check(config: Config) -> None:
    """Refuse what cannot work or is not safe, all of it at once. Raises `ConfigError`."""
    objections = [*_listener_objections(config), *_amount_objections(config), *_store_objections(config)]
    if objections:
        raise ConfigError("\n".join(objections))


def _listener_objections(config: Config) -> Iterator[str]:
    host, port = config.listen
    if not is_loopback(host) and not config.authenticated and not config.insecure_no_auth:
        yield (
            f"--listen {host or '(every interface)'}:{port} is reachable from other machines, and anybody could write "
            "objects. Set --api-key (or STREAMUP_API_KEY_FILE), --jwt-secret or --jwt-keys, listen on 127.0.0.1, or "
            "insist with --insecure-no-auth."
        )
    if config.authenticated and config.insecure_no_auth:
        yield "--insecure-no-auth contradicts --api-key, --jwt-secret and --jwt-keys. Leave it out, or them."
    if (config.jwt_audience or config.jwt_issuer) and not (config.jwt_secret or config.jwt_keys):
        yield "--jwt-audience and --jwt-issuer are about tokens, and none is taken without --jwt-secret or --jwt-keys."
    if config.listen[1] and config.listen == config.admin_listen:
        yield f"--listen and --admin-listen are both {config.listen[0]}:{config.listen[1]}. Give one another port."
    if (config.tls_cert is None) != (config.tls_key is None):
        given, missing = ("--tls-cert", "--tls-key") if config.tls_cert else ("--tls-key", "--tls-cert")
        yield f"{given} needs {missing}: HTTPS takes a certificate and its private key."


def _amount_objections(config: Config) -> Iterator[str]:
    if not MIN_PART_BYTES <= config.part_bytes <= MAX_PART_BYTES:
        yield f"--part-size {config.part_bytes} is not legal in S3. Choose from 5MiB to 5GiB."
    elif config.part_bytes * SPOOL_SHARE > config.spool_bytes:
        needed = -(-config.part_bytes * SPOOL_SHARE // MIB)
        yield (
            f"--part-size {config.part_bytes} is more than an eighth of --spool-size {config.spool_bytes}, and uploads "
            f"would wait for each other. Set --spool-size to {needed}MiB or more, or choose smaller parts."
        )
    share = config.share(config.spool_bytes)
    if share is not None and share < config.part_bytes:
        yield (
            f"--subject-share {config.subject_share_percent}% of --spool-size {config.spool_bytes} has no room for one "
            f"part of --part-size {config.part_bytes}. Set one of them to more."
        )
    at_least_one = {
        "--parallel-parts": config.parallel_parts,
        "--max-open-uploads": config.max_open_uploads,
        "--max-connections": config.max_connections,
        "--subject-appends": _or_one(config.subject_appends),
        "--max-upload-size": _or_one(config.max_upload_bytes),
    }
    yield from (
        f"{name} 0 would let nothing through. Set at least 1." for name, value in at_least_one.items() if not value
    )
    above_zero = {
        "--expire": config.expire_seconds,
        "--idle": config.idle_seconds,
        "--store-timeout": config.store_timeout_seconds,
        "--head-timeout": config.head_seconds,
        "--max-age": math.inf if config.max_age_seconds is None else config.max_age_seconds,
    }
    yield from (f"{name} must be longer than 0, for example 30s." for name, value in above_zero.items() if value <= 0)


def _or_one(limit: int | None) -> int:
    return 1 if limit is None else limit


def _store_objections(config: Config) -> Iterator[str]:
    if config.local and (config.s3_endpoint_url or config.s3_public_endpoint_url):
        yield "--local starts a store of its own, so no --s3-endpoint-url or --s3-public-endpoint-url goes with it."
    told = set[str]()
    for prefix, options in config.objects.each.items():
        for objection in options.objections():
            if objection not in told:  # what is wrong for all is not said again for each prefix
                yield f'[{PREFIX}."{prefix}"] {objection}' if prefix else objection
            if not prefix:
                told.add(objection)
    try:
        check_template(config.key_template, config.prefix)
    except ValueError as error:
        yield f"--key-template {error}"
