"""`streamup doctor`: what a store allows, keeps and promises, found out by doing it, and what to do where it does not.

Everything happens under one random key below the prefix, and is removed again. Each check is told as it is found out;
documents to add (policy, lifecycle, CORS) come with the report.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from http import HTTPStatus
from typing import Any, TypeVar

from streamup.client import advice
from streamup.client.table import printable
from streamup.config import Config
from streamup.errors import (
    AccessDenied,
    CredentialsExpired,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from streamup.stores import Checksum
from streamup.stores.experiments import (
    CREATE,
    DELETE,
    GET,
    HEAD,
    LIST,
    MARK,
    MISSING,
    PUT,
    Compared,
    Permission,
    Trial,
    trial,
)
from streamup.stores.profiles import UNKNOWN, StoreProfile
from streamup.stores.s3 import S3Store

T = TypeVar("T")
OpenStore = Callable[[Config], AbstractAsyncContextManager[S3Store]]

SKEW_SECONDS = 2
"""Dates are whole seconds, and clocks that are kept by NTP differ by less."""

MOST_SKEW_SECONDS = 15 * 60
"""S3 refuses a request whose time is further off."""

INITIATED_SECONDS = 60
"""A listing shows when an upload was begun in the store's own clock, in whole seconds, after a request's time."""

CREDENTIALS = {
    "NoCredentials": "There are none. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where an "
    "instance or container role provides them.",
    "InvalidAccessKeyId": "The store does not know this access key. Take one of the account that owns the bucket; for "
    "a store that is not AWS, --s3-endpoint-url must name it.",
    "SignatureDoesNotMatch": "The secret key is not that of this access key. Copy both again.",
    "AuthorizationHeaderMalformed": "The region is wrong. Set AWS_DEFAULT_REGION to the bucket's.",
    "InvalidToken": "The session token is not of this key. Set all three of one set, or unset AWS_SESSION_TOKEN.",
}
"""What to do about credentials that are not let in at all, by the store's word for it."""

SKEWED = ("RequestTimeTooSkewed",)

KMS_ACTIONS = ("kms:Decrypt", "kms:GenerateDataKey")
"""What a multipart upload needs of its key: the parts are read again when they are joined."""

WITH_OPTIONS = (PUT, CREATE)
"""Those whose requests carry what goes with an object: tags and an ACL take permissions of their own."""

WITHOUT = "Leave out what the store may not have (--sse, --storage-class), or take a store that does this."

OWNED = "bucket-owner-full-control"
"""The ACL that buckets of another account demand."""

ORPHANS = "what is left of a creation whose answer was lost is not found, and stays in the store"


class Mark(StrEnum):
    """How a check came out."""

    GOOD = "✓"
    BAD = "✗"
    UNKNOWN = "–"  # noqa: RUF001 - neither a minus nor a hyphen
    TOLD = "·"
    """Neither good nor bad: to be known."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One row. `lost` is what does not work, `advice` what to do; `needed`: a ✗
    here means that streamup cannot do what it is meant to, or that damage goes unnoticed.
    """

    check: str
    mark: Mark
    detail: str
    needed: bool = True
    lost: str = ""
    advice: str = ""


@dataclass(slots=True)
class Report:
    """What was found. `documents` are to be added, by the name of what they are added to."""

    findings: list[Finding] = field(default_factory=list)
    documents: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    left_behind: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        return not any(finding.mark is Mark.BAD and finding.needed for finding in self.findings)


