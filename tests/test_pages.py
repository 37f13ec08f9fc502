"""The page at `/`, as bytes and fields. What a browser makes of it is in test_page_in_chromium.py."""

import re
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from raw_client import refused

import streamup
from streamup.pages import FILES, POLICY

WEB = Path(streamup.__file__).parent / "web"
PATHS = [*FILES, "/openapi.json"]


@pytest.fixture
async def guarded(start_service):
    return await start_service(api_key_sha256=(b"x" * 32,))


@pytest.mark.parametrize("path", PATHS)
async def test_everybody_gets_the_page_and_its_files(guarded, path):
    answer = await guarded.ask("GET", path)
    assert answer.status == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    looked = await guarded.ask("HEAD", path)
    assert (looked.status, looked.body) == (200, b"")
    assert {**looked.headers, "date": ""} == {**answer.headers, "date": ""}


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize("path", PATHS[:2])
async def test_they_are_only_read(guarded, method, path):
    answer = refused(await guarded.ask(method, path, b"body"), 405)
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "nothing.js", "%2e%2e", "..%2f__init__.py", "page.js%00", "index.html", "page.js?x/../y"]
)
async def test_there_are_no_other_files(service, name):
    status = 200 if name.startswith("page.js?") else 404
    assert (await service.ask("GET", f"/static/{name}")).status == status


def test_every_file_has_its_place_in_the_table():
    assert {name for name, _ in FILES.values()} == {path.name for path in WEB.iterdir()}


def test_they_are_in_the_wheel():
    builder = WheelBuilder(str(WEB.parent.parent))
    packed = {file.distribution_path for file in builder.recurse_included_files()}
    assert {f"streamup/web/{name}" for name, _ in FILES.values()} <= packed


def test_the_policy_knows_no_other_host_and_no_inline_script():
    assert set(POLICY.values()) == {"'none'", "'self'"}


@pytest.mark.parametrize("path", sorted(WEB.iterdir()), ids=lambda path: path.name)
def test_nothing_comes_from_another_host_and_no_text_becomes_markup(path):
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"(?:https?:)?//[a-z]", text.replace("// ", ""))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage", text)
    assert not re.search(r"<script(?! type=\"module\" src=\"static/)|\son\w+=|style=", text)


def test_no_element_has_the_name_of_a_view():
    """A browser would scroll to it, and give it the focus, whenever that view is shown."""
    page = (WEB / "index.html").read_text()
    views = re.findall(r'<section id="(\w+)-view" class="view"', page)
    assert sorted(views) == ["record", "upload", "uploads"]
    assert set(views).isdisjoint(re.findall(r'\bid="([^"]*)"', page))
