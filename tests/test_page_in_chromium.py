"""The page at `/` as a person meets it: in Chromium, with keys and names that strangers have chosen."""

from typing import Any
from urllib.parse import quote

import pytest
from chromium import PHONE
from conftest import BODY, PART_BYTES, START, Service
from playwright.async_api import Page, expect
from raw_client import CHUNKED, chunk, eventually, head

from streamup.values import parse_api_key

pytest_plugins = ["chromium"]
pytestmark = pytest.mark.campaign

KEY = "0123456789abcdef"
HOSTILE = """<img src=x onerror="document.title='owned'">"'&amp;<script>document.title='owned'</script>\u202ecod.exe"""
"""Markup, entities, and a character that turns the direction of what follows."""


def url(service: Service, rest: str = "") -> str:
    return f"http://127.0.0.1:{service.address[1]}/{rest}"


def row(page: Page, key: str) -> Any:
    return page.locator("#uploads li", has_text=key)


def connection(page: Page) -> Any:
    return page.locator("#connection [role=status]")


@pytest.fixture
async def guarded(start_service):
    return await start_service(api_key_sha256=(parse_api_key(KEY),))


async def test_a_token_leaves_the_address_bar_and_goes_by_header(guarded, open_page):
    page = await open_page(url(guarded, f"#token={KEY}"))
    await expect(connection(page)).to_have_text("Live")
    assert page.url == url(guarded)
    assert await page.evaluate("[sessionStorage.token, localStorage.length, document.cookie]") == [KEY, 0, ""]
    await page.reload()
    await expect(connection(page)).to_have_text("Live")
    await page.get_by_role("button", name="Forget the token").click()
    await expect(page.get_by_label("Token or API key")).to_be_visible()
    assert await page.evaluate("sessionStorage.token") == ""
    page.complaints.clear()  # Chromium reports every 401


async def test_without_a_token_it_asks_for_one(guarded, open_page):
    page = await open_page(url(guarded))
    field = page.get_by_label("Token or API key")
    await field.fill("wrong")
    await field.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("API key")
    await field.fill(KEY)
    await field.press("Enter")
    await expect(field).to_be_hidden()
    await expect(connection(page)).to_have_text("Live")
    page.complaints.clear()


async def test_it_shows_uploads_as_they_are_and_ends_them(service, open_page):
    gate = service.store.hold("put_part")
    client, _ = await service.begin("live/one.ts", START)
    await service.leave("left.bin", BODY[:1000])
    page = await open_page(url(service))
    await expect(row(page, "live/one.ts").locator(".state")).to_have_text("receiving")
    await expect(row(page, "live/one.ts").locator(".numbers")).to_contain_text("64.1 KiB received · 0 B stored")
    gate.release()
    await expect(row(page, "live/one.ts").locator(".numbers")).to_contain_text("64.0 KiB stored")

    await page.get_by_role("button", name="Finish left.bin").click()
    await page.get_by_role("button", name="No, leave it").click()
    await page.get_by_role("button", name="Finish left.bin").focus()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(row(page, "left.bin").locator(".state")).to_have_text("complete")
    assert service.data("left.bin") == BODY[:1000]

    await page.get_by_role("button", name="Cancel live/one.ts").click()
    await page.get_by_role("button", name="Yes, cancel it").click()
    await expect(row(page, "live/one.ts").locator(".state")).to_have_text("cancelled")
    client.close()


async def test_the_address_says_which_view_is_shown(service, open_page):
    page = await open_page(url(service))
    views = page.get_by_role("navigation", name="Views")
    for name, fragment in [("Record", "record"), ("Upload", "upload"), ("Dashboard", "uploads")]:
        await views.get_by_role("link", name=name).press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text(name)
        await expect(page.get_by_role("heading", level=1)).to_be_focused()
        await expect(page).to_have_title(f"{name} · streamup")
        assert page.url == url(service, f"#{fragment}")
        assert await views.locator("[aria-current=page]").inner_text() == name
        assert await page.locator(".view:visible").count() == 1
    await page.go_back()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Upload")
    await page.reload()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Upload")


async def test_it_sends_a_file(service, open_page):
    page = await open_page(url(service, "#upload"))
    await page.locator("#file").set_input_files({"name": "Grüße 100%.bin", "mimeType": "video/mp4", "buffer": BODY})
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#outcome")).to_contain_text("Grüße 100%.bin is there")
    assert service.data("Grüße 100%.bin") == BODY
    assert service.store.objects["Grüße 100%.bin"].meta.content_type == "video/mp4"


async def test_what_strangers_wrote_is_text(service, open_page):
    gate = service.store.hold("put_part")
    client = await service.connect()
    await client.send(head("PUT", f"/objects/{quote(HOSTILE)}", CHUNKED) + chunk(BODY[: PART_BYTES + 1]))
    await service.becomes(HOSTILE, writer=True)
    page = await open_page(url(service))
    await expect(page.locator("#uploads .key")).to_have_text(HOSTILE)
    assert await page.locator("#uploads .key").evaluate("one => one.childElementCount") == 0
    await page.get_by_role("button", name="Cancel <img").click()
    await expect(page.locator("#question-title")).to_contain_text(HOSTILE)
    await page.get_by_role("button", name="Yes, cancel it").click()
    await expect(page.locator("#uploads .state")).to_have_text("cancelled")
    await page.get_by_role("link", name="Upload").click()
    await page.locator("#file").set_input_files({"name": HOSTILE.replace("/", ""), "mimeType": "", "buffer": b"x"})
    assert await page.title() == "Upload · streamup"
    gate.release()
    client.close()


async def test_a_planted_script_is_blocked(service, open_page):
    page = await open_page(url(service))
    await page.evaluate(
        """() => {
            document.body.insertAdjacentHTML("beforeend", `<img src=x onerror="document.title='owned'">`);
            const inline = document.createElement("script");
            inline.textContent = "document.title = 'owned'";
            document.body.append(inline);
            const foreign = document.createElement("script");
            foreign.src = "http://localhost:1/x.js";
            document.body.append(foreign);
            const style = document.createElement("style");
            style.textContent = "body { display: none }";
            document.head.append(style);
        }"""
    )
    await eventually(lambda: len([text for text in page.complaints if "Content Security Policy" in text]) >= 4)
    assert await page.title() == "Dashboard · streamup"
    await expect(page.locator("main")).to_be_visible()
    page.complaints.clear()


async def test_no_page_may_frame_it(service, open_page):
    page = await open_page(f"http://localhost:{service.address[1]}/openapi.json")
    frame = "src => document.body.append(Object.assign(document.createElement('iframe'), { src }))"
    await page.evaluate(frame, url(service))
    await eventually(lambda: any("frame" in text for text in page.complaints))
    page.complaints.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_on_a_phone(service, open_page, scheme, tmp_path):
    await service.leave("a-directory/with-a-very-long-name-that-has-no-space-in-it/and-a-file-of-the-same-kind.mp4")
    page = await open_page(url(service), color_scheme=scheme, **PHONE)
    await expect(page.locator("#uploads li")).to_have_count(1)
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    await page.screenshot(path=tmp_path / f"phone-{scheme}.png", full_page=True)
