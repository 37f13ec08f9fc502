"""The map in `streamup/__init__.py` is true: every room is on it, and imports point one way."""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

import streamup

ROOT = Path(streamup.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
WIRING = {"cli", "__main__"}
NEUTRAL = {"failpoints"}
"""Named places for tests: any room that acts may have some, and they import nothing of ours."""

PURE = {
    *("layout", "keys", "routes", "forwarded", "hosts", "mounts", "object_options", "digests", "terms", "openapi"),
    *("upload", "values", "errors", "limits", "protocols", "grants", "stores"),
}
"""Rooms that need the standard library only (of `stores`, the interface; its siblings talk to real stores)."""

IMPURE_STANDARD_LIBRARY = {
    "asyncio",
    "concurrent",
    "logging",
    "os",
    "random",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
}

PURE_MODULES = {"client.destination", "client.proof", "client.table"}
"""Such modules in rooms that act otherwise."""


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def is_pure(path):
    if name_of(path) in PURE_MODULES:
        return True
    return room_of(path) in PURE and not (room_of(path) == "stores" and path.name != "__init__.py")


@cache
def nodes(path):
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imported(path):
    """Every module that is imported anywhere in the file, in functions too; `from a import b` counts as `a`."""
    names = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they point"
            names.append(node.module)
    return names


def rooms_imported(path):
    return {name.split(".")[1] for name in imported(path) if name.startswith("streamup.")} - {room_of(path)}


def map_of_rooms():
    names = set()
    for line in streamup.__doc__.splitlines():
        if found := re.match(r"((?:`[a-z_/]+`(?:, )?)+)\s+", line):
            names |= {name.rstrip("/") for name in re.findall(r"`([a-z_/]+)`", found[1])}
    return names


def ranks():
    """The one direction: rooms on the same step do not import each other unless they are listed left to right."""
    text = re.search(r"Imports point one way: `([^`]+)`", streamup.__doc__)[1]
    steps = [[room.strip() for room in step.split("·")] for step in text.split("→")]
    return {room: rank for rank, step in enumerate(steps) for room in step}


def test_every_room_is_on_the_map_and_the_map_shows_no_other():
    rooms = {room_of(path) for path in MODULES} - {"__init__", "__main__"}
    assert rooms == map_of_rooms()


def test_the_order_of_imports_names_every_room():
    assert set(ranks()) == map_of_rooms() - NEUTRAL


def test_imports_point_one_way():
    order, backwards = ranks(), {}
    for path in MODULES:
        room, others = room_of(path), rooms_imported(path)
        if room in {"__init__", "__main__"}:
            backwards[name_of(path)] = others - {"cli"}
        elif room in NEUTRAL:
            backwards[name_of(path)] = others
        else:
            backwards[name_of(path)] = {other for other in others - NEUTRAL if order[other] < order[room]}
    assert {name: others for name, others in backwards.items() if others} == {}


def test_imports_form_no_cycle():
    edges = {}
    for path in MODULES:
        edges.setdefault(room_of(path), set()).update(rooms_imported(path))
    while leaves := {room for room, others in edges.items() if not others & edges.keys()}:
        edges = {room: others for room, others in edges.items() if room not in leaves}
    assert edges == {}


@pytest.mark.parametrize("path", [path for path in MODULES if is_pure(path)], ids=name_of)
def test_a_pure_room_imports_the_standard_library_and_pure_rooms_only(path):
    names = set(imported(path))
    foreign = {name for name in names if name.split(".")[0] not in sys.stdlib_module_names | {"streamup"}}
    acting = {name for name in names if name.split(".")[0] in IMPURE_STANDARD_LIBRARY}
    impure = {room for room in rooms_imported(path) if room not in PURE}
    acting_rooms = ("streamup.stores.", "streamup.client.")
    siblings = {name for name in names if name.startswith(acting_rooms) and name[9:] not in PURE_MODULES}
    assert (set(), set(), set(), set()) == (foreign, acting, impure, siblings)


def test_only_the_stores_know_the_library_of_s3():
    libraries = {"aiobotocore", "botocore", "boto3", "s3transfer"}
    others = [path for path in MODULES if path.parent.name != "stores" or path.name == "__init__.py"]
    knowing = [name_of(path) for path in others if libraries & {name.split(".")[0] for name in imported(path)}]
    assert knowing == []


def test_sql_is_in_the_checkpoint_only():
    statement = re.compile(r"\b(SELECT .+ FROM|INSERT INTO|REPLACE INTO|DELETE FROM|CREATE TABLE|PRAGMA)\b")
    others = [path for path in MODULES if room_of(path) != "checkpoint"]
    texts = [
        (name_of(path), node.value)
        for path in others
        for node in nodes(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [(name, text) for name, text in texts if statement.search(text)] == []
    assert [name_of(path) for path in others if "sqlite3" in imported(path)] == []


def test_only_the_wiring_imports_the_command_line():
    importers = {room_of(path) for path in MODULES if "cli" in rooms_imported(path)}
    assert importers <= WIRING


def test_only_the_server_names_the_protocols_and_only_to_list_them():
    languages = {"streamup.protocols.plain", "streamup.protocols.ietf", "streamup.protocols.tus"}
    importers = {room_of(path) for path in MODULES if languages & set(imported(path))}
    assert importers == {"server"}
    text = (ROOT / "server.py").read_text()
    for name in ("Tus", "Ietf", "Plain"):
        assert len(re.findall(rf"\b{name}\b", text)) == 2, "its import, and its place in PROTOCOLS"