class Doctor:
    """One examination. `report` can be looked at whenever `examine` has ended, however it ended."""

    def __init__(self, config: Config, open_store: OpenStore, tell: Callable[[Finding], None]) -> None:
        self.report = Report()
        self._config = config
        self._open = open_store
        self._tell = tell
        self._store: S3Store
        self._failed: set[str] = set()
        self._missing: set[str] = set()
        self._doubtful: set[str] = set()
        self._tried: list[str] = []
        self._kms = (config.sse or "").startswith("aws:kms")
        self._kms_key = config.sse_kms_key_id

    async def examine(self) -> None:
        """Make every check. Raises `StoreUnavailable` if the store cannot be asked now; what was written is removed."""
        async with AsyncExitStack() as stack:
            self._store = await stack.enter_async_context(self._open(self._config))
            known = await self._reach()
            if known is None:
                return
            await self._encryption()
            await self._demands(known, stack)
            async with trial(self._store, known) as begun, self._cleaning(begun):
                await self._permissions(begun)
                await self._prefixes(begun)
                await self._checksums(begun)
                await self._conditions(begun)
                await self._multiparts(begun)
            await self._lifecycle(known)
            await self._cors()
            await self._versions()
            await self._object_lock()
            if self._missing | self._doubtful:
                place = advice.Place(self._config.bucket, self._config.prefix, self._store.partition, self._kms_key)
                self.report.documents["policy"] = advice.policy(place, self._missing | self._doubtful)

    @asynccontextmanager
    async def _cleaning(self, begun: Trial) -> AsyncIterator[None]:
        """Whatever happens in between, also Ctrl-C: what was written is removed, and what stays is said."""
        try:
            yield
        finally:
            self.report.left_behind += await begun.clean()

    # -- telling ------------------------------------------------------------------------------------------------

    def _say(self, check: str, finding: Finding) -> None:
        finding = replace(finding, check=check)
        self.report.findings.append(finding)
        self._tell(finding)

    async def _ask(self, check: str, experiment: Callable[[], Awaitable[T]], verdicts: Mapping[T, Finding]) -> T | None:
        """Say what an experiment has shown, or that it did not come to an end."""
        try:
            found = await experiment()
        except (AccessDenied, StoreRefused, StoreUnavailable) as error:
            _raise_absence(error)
            self._say(check, _unknown(str(error)))
        else:
            self._say(check, verdicts[found])
            return found
        return None

    # -- reaching it --------------------------------------------------------------------------------------------

    async def _reach(self) -> StoreProfile | None:
        """The profile that the store's name speaks for; None if there is no use in going on."""
        denied: StoreError | None = None
        known = UNKNOWN
        try:
            known = await self._store.recognise()
        except StoreUnavailable as error:
            if error.code == "NoSuchBucket":
                self._say("bucket", _bad(str(error), lost="everything", advice="Create it, or name another one."))
                return None
            if not isinstance(error, AccessDenied | CredentialsExpired):
                raise
            denied = await self._why(error)
        self._clock(denied)
        if denied is not None and denied.code in SKEWED:
            return None
        if denied is not None and (isinstance(denied, CredentialsExpired) or denied.code in CREDENTIALS):
            remedy = CREDENTIALS.get(denied.code or "", "They have expired, or cannot be fetched. Provide fresh ones.")
            self._say("credentials", _bad(f"not let in: {denied}", lost="everything", advice=remedy))
            return None
        self._say("credentials", _good(f"the store knows them (profile: {known.name})"))
        if denied is None:
            self._say(LIST.name, _allowed(LIST))
        else:
            self._deny(LIST, denied)
        return known

    async def _why(self, error: StoreError) -> StoreError:
        """HEAD has no body to say why. A listing has."""
        try:
            await anext(self._store.list_multiparts(MARK), None)
        except (AccessDenied, CredentialsExpired) as told:
            return told if told.code != "AccessDenied" else error
        return error

    def _clock(self, denied: StoreError | None) -> None:
        """Whether this machine's clock and the store's are near enough."""
        skew = self._store.clock_skew
        if skew is None:
            self._say("clock", _unknown("the store's answers have no Date"))
            return
        seconds = abs(skew.total_seconds())
        side = f"the store's clock is {_duration(seconds)} {'ahead of' if skew > timedelta() else 'behind'} ours"
        remedy = "Let both clocks be kept by NTP."
        if seconds > MOST_SKEW_SECONDS or (denied and denied.code in SKEWED):
            self._say("clock", _bad(side, lost="S3 refuses requests that are 15 minutes off", advice=remedy))
        elif seconds > SKEW_SECONDS:
            self._say("clock", _bad(side, needed=False, lost=ORPHANS, advice=remedy))
        else:
            self._say("clock", _good("the store's and ours agree, as far as whole seconds tell"))

    # -- what a bucket policy demands ---------------------------------------------------------------------------

    async def _demands(self, known: StoreProfile, stack: AsyncExitStack) -> None:
        """If no object can be put as it is, look for what the bucket's policy insists on, and go on with that."""
        if await self._puts(self._store, known):
            return
        for options, changed in _variants(self._config):
            store = await stack.enter_async_context(self._open(changed))
            if await self._puts(store, known):
                found = f"objects as they are configured now are denied, and with {options} they are taken"
                remedy = f"Start streamup serve with {options}. What follows was found with that."
                self._say("bucket policy", _bad(found, lost="every upload", advice=remedy))
                self._store = store
                if changed.sse != self._config.sse:
                    self._kms = (changed.sse or "").startswith("aws:kms")
                return
            self._tried.append(options)

    async def _puts(self, store: S3Store, known: StoreProfile) -> bool:
        async with trial(store, known) as begun, self._cleaning(begun):
            try:
                await begun.put()
            except (AccessDenied, StoreRefused, StoreUnavailable) as error:
                _raise_absence(error)
                return False
        return True

    # -- permissions --------------------------------------------------------------------------------------------

    async def _permissions(self, begun: Trial) -> None:
        for permission, attempt in begun.attempts():
            if permission.after in self._failed:
                self._failed.add(permission.name)
                self._say(permission.name, _unknown(f"not tried: it needs {permission.after!r}"))
                continue
            try:
                await attempt()
            except AccessDenied as error:
                self._deny(permission, error)
            except (StoreRefused, StoreUnavailable) as error:
                _raise_absence(error)
                self._failed.add(permission.name)
                refused = _bad(f"the store's answer: {error}", lost=permission.lost, advice=WITHOUT)
                self._say(permission.name, refused if permission.starts else _unknown(str(error)))
            else:
                self._doubtful -= set(permission.actions)
                self._say(permission.name, _allowed(permission))

    async def _prefixes(self, begun: Trial) -> None:
        """What is configured for the keys below a prefix."""
        for prefix in self._config.prefixes:
            check = f"options of {prefix}"
            try:
                await begun.begin_below(prefix)
            except (AccessDenied, StoreRefused) as error:
                remedy = f'Mend [prefix."{prefix}"], or the permissions.'
                self._say(check, _bad(str(error), lost="every upload to this prefix, and the start", advice=remedy))
            else:
                self._say(check, _good("an upload with all of them is taken"))

    def _deny(self, permission: Permission, error: StoreError) -> None:
        actions = self._actions(permission, error)
        self._failed.add(permission.name)
        if explicit := re.search(r"explicit deny in an? ([\w -]+?) ?policy", str(error)):
            remedy = f"The {explicit[1]} policy denies it in so many words: change that; to allow it besides is no use."
        else:
            self._missing |= set(actions)
            remedy = f"Allow {' and '.join(actions)}: the policy is below."
        besides = f", also with {' and '.join(self._tried)}" if permission is PUT and self._tried else ""
        detail = f"{permission.operation} is denied{besides}"
        used = {DELETE.name: self._config.deletes, GET.name: self._config.downloads}
        needed = permission.starts or used.get(permission.name, False)
        self._say(permission.name, _bad(detail, needed=needed, lost=permission.lost, advice=remedy))

    def _actions(self, permission: Permission, error: StoreError) -> Sequence[str]:
        """The actions that are missing: those the store names, else those that the operation needs."""
        if named := re.search(r"not authorized to perform: ([a-z0-9-]+:\w+)", str(error)):
            return KMS_ACTIONS if named[1] in KMS_ACTIONS else [named[1]]
        if permission is MISSING and LIST.name in self._failed:  # then what is missing looks forbidden
            self._doubtful |= set(permission.actions) - set(LIST.actions)
            return LIST.actions
        if permission is MISSING:
            return HEAD.actions
        if "s3:PutObject" not in permission.actions:
            return permission.actions
        options = self._store.objects.default
        besides = (
            {"s3:PutObjectTagging": options.tags, "s3:PutObjectAcl": options.acl} if permission in WITH_OPTIONS else {}
        )
        also = [action for action, option in besides.items() if option]
        return [*permission.actions, *also, *(KMS_ACTIONS if self._kms else ())]

    # -- checksums and conditions -------------------------------------------------------------------------------

    async def _checksums(self, begun: Trial) -> None:
        lost, remedy = "2 CPU-seconds per GiB, for Content-MD5", "Nothing, if that will do. Newer stores compare it."
        missing = _bad("", needed=False, lost=lost, advice=remedy)
        crc = await self._compared("CRC64NVME", begun, Checksum.CRC64NVME, missing)
        if crc is not Compared.YES:
            unnoticed = _bad(
                "a wrong one is taken",
                lost="damage on the way to the store goes unnoticed",
                advice="Reach the store by https, and look at what matters with streamup verify.",
            )
            good = _good("compared; it goes with every part, in place of CRC64NVME")
            await self._ask("Content-MD5", begun.compares_content_md5, {True: good, False: unnoticed})
        needed = self._config.checksum == Checksum.SHA256.value
        lost, remedy = "uploads that ask for SHA-256 are refused", "Let nobody ask for it (--checksum, ?checksum=)."
        missing = _bad("", needed=needed, lost=lost, advice=remedy)
        await self._compared("SHA-256", begun, Checksum.SHA256, missing)

    async def _compared(self, check: str, begun: Trial, checksum: Checksum, missing: Finding) -> Compared | None:
        kept = "of the whole object" if checksum is Checksum.CRC64NVME else "composite"
        verdicts = {
            Compared.YES: _good(f"compared with every part; kept, {kept}"),
            Compared.NO: replace(missing, detail="a part with a wrong one is taken"),
            Compared.UNKNOWN_KIND: replace(missing, detail="the store does not know it"),
        }
        return await self._ask(check, lambda: begun.compares(checksum), verdicts)

    async def _conditions(self, begun: Trial) -> None:
        ignored = _bad(
            "not honoured: the object is overwritten",
            needed=self._config.interrupted == "new",
            lost="uploads with If-None-Match, and ?interrupted=new, are refused",
            advice="Let uploads have names that do not meet (--key-template).",
        )
        verdicts = {True: _good("honoured"), False: ignored}
        await self._ask("If-None-Match on put", begun.conditional_put, verdicts)
        await self._ask("If-None-Match on complete", begun.conditional_complete, verdicts)

    # -- multipart uploads --------------------------------------------------------------------------------------

    async def _multiparts(self, begun: Trial) -> None:
        verdicts = {True: _told("refused, as in S3"), False: _told("taken; streamup sends none")}
        await self._ask("small middle part", begun.small_part_is_refused, verdicts)
        equal = _good("refused; with --layout equal there are none")
        if self._config.layout != "equal":
            lost = "streams of unknown length fail when their parts grow"
            equal = _bad("refused", lost=lost, advice="Start streamup serve with --layout equal.")
        verdicts = {True: equal, False: _good("taken (10 MiB were sent to know it)")}
        await self._ask("unequal parts", begun.unequal_parts_are_refused, verdicts)
        verdicts = {True: _told("refused"), False: _told("joined without a word; streamup looks for gaps itself")}
        await self._ask("part list with a gap", begun.gap_is_refused, verdicts)
        verdicts = {
            True: _told("answered like the first"),
            False: _told("unknown by then; a lost answer is settled by HEAD"),
        }
        await self._ask("repeated complete", begun.complete_may_be_repeated, verdicts)
        await self._ask("multipart listing", lambda: self._listing(begun), LISTINGS)

    async def _listing(self, begun: Trial) -> Listing:
        below = await begun.listed(MARK)
        found = below or await begun.listed(begun.key)
        if found is None:
            return Listing.NOT
        off = found.initiated - datetime.now(UTC) - (self._store.clock_skew or timedelta())
        if abs(off.total_seconds()) > INITIATED_SECONDS:
            return Listing.UNTIMED
        return Listing.FULL if below else Listing.EXACT

    # -- what the bucket's owner has set ------------------------------------------------------------------------

    async def _setting(self, check: str, operation: str, action: str) -> Mapping[str, Any] | None:
        """The answer of a bucket's setting, empty where nothing is set; None, and said so, where it is not known."""
        try:
            return await self._store.bucket_setting(operation) or {}
        except AccessDenied:
            self._say(check, _unknown(f"{action} is needed to look at it", advice=f"Allow {action}, or look yourself."))
        except StoreRefused as error:
            self._say(check, _unknown(f"the store does not tell: {error}"))
        return None

    async def _encryption(self) -> None:
        check, action = "default encryption", "s3:GetEncryptionConfiguration"
        answer = await self._setting(check, "get_bucket_encryption", action)
        if answer is None:
            return
        rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", ())
        default: Mapping[str, Any] = next((rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in rules), {})
        kind, key = default.get("SSEAlgorithm"), default.get("KMSMasterKeyID")
        if self._config.sse is None and (kind or "").startswith("aws:kms"):
            self._kms, self._kms_key = True, key
        self._say(check, _told(" with key ".join(filter(None, [kind or "none", key]))))

    async def _lifecycle(self, known: StoreProfile) -> None:
        check = "lifecycle rule"
        if known.name in OWN_EXPIRY:
            self._say(check, OWN_EXPIRY[known.name])
            return
        answer = await self._setting(check, "get_bucket_lifecycle_configuration", "s3:GetLifecycleConfiguration")
        if answer is None:
            return
        rules, prefix, expire = answer.get("Rules", ()), self._config.prefix, self._config.expire_seconds
        days, remedy = advice.abort_days(rules, prefix), "The rules are below."
        if advice.too_short(rules, prefix, expire):
            detail = f"unfinished uploads are aborted sooner than --expire ({_duration(expire)})"
            self._say(check, _bad(detail, lost="uploads that a client may still continue", advice=remedy))
        elif days is None:
            lost = "what a lost server or a lost answer leaves behind is billed for ever"
            self._say(check, _bad("unfinished uploads are never aborted", needed=False, lost=lost, advice=remedy))
        else:
            self._say(
                check, _good(f"unfinished uploads are aborted {days} days after they began: no stream lasts longer")
            )
            return
        self.report.documents["lifecycle"] = advice.lifecycle(rules, prefix, expire)

    async def _cors(self) -> None:
        if not self._config.downloads:
            self._say("CORS", _told("no pages read objects from the store (no --downloads)"))
            return
        answer = await self._setting("CORS", "get_bucket_cors", "s3:GetBucketCORS")
        if answer is None:
            return
        rules = answer.get("CORSRules", ())
        if advice.allows_downloads(rules):
            self._say("CORS", _good("pages may read objects, their ETags, ranges and checksums"))
            return
        needed = bool(self._config.cors_origins)
        lost = "pages cannot read what they download"
        detail = "no rule lets pages read objects, their ETags, ranges and checksums"
        self._say("CORS", _bad(detail, needed=needed, lost=lost, advice="The rules are below."))
        self.report.documents["cors"] = advice.cors(rules)

    async def _versions(self) -> None:
        answer = await self._setting("versioning", "get_bucket_versioning", "s3:GetBucketVersioning")
        if answer is None:
            return
        status = answer.get("Status")
        if status != "Enabled":
            self._say("versioning", _told((status or "off").lower()))
            return
        self._say("versioning", _told("on: what is replaced or deleted stays as an old version, and is billed"))

    async def _object_lock(self) -> None:
        check, action = "object lock", "s3:GetBucketObjectLockConfiguration"
        answer = await self._setting(check, "get_object_lock_configuration", action)
        if answer is None:
            return
        retention = answer.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention")
        if not retention:
            self._say(check, _told("no default retention"))
            return
        length = " ".join(f"{retention[unit]} {unit.lower()}" for unit in ("Days", "Years") if unit in retention)
        detail = f"objects are kept for {length} ({retention.get('Mode', '').lower()})"
        if self._config.deletes:
            lost, remedy = "--deletes removes no bytes before that", "Leave --deletes off, or change the retention."
            self._say(check, _bad(detail, needed=False, lost=lost, advice=remedy))
        else:
            self._say(check, _told(detail))


