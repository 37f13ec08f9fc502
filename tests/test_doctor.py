"""`streamup doctor` against real stores, and against real stores that deny, ignore or lack one thing (by a proxy)."""

import asyncio
import json
import os
import re
import signal
import sys
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from click.testing import CliRunner
from moto.server import ThreadedMotoServer
from store_proxy import HELD_SECONDS, Fault, error, no, on, says

from streamup import cli
from streamup.client import advice
from streamup.client.doctor import Doctor, Mark, ending
from streamup.config import Config
from streamup.errors import StoreUnavailable
from streamup.stores import experiments
from streamup.stores.s3 import S3Store

pytest_plugins = ["weed", "store_proxy"]

DAY = 86_400.0
PLACE = advice.Place("bucket", "some/prefix/")


@pytest.fixture(scope="module")
def client(weed):
    """The store, asked without streamup."""
    with closing(weed.client()) as client:
        yield client


@pytest.fixture
def bucket(client):
    """A bucket of its own: its settings are changed."""
    name = f"doctor-{os.urandom(6).hex()}"
    client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of a KiB, so that no test moves 10 MiB for nothing. What they would show is not found out then."""
    monkeypatch.setattr(experiments, "MIN_PART", 1024)


@pytest.fixture
def briefly(monkeypatch):
    """Without the experiments that other tests are about: a third of the time."""

    async def nothing(_self, _trial):
        pass

    for experiments_ in ("_checksums", "_conditions", "_multiparts"):
        monkeypatch.setattr(Doctor, experiments_, nothing)


@pytest.fixture
def examine(weed, store_proxy, client):
    """Run a doctor behind the proxy. Its report."""

    async def run(**options):
        config = Config(**{"bucket": weed.bucket, "prefix": "doctor/", "s3_endpoint_url": store_proxy.url, **options})
        told = []
        doctor = Doctor(config, lambda config: opened(config, weed.access_key, weed.secret_key), told.append)
        await doctor.examine()
        assert told == doctor.report.findings
        assert len(by_check(doctor.report)) == len(told), "each check once"
        assert [found for found in told if found.mark is Mark.BAD and not (found.lost and found.advice)] == []
        named = [left for left in doctor.report.left_behind if not left.startswith("Old versions")]
        assert len(left_of(client, config)) == len(named)
        return doctor.report

    return run


def left_of(client, config):
    """What is there below the prefix, and is removed now."""
    place = {"Bucket": config.bucket, "Prefix": config.prefix}
    objects = client.list_objects_v2(**place).get("Contents", [])
    unfinished = client.list_multipart_uploads(**place).get("Uploads", [])
    for found in objects:
        client.delete_object(Bucket=config.bucket, Key=found["Key"])
    for found in unfinished:
        client.abort_multipart_upload(Bucket=config.bucket, Key=found["Key"], UploadId=found["UploadId"])
    return [*objects, *unfinished]


def opened(config, access_key, secret_key):
    return S3Store(
        config.bucket,
        config.prefix,
        endpoint_url=config.s3_endpoint_url,
        path_style=True,
        objects=config.objects,
        access_key=access_key,
        secret_key=secret_key,
    )


def by_check(report):
    return {finding.check: finding for finding in report.findings}


def marked(report, mark):
    return {finding.check for finding in report.findings if finding.mark is mark}


def denied(*names, message="as the test wants it"):
    refusal = Fault(instead=says(403, error("AccessDenied", message)))
    return lambda request: refusal if request.operation in names else None


# --- a store that has everything


async def test_seaweedfs_has_everything_but_a_lifecycle_rule(examine):
    report = await examine()
    assert report.healthy
    assert marked(report, Mark.BAD) == {"lifecycle rule"}
    assert marked(report, Mark.UNKNOWN) == set()
    assert "CORS" in marked(report, Mark.TOLD)
    assert report.left_behind == []


@pytest.mark.usefixtures("briefly")
async def test_the_lifecycle_rule_it_prints_is_one_that_it_is_content_with(examine, client, bucket):
    report = await examine(bucket=bucket, expire_seconds=3 * DAY)
    document = json.loads(re.search(r"lifecycle\.json:\n(\{.*?\n\})", ending(report, Config()), re.DOTALL)[1])
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=document)
    report = await examine(bucket=bucket, expire_seconds=3 * DAY)
    assert "10 days" in by_check(report)["lifecycle rule"].detail
    assert report.documents == {}
    report = await examine(bucket=bucket, expire_seconds=11 * DAY)
    assert not report.healthy
    assert report.documents["lifecycle"]["Rules"][0]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 18}


@pytest.mark.usefixtures("briefly")
async def test_the_cors_rules_it_prints_are_some_that_it_is_content_with(examine, client, bucket):
    used = {"bucket": bucket, "downloads": True, "cors_origins": ("https://app.example",)}
    report = await examine(**used)
    assert not report.healthy
    client.put_bucket_cors(Bucket=bucket, CORSConfiguration=report.documents["cors"])
    report = await examine(**used)
    assert report.healthy
    assert "CORS" in marked(report, Mark.GOOD)


@pytest.mark.usefixtures("briefly")
async def test_a_bucket_that_keeps_versions_keeps_none_of_this(examine, store_proxy, client, bucket):
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    report = await examine(bucket=bucket)
    assert "old version" in by_check(report)["versioning"].detail
    assert report.left_behind == []
    kept = client.list_object_versions(Bucket=bucket)
    assert (kept.get("Versions"), kept.get("DeleteMarkers")) == (None, None)
    store_proxy.rule = denied("ListObjectVersions")
    assert "lack s3:ListBucketVersions" in (await examine(bucket=bucket)).left_behind[0]


# --- permissions


DENIALS = {
    "HeadBucket": ("list", {"s3:ListBucket"}),
    "HeadObject": ("head", {"s3:GetObject"}),
    "GetObject": ("get", {"s3:GetObject"}),
    "GetObjectAttributes": ("get attributes", {"s3:GetObjectAttributes"}),
    "ListMultipartUploads": ("list multipart uploads", {"s3:ListBucketMultipartUploads"}),
    "PutObject": ("put", {"s3:PutObject"}),
    "CreateMultipartUpload": ("create multipart", {"s3:PutObject"}),
    "UploadPart": ("upload part", {"s3:PutObject"}),
    "ListParts": ("list parts", {"s3:ListMultipartUploadParts"}),
    "AbortMultipartUpload": ("abort", {"s3:AbortMultipartUpload"}),
    "CompleteMultipartUpload": ("complete", {"s3:PutObject"}),
    "DeleteObject": ("delete", {"s3:DeleteObject"}),
}


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize("name", DENIALS)
async def test_a_permission_that_is_missing_is_the_one_that_is_named(examine, store_proxy, weed, name):
    store_proxy.rule = denied(name)
    report = await examine()
    check, actions = DENIALS[name]
    also = {"head (missing)"} if name == "HeadObject" else set()
    assert marked(report, Mark.BAD) - {"lifecycle rule"} == {check} | also
    assert by_check(report)[check].lost
    allowed = {action: one["Resource"] for one in report.documents["policy"]["Statement"] for action in one["Action"]}
    assert allowed.keys() == actions
    on_bucket = name in {"HeadBucket", "ListMultipartUploads"}
    where = f"arn:aws:s3:::{weed.bucket}" + ("" if on_bucket else "/doctor/*")
    assert set(allowed.values()) == {where}
    assert report.healthy == (name in {"GetObject", "GetObjectAttributes", "DeleteObject"})


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize("also", [(), ("s3:GetObject",)])
async def test_without_list_what_is_missing_looks_forbidden(examine, store_proxy, also):
    """As AWS does it."""
    there = []

    def refuse(request):
        name = request.operation
        if name == "DeleteObject":
            there.clear()
        there.extend([name] if name in {"PutObject", "CompleteMultipartUpload"} else [])
        looks = name == "HeadObject" and (also or not there)
        return denied(name)(request) if name == "HeadBucket" or looks else None

    store_proxy.rule = refuse
    report = await examine()
    allowed = {action for one in report.documents["policy"]["Statement"] for action in one["Action"]}
    assert allowed == {"s3:ListBucket", *also}
    assert by_check(report)["head (missing)"].mark is Mark.BAD


@pytest.mark.usefixtures("briefly")
async def test_what_is_needed_for_deletes_and_downloads_is_needed_where_they_are_on(examine, store_proxy):
    store_proxy.rule = denied("DeleteObject", "GetObject")
    assert not (await examine(deletes=True)).healthy
    assert not (await examine(downloads=True)).healthy


@pytest.mark.usefixtures("small_parts")
async def test_without_any_permission_the_policy_allows_everything_that_was_tried(examine, store_proxy):
    store_proxy.rule = denied(*DENIALS)
    report = await examine()
    allowed = {action for one in report.documents["policy"]["Statement"] for action in one["Action"]}
    assert allowed == set().union(*(actions for _, actions in DENIALS.values())) - {
        "s3:DeleteObject",  # nothing was put that could be deleted
        "s3:GetObjectAttributes",
        "s3:ListMultipartUploadParts",
        "s3:AbortMultipartUpload",
    }
    assert {"upload part", "list parts", "abort", "complete", "delete"} <= marked(report, Mark.UNKNOWN)


@pytest.mark.usefixtures("briefly")
async def test_the_action_that_the_store_names_is_the_one_to_allow(examine, store_proxy):
    store_proxy.rule = denied("UploadPart", message="User: x is not authorized to perform: kms:GenerateDataKey on y")
    (statement,) = (await examine()).documents["policy"]["Statement"]
    assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]


@pytest.mark.usefixtures("briefly")
async def test_an_explicit_denial_is_not_mended_by_allowing(examine, store_proxy):
    words = "not authorized to perform: s3:PutObject on y with an explicit deny in a resource-based policy"
    store_proxy.rule = denied("UploadPart", message=words)
    report = await examine()
    assert "policy" not in report.documents
    assert "resource-based policy denies it" in by_check(report)["upload part"].advice


@pytest.mark.usefixtures("briefly")
async def test_what_cannot_be_removed_is_named(examine, store_proxy):
    store_proxy.rule = denied("DeleteObject", "AbortMultipartUpload")
    *_, last = report_left = (await examine()).left_behind
    assert "lack s3:DeleteObject" in last
    assert any(left.startswith("The multipart upload ") for left in report_left)


# --- policies that demand something of every object


ENCRYPTION, ACL = "x-amz-server-side-encryption", "x-amz-acl"


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize(
    ("demanded", "options"),
    [
        ({ENCRYPTION: "AES256"}, {"sse": "AES256"}),
        ({ENCRYPTION: "aws:kms"}, {"sse": "aws:kms"}),
        ({ACL: "bucket-owner-full-control"}, {"acl": "bucket-owner-full-control"}),
        (
            {ENCRYPTION: "AES256", ACL: "bucket-owner-full-control"},
            {"sse": "AES256", "acl": "bucket-owner-full-control"},
        ),
    ],
)
async def test_what_a_policy_demands_of_every_object_is_found_out(examine, store_proxy, demanded, options):
    def refuse(request):
        if request.operation not in {"PutObject", "CreateMultipartUpload"}:
            return None
        if any(request.headers.get(field) != value for field, value in demanded.items()):
            return Fault(instead=no(403, "AccessDenied"))
        if demanded.get(ENCRYPTION) == "aws:kms":  # this SeaweedFS has no keys: it would answer 500
            put = request.operation == "PutObject"
            return Fault(instead=says(200, ETag='"e"') if put else no(400, "NotImplemented"))
        return None

    store_proxy.rule = refuse
    found = by_check(await examine())
    assert found["bucket policy"].mark is Mark.BAD
    assert all(f"--{name} {value}" in found["bucket policy"].advice for name, value in options.items())
    assert found["put"].mark is Mark.GOOD
    if len(options) > 1:
        assert "bucket policy" not in by_check(await examine(**options))


@pytest.mark.usefixtures("briefly")
async def test_tags_and_acls_take_permissions_of_their_own(examine, store_proxy):
    store_proxy.rule = denied("CreateMultipartUpload")
    report = await examine(tags=(("a", "b"),), acl="private")
    (statement,) = report.documents["policy"]["Statement"]
    assert statement["Action"] == ["s3:PutObject", "s3:PutObjectAcl", "s3:PutObjectTagging"]


@pytest.mark.usefixtures("briefly")
async def test_the_options_of_a_prefix_are_tried_there(examine, store_proxy):
    forbidden = denied("CreateMultipartUpload")
    store_proxy.rule = lambda request: forbidden(request) if "cold" in request.target else None
    report = await examine(prefixes={"warm/": {"acl": "private"}, "cold/": {"storage_class": "GLACIER"}})
    found = by_check(report)
    assert (found["options of warm/"].mark, found["options of cold/"].mark) == (Mark.GOOD, Mark.BAD)
    assert not report.healthy


# --- what stores do differently


@pytest.mark.usefixtures("briefly")
async def test_a_clock_that_is_off(examine, store_proxy):
    def ahead(seconds):
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
        store_proxy.rule = lambda _: Fault(change=lambda said: replace(said, fields={**said.fields, "date": date}))

    ahead(-1200)
    report = await examine()
    assert (by_check(report)["clock"].mark, report.healthy) == (Mark.BAD, False)
    assert "20 min behind" in by_check(report)["clock"].detail
    ahead(60)
    report = await examine()
    assert (by_check(report)["clock"].mark, report.healthy) == (Mark.BAD, True)


async def test_a_request_that_is_too_far_off_is_not_taken_for_a_missing_permission(examine, store_proxy):
    store_proxy.rule = lambda _: Fault(instead=no(403, "RequestTimeTooSkewed", Date="Sun, 01 Nov 2026 00:00:00 GMT"))
    report = await examine()
    assert [finding.check for finding in report.findings] == ["clock"]
    assert not report.healthy


@pytest.mark.usefixtures("small_parts")
async def test_a_store_that_wants_equal_parts(examine, store_proxy):
    last = lambda: store_proxy.operations[-4:]  # noqa: E731
    refusal = Fault(instead=no(400, "InvalidPart"))
    store_proxy.rule = lambda _: refusal if last() == [*["UploadPart"] * 3, "CompleteMultipartUpload"] else None
    report = await examine()
    assert "--layout equal" in by_check(report)["unequal parts"].advice
    assert not report.healthy
    assert (await examine(layout="equal")).healthy


@pytest.mark.usefixtures("small_parts")
async def test_a_store_that_lists_exact_keys_only(examine, store_proxy):
    def exact(said):
        shown = re.search(rb"<Prefix>(.*?)</Prefix>", said.body)
        if shown is None:
            return said
        keep = lambda found: found[0] if b"<Key>" + shown[1] + b"</Key>" in found[0] else b""  # noqa: E731
        return says(200, re.sub(rb"<Upload>.*?</Upload>", keep, said.body, flags=re.DOTALL).decode())

    store_proxy.rule = on("ListMultipartUploads", Fault(change=exact))
    report = await examine()
    assert "exact key" in by_check(report)["multipart listing"].detail
    assert report.healthy


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize("said", [no(501, "NotImplemented"), says(200, "the object itself")])
async def test_a_store_without_attributes_is_no_fault(examine, store_proxy, said):
    store_proxy.rule = on("GetObjectAttributes", Fault(instead=said))
    report = await examine()
    assert marked(report, Mark.UNKNOWN) == {"get attributes"}
    assert report.healthy


@pytest.mark.usefixtures("briefly")
async def test_minio_expires_uploads_by_itself(examine, store_proxy):
    store_proxy.rule = lambda _: Fault(change=lambda said: replace(said, fields={**said.fields, "server": "MinIO"}))
    assert "24 h" in by_check(await examine())["lifecycle rule"].detail


@pytest.mark.usefixtures("small_parts")
async def test_a_store_that_forgets_a_completed_upload(examine, store_proxy):
    last = lambda: store_proxy.operations[-2:]  # noqa: E731
    forgotten = Fault(instead=no(404, "NoSuchUpload"))
    store_proxy.rule = lambda _: forgotten if last() == ["CompleteMultipartUpload"] * 2 else None
    assert "settled by HEAD" in by_check(await examine())["repeated complete"].detail


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize("status", [403, 404, 501])
async def test_settings_that_the_store_does_not_tell_are_not_known(examine, store_proxy, status):
    code = {403: "AccessDenied", 404: "NoSuchKey", 501: "NotImplemented"}[status]
    settings = ("GetBucketLifecycle", "GetBucketCors", "GetBucketVersioning", "GetBucketEncryption", "GetObjectLock")
    refusal = Fault(instead=no(status, code))
    store_proxy.rule = lambda request: refusal if request.operation.startswith(settings) else None
    report = await examine(downloads=True)
    checks = {"lifecycle rule", "CORS", "versioning", "default encryption", "object lock"}
    assert marked(report, Mark.UNKNOWN) == checks
    assert report.healthy
    assert all(("Allow s3:Get" in by_check(report)[check].advice) == (status == 403) for check in checks)


@pytest.mark.usefixtures("briefly")
async def test_a_default_key_of_the_bucket_is_in_the_policy(examine, store_proxy):
    key = "arn:aws:kms:eu-west-1:1:key/2"
    default = f"<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>{key}</KMSMasterKeyID>"
    body = f"<Rule><ApplyServerSideEncryptionByDefault>{default}</ApplyServerSideEncryptionByDefault></Rule>"
    encrypted = says(200, f"<ServerSideEncryptionConfiguration>{body}</ServerSideEncryptionConfiguration>")
    forbidden = denied("UploadPart")
    store_proxy.rule = lambda request: (
        Fault(instead=encrypted) if request.operation == "GetBucketEncryption" else forbidden(request)
    )
    report = await examine()
    statements = {one["Sid"]: one for one in report.documents["policy"]["Statement"]}
    assert statements["StreamupKey"]["Resource"] == key
    assert statements["StreamupObjects"]["Action"] == ["s3:PutObject"]


@pytest.mark.usefixtures("briefly")
async def test_object_lock_and_versions_are_told(examine, store_proxy):
    lock = "<Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>30</Days></DefaultRetention></Rule>"
    said = {
        "GetObjectLockConfiguration": f"<ObjectLockConfiguration>{lock}</ObjectLockConfiguration>",
        "GetBucketVersioning": "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    }
    store_proxy.rule = lambda request: (
        Fault(instead=says(200, said[request.operation])) if request.operation in said else None
    )
    found = by_check(await examine(deletes=True))
    assert found["object lock"].mark is Mark.BAD
    assert "30 days (governance)" in found["object lock"].detail
    assert "old version" in found["versioning"].detail


@pytest.mark.usefixtures("small_parts")
async def test_moto_compares_nothing():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    config = Config(bucket="examined", s3_endpoint_url="http://{}:{}".format(*server.get_host_and_port()))
    try:
        async with opened(config, "a", "b") as store:
            await store.create_bucket()
        doctor = Doctor(config, lambda config: opened(config, "a", "b"), lambda _: None)
        await doctor.examine()
    finally:
        server.stop()
    found = by_check(doctor.report)
    assert not doctor.report.healthy
    assert {"CRC64NVME", "SHA-256", "Content-MD5", "multipart listing"} <= marked(doctor.report, Mark.BAD)
    assert [finding.check for finding in doctor.report.findings if finding.mark is Mark.BAD and finding.needed] == [
        "Content-MD5"
    ]
    assert "Initiated" in found["multipart listing"].detail


# --- a store that goes away, an operator who does


@pytest.mark.usefixtures("briefly")
async def test_a_fault_at_one_request_is_a_finding(examine, store_proxy):
    """As SeaweedFS answers `--sse aws:kms` where it has no keys."""
    store_proxy.rule = on("UploadPart", Fault(instead=no(500, "InternalError")))
    report = await examine()
    assert "500 InternalError" in by_check(report)["upload part"].detail
    assert not report.healthy


async def test_a_store_that_goes_away_meanwhile_is_no_finding(examine, store_proxy):
    store_proxy.rule = on("ListParts", Fault(instead=no(503, "SlowDown")))
    with pytest.raises(StoreUnavailable):
        await examine()
    assert store_proxy.operations[-1] == "DeleteObject", "it has cleaned up"


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.campaign)])
async def test_an_interruption_removes_what_was_written(weed, store_proxy, client, bucket, number):
    held = threading.Event()
    store_proxy.rule = on("ListParts", Fault(act=lambda _: held.set(), after=HELD_SECONDS))
    command = [sys.executable, "-m", "streamup", "doctor", f"s3://{bucket}", f"--s3-endpoint-url={store_proxy.url}"]
    process = await asyncio.create_subprocess_exec(
        *command, "--s3-path-style", env={**os.environ, **weed.environ}, stdout=-1, stderr=-1
    )
    assert await asyncio.to_thread(held.wait, 20)
    process.send_signal(number)
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 3, err.decode()
    assert "✓ upload part" in out.decode()
    assert left_of(client, Config(bucket=bucket)) == []


# --- the command line


@pytest.fixture
def run(weed, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("STREAMUP_", "AWS_"))]:
        monkeypatch.delenv(name)

    def invoke(*words, **environ):
        keys = {**weed.environ, "STREAMUP_S3_ENDPOINT_URL": weed.endpoint_url, "STREAMUP_S3_PATH_STYLE": "1"}
        return CliRunner(env={**keys, **environ}).invoke(cli.main, ["doctor", *words])

    return invoke


@pytest.mark.usefixtures("small_parts")
def test_exit_codes(run, bucket):
    assert run(f"s3://{bucket}").exit_code == 0
    assert run("s3://there-is-no-such-bucket").exit_code == 1
    assert run(f"s3://{bucket}", AWS_SECRET_ACCESS_KEY="wrong").exit_code == 1
    assert run().exit_code == 2
    assert run("--local").exit_code == 2
    assert run(f"s3://{bucket}", "--s3-endpoint-url=http://127.0.0.1:1").exit_code == 3


@pytest.mark.usefixtures("small_parts")
def test_it_takes_the_file_and_the_options_of_serve(run, bucket, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(f'store = "s3://{bucket}/a"\npart-size = "16MiB"\nadmin-listen = "off"\nexpire = "30d"\n')
    result = run("--config", str(config), "--listen=127.0.0.1:1", "--json")
    *_, last = map(json.loads, result.output.splitlines())
    (rule,) = last["documents"]["lifecycle"]["Rules"]
    assert (rule["Filter"], rule["AbortIncompleteMultipartUpload"]) == ({"Prefix": "a/"}, {"DaysAfterInitiation": 37})


@pytest.mark.usefixtures("small_parts")
def test_json_has_a_line_for_each_row(run, bucket):
    *rows, last = map(json.loads, run(f"s3://{bucket}", "--json").output.splitlines())
    assert {row["check"]: row["mark"] for row in rows}["abort"] == "good"
    assert (last["healthy"], last["problem"], last["left_behind"]) == (True, None, [])
    *_, last = map(
        json.loads, run("s3://bucket", "--json", "--s3-endpoint-url=http://127.0.0.1:1").output.splitlines()[:1]
    )
    assert (last["healthy"], "head_bucket" in last["problem"]) == (False, True)


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "ExpiredToken", "AuthorizationHeaderMalformed", "InvalidToken"])
async def test_credentials_that_are_not_let_in_are_the_only_finding(examine, store_proxy, code):
    store_proxy.rule = lambda _: Fault(instead=no(403, code))
    report = await examine()
    assert [finding.check for finding in report.findings] == ["clock", "credentials"]
    assert report.findings[-1].advice


# --- documents


def aborting(days, **rule):
    return {"Status": "Enabled", **rule, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days}}


@pytest.mark.parametrize(
    ("rule", "days"),
    [
        (aborting(7, Filter={"Prefix": ""}), 7),
        (aborting(7, Filter={}), 7),
        (aborting(7, Prefix="some/"), 7),
        (aborting(7, Filter={"And": {"Prefix": "some/prefix/"}}), 7),
        (aborting(7, Filter={"Prefix": "some/prefix/deeper/"}), None),
        (aborting(7, Filter={"Prefix": "other/"}), None),
        (aborting(7, Filter={"Tag": {"Key": "a", "Value": "b"}}), None),
        (aborting(7, Filter={"And": {"Prefix": "some/", "ObjectSizeGreaterThan": 1}}), None),
        ({**aborting(7, Filter={}), "Status": "Disabled"}, None),
        ({"Status": "Enabled", "Filter": {}, "Expiration": {"Days": 1}}, None),
    ],
)
def test_a_rule_covers_a_prefix_or_not(rule, days):
    assert advice.abort_days([rule], "some/prefix/") == days
    added = advice.lifecycle([rule], "some/prefix/", DAY)["Rules"]
    assert added[0] == rule
    assert advice.abort_days(added, "some/prefix/") == (days or 8)
    assert len(added) == (1 if days else 2)


def test_a_rule_for_a_part_of_the_prefix_can_be_too_short():
    rules = [aborting(1, Filter={"Prefix": "some/prefix/deeper/"}), aborting(1, Filter={"Prefix": "else/"})]
    assert advice.too_short(rules, "some/prefix/", 2 * DAY) == rules[:1]
    mended = advice.lifecycle(rules, "some/prefix/", 2 * DAY)["Rules"]
    assert advice.too_short(mended, "some/prefix/", 2 * DAY) == []
    assert mended[1] == rules[1]


@pytest.mark.parametrize(
    ("key", "where"),
    [
        ("arn:aws:kms:r:1:key/k", {"Resource": "arn:aws:kms:r:1:key/k"}),
        ("k", {"Resource": "arn:aws:kms:*:*:key/k"}),
        (None, {"Resource": "arn:aws:kms:*:*:key/*"}),
        (
            "alias/a",
            {"Resource": "arn:aws:kms:*:*:key/*", "Condition": {"StringEquals": {"kms:RequestAlias": "alias/a"}}},
        ),
        (
            "arn:aws:kms:r:1:alias/a",
            {"Resource": "arn:aws:kms:*:*:key/*", "Condition": {"StringEquals": {"kms:RequestAlias": "alias/a"}}},
        ),
    ],
)
def test_the_key_in_a_policy(key, where):
    (statement,) = advice.policy(replace(PLACE, kms_key=key), ["kms:Decrypt"])["Statement"]
    assert statement == {"Sid": "StreamupKey", "Effect": "Allow", "Action": ["kms:Decrypt"], **where}


def test_a_policy_in_another_partition():
    place = advice.Place("b", "", partition="aws-cn")
    bucket, objects = advice.policy(place, ["s3:ListBucket", "s3:PutObject"])["Statement"]
    assert (bucket["Resource"], objects["Resource"]) == ("arn:aws-cn:s3:::b", "arn:aws-cn:s3:::b/*")
