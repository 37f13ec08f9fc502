"""What streamup says of an object's bytes is what other programs say of them: aws, rclone, openssl, sha256sum."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from process import MIB, PART, Answer, Bucket, Server, content, prefix_of
from test_get_tools import tool

pytest_plugins = ["weed", "process"]

LARGE = content(2 * PART + 12_345)
SMALL = content(MIB + 1, seed=1)
SENT = {
    "composite": ("sha256", LARGE),
    "combined": ("crc64nvme", LARGE),
    "single": ("sha256", SMALL),
    "one": ("crc64nvme", SMALL),
}
"""By name of the object: the checksum that was asked for, and the bytes."""

S3_NAMES = {"sha256": "ChecksumSHA256", "crc64nvme": "ChecksumCRC64NVME"}


AWS = """
import json, sys
from awscli.clidriver import create_clidriver
aws = create_clidriver()
sys.exit(max(aws.main(words) for words in json.loads(sys.argv[1])))
"""
"""`aws` several times, in one process: most of its time is its start."""


@dataclass
class Objects:
    """Objects that streamup has stored: `answers` are its own words, `heads` those of `aws s3api head-object`,
    `attributes` of `get-object-attributes`; some were downloaded into `directory`.
    """

    server: Server
    bucket: Bucket
    directory: Path
    answers: dict[str, Answer]
    heads: dict[str, dict] = field(default_factory=dict)
    attributes: dict = field(default_factory=dict)

    def run(self, *command):
        environ = os.environ | self.bucket.environ | {"AWS_CONFIG_FILE": os.devnull}
        done = subprocess.run([str(word) for word in command], env=environ, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    def pipe(self, name, command):
        """A line of shell over a downloaded object; the first word it says."""
        return self.run("sh", "-c", f"f={self.directory / name}; {command}").split()[0]

    def ask_aws(self):
        checked = "--checksum-mode=ENABLED"
        wanted = ["--object-attributes", "ETag", "Checksum", "ObjectParts", "ObjectSize"]
        asked = [("head-object", name, checked) for name in SENT]
        asked += [("get-object", name, checked, str(self.directory / name)) for name in ("composite", "one")]
        asked += [("get-object-attributes", "composite", *wanted)]
        prefix, endpoint = prefix_of(self.server), f"--endpoint-url={self.bucket.endpoint_url}"
        commands = [
            [endpoint, "s3api", command, f"--bucket={self.bucket.name}", f"--key={prefix}{name}", *words]
            for command, name, *words in asked
        ]
        said = self.run(sys.executable, "-c", AWS, json.dumps(commands))
        documents = json.loads("[" + said.replace("}\n{", "},\n{") + "]")
        self.heads, self.attributes = dict(zip(SENT, documents, strict=False)), documents[-1]


@pytest.fixture(scope="module")
def objects(server, bucket, tmp_path_factory):
    def put(name):
        checksum, data = SENT[name]
        wanted = {"Want-Repr-Digest": "sha-256=10, sha-512=1"}
        return server.ask("PUT", f"/objects/{name}?checksum={checksum}", wanted, data)

    with ThreadPoolExecutor() as pool:
        answers = dict(zip(SENT, pool.map(put, SENT), strict=True))
    assert {answer.status for answer in answers.values()} == {201}
    found = Objects(server, bucket, tmp_path_factory.mktemp("tools"), answers)
    found.ask_aws()
    return found


@pytest.mark.parametrize("name", SENT)
def test_aws_reads_back_the_checksums_that_were_answered(objects, name):
    checksum, data = SENT[name]
    answer, head = objects.answers[name].json(), objects.heads[name]
    assert answer["checksum"] == {checksum: head[S3_NAMES[checksum]]}
    assert (answer["etag"], answer["size"]) == (head["ETag"], head["ContentLength"]) == (head["ETag"], len(data))
    assert answer["checksum"][checksum].endswith("-3") == (name == "composite")


def test_aws_counts_the_parts_that_were_answered(objects):
    parts = objects.attributes["ObjectParts"]
    assert objects.answers["composite"].json()["parts"] == parts["TotalPartsCount"] == 3
    assert [PART, PART, 12_345] == [part["Size"] for part in parts["Parts"]]
    assert objects.attributes["ObjectSize"] == len(LARGE)


def test_openssl_computes_what_was_answered(objects):
    composite = objects.answers["composite"]
    parts = f"split -b {PART} --filter='openssl dgst -sha256 -binary' $f | openssl dgst -sha256 -binary | base64"
    assert composite.json()["checksum"]["sha256"] == objects.pipe("composite", parts) + "-3"
    etag = f"split -b {PART} --filter='openssl dgst -md5 -binary' $f | openssl dgst -md5 -r"
    assert composite.json()["etag"] == f'"{objects.pipe("composite", etag)}-3"'
    assert composite.headers["Repr-Digest"] == ", ".join(
        f"{name}=:{objects.pipe('composite', f'openssl dgst -{word} -binary $f | base64 -w 0')}:"
        for name, word in (("sha-256", "sha256"), ("sha-512", "sha512"))
    )


def test_sha256sum_computes_what_was_answered(objects):
    [_, value, _] = objects.answers["one"].headers["Repr-Digest"].partition(",")[0].split(":")
    assert base64.b64decode(value).hex() == objects.pipe("one", "sha256sum $f")


def test_rclone_and_md5sum_agree_with_the_etag_of_a_single_part(objects):
    config = objects.directory / "rclone.conf"
    config.write_text(
        f"[weed]\ntype = s3\nprovider = SeaweedFS\nendpoint = {objects.bucket.endpoint_url}\nenv_auth = true\n"
    )
    where = f"weed:{objects.bucket.name}/{prefix_of(objects.server)}"
    lines = objects.run(tool("rclone"), f"--config={config}", "hashsum", "md5", where).splitlines()
    for name in ("one", "single"):
        etag = objects.answers[name].json()["etag"].strip('"')
        assert f"{etag}  {name}" in lines
    assert f"{objects.pipe('one', 'md5sum $f')}  one" in lines