class Listing(Enum):
    """What a listing shows of a multipart upload that was begun just now."""

    FULL = "itself and its time, below its prefix"
    EXACT = "itself, but only where its key is named"
    UNTIMED = "itself, with a wrong time"
    NOT = "nothing"


def _raise_absence(error: StoreError) -> None:
    """A store that does not answer now says nothing of itself. One that has a fault at just this request does (500)."""
    said = isinstance(error, AccessDenied | StoreRefused) or error.status == HTTPStatus.INTERNAL_SERVER_ERROR
    if not said:
        raise error


def _good(detail: str) -> Finding:
    return Finding("", Mark.GOOD, detail)


def _bad(detail: str, *, lost: str, advice: str = "", needed: bool = True) -> Finding:
    return Finding("", Mark.BAD, detail, needed, lost, advice)


def _told(detail: str) -> Finding:
    return Finding("", Mark.TOLD, detail)


def _unknown(detail: str, advice: str = "") -> Finding:
    return Finding("", Mark.UNKNOWN, detail, advice=advice)


def _allowed(permission: Permission) -> Finding:
    return _good(f"{permission.operation} ({' and '.join(permission.actions)})")


LISTINGS = {
    Listing.FULL: _good("with the time at which they began"),
    Listing.EXACT: _bad(
        "only where the exact key is named (as MinIO does)",
        needed=False,
        lost="streamup sweep finds no orphans",
        advice="Let the store expire them.",
    ),
    Listing.UNTIMED: _bad(
        "the time at which they began (Initiated) is wrong",
        needed=False,
        lost=f"{ORPHANS}; streamup sweep removes nothing here",
        advice="Let a lifecycle rule remove them.",
    ),
    Listing.NOT: _bad(
        "one that was begun just now is not listed", lost=ORPHANS, advice="Let a lifecycle rule remove them."
    ),
}

OWN_EXPIRY = {
    "minio": _bad(
        "MinIO has none, and aborts unfinished uploads by itself 24 h after they began",
        needed=False,
        lost="streams that take longer, and uploads continued after that",
        advice="mc admin config set ALIAS api stale_uploads_expiry=168h",
    ),
}
"""Stores that expire multipart uploads without a rule that could be read."""


def _variants(config: Config) -> Iterator[tuple[str, Config]]:
    """What bucket policies demand of every object, and that is not configured, as options of `serve`."""
    encryptions = ("AES256", "aws:kms") if config.sse is None and config.sse_c_key is None else ()
    for sse in encryptions:
        yield f"--sse {sse}", replace(config, sse=sse)
    if config.acl is not None:
        return
    owned = replace(config, acl=OWNED)
    yield f"--acl {OWNED}", owned
    for sse in encryptions:
        yield f"--sse {sse} --acl {OWNED}", replace(owned, sse=sse)


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# --- as text


def row(finding: Finding) -> str:
    """A row of the table, and under it what is lost and what to do."""
    lines = [f"{finding.mark} {finding.check:<26}{printable(finding.detail)}"]
    if finding.lost:
        lines.append(f"      lost: {printable(finding.lost)}")
    if finding.advice:
        lines.append(f"      to do: {printable(finding.advice)}")
    return "\n".join(lines)


def as_line(finding: Finding) -> str:
    """For machines."""
    return json.dumps(asdict(finding) | {"mark": finding.mark.name.lower()})


def ending(report: Report, config: Config) -> str:
    """What comes after the table: documents, what was left behind, and the sentence that sums it up."""
    parts = [f"{_headline(name, config)}\n{dumps(document)}" for name, document in report.documents.items()]
    parts += [printable(remark) for remark in report.left_behind]
    bad = [finding for finding in report.findings if finding.mark is Mark.BAD]
    missing = ", ".join(finding.check for finding in bad if finding.needed)
    lacking = ", ".join(finding.check for finding in bad if not finding.needed)
    if missing:
        parts.append(f"Something that streamup needs is missing: {missing}.")
    else:
        parts.append(f"Everything that streamup needs is there{f'; what could be better: {lacking}' * bool(lacking)}.")
    return "\n\n".join(parts)


def dumps(document: Mapping[str, Any]) -> str:
    """As the AWS command line takes it: rules that were there may carry dates."""
    return json.dumps(document, indent=2, default=datetime.isoformat)


def _headline(name: str, config: Config) -> str:
    if name == "policy":
        return "Add to the IAM policy of these credentials:"
    command, option = {
        "lifecycle": ("put-bucket-lifecycle-configuration", "--lifecycle-configuration"),
        "cors": ("put-bucket-cors", "--cors-configuration"),
    }[name]
    endpoint = f" --endpoint-url {config.s3_endpoint_url}" if config.s3_endpoint_url else ""
    return f"aws s3api{endpoint} {command} --bucket {config.bucket} {option} file://{name}.json, with this {name}.json:"
