"""The page at `/` as a person meets it: in Chromium, with keys and names that strangers have chosen."""

from typing import Any
from urllib.parse import quote

import pytest
from chromium import PHONE
from conftest import BODY, PART_BYTES, START, Service
from playwright.async_api import Page, expect
from raw_client import CHUNKED, LAST_CHUNK, chunk, eventually, head

from streamup.values import parse_api_key

pytest_plugins = ["chromium", "npm"]
pytestmark = pytest.mark.campaign

KEY = "0123456789abcdef"
BEARER = {"Authorization": f"Bearer {KEY}"}
HOSTILE = """<img src=x onerror="document.title='owned'">"'&amp;<script>document.title='owned'</script>\u202ecod.exe"""
"""Markup, entities, and a character that turns the direction of what follows."""


def url(service: Service, rest: str = "") -> str:
    return f"http://127.0.0.1:{service.address[1]}/{rest}"


def row(page: Page, key: str) -> Any:
    return page.locator("#uploads-view li", has_text=key)


def connection(page: Page) -> Any:
    return page.locator("#connection [role=status]")


async def focused(page: Page) -> str:
    """The name of what has the focus."""
    return str(await page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent"))


async def reach(page: Page, name: str) -> None:
    """Go there by the key Tab."""
    for _ in range(50):
        if await focused(page) == name:
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {name}")


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
    await expect(row(page, "live/one.ts").locator(".state")).to_have_text("Receiving")
    await expect(row(page, "live/one.ts").locator(".amounts")).to_contain_text("64.1 KiB received · 0 B stored")
    gate.release()
    await expect(row(page, "live/one.ts").locator(".amounts")).to_contain_text("64.0 KiB stored")
    await expect(page.locator("#store")).to_have_text("Store reachable")
    await expect(page.locator("#traffic")).to_contain_text("1 receiving")
    await expect(row(page, "left.bin").locator(".times")).to_contain_text("expires in 23 h")

    await page.get_by_role("button", name="Details of left.bin").click()
    command = row(page, "left.bin").locator(".go-on code")
    await expect(command).to_have_text(f"curl -C 1000 -T FILE {url(service)}objects/left.bin")
    await page.get_by_role("button", name="Finish left.bin").click()
    await page.get_by_role("button", name="No, leave it").click()
    await page.get_by_role("button", name="Finish left.bin").click()
    await page.get_by_role("button", name="Yes, finish it").click()
    await expect(row(page, "left.bin").locator(".state")).to_have_text("Complete")
    await expect(row(page, "left.bin").locator(".sum")).to_contain_text("crc64nvme")
    assert service.data("left.bin") == BODY[:1000]

    await page.get_by_role("button", name="Details of live/one.ts").click()
    await expect(row(page, "live/one.ts").locator("tbody tr")).to_have_count(1)
    await page.get_by_role("button", name="Cancel live/one.ts").click()
    await page.get_by_role("button", name="Yes, cancel it").click()
    await expect(row(page, "live/one.ts").locator(".state")).to_have_text("Cancelled")
    client.close()


async def test_the_keyboard_is_enough(service, open_page):
    for key in ("one.bin", "two.bin"):
        await service.leave(key, BODY[:1000])
    page = await open_page(url(service))
    await expect(page.locator("#live-uploads li")).to_have_count(2)
    for key, words in [("one.bin", ["Finish", "Yes, finish it"]), ("two.bin", ["Cancel", "Yes, cancel it"])]:
        await reach(page, f"Details of {key}")
        await page.keyboard.press("Enter")
        await reach(page, f"{words[0]} {key}")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        assert await focused(page) == f"{words[0]} {key}"
        await page.keyboard.press("Enter")
        assert await focused(page) == "No, leave it"
        await reach(page, words[1])
        await page.keyboard.press("Space")
        await expect(page.locator("#ended-uploads li", has_text=key)).to_have_count(1)
        assert await focused(page) == f"Details of {key}"  # what had the focus is gone, and its row is not
    assert service.data("one.bin") == BODY[:1000]
    assert service.data("two.bin") is None


async def test_it_asks_once_and_is_told_of_everything(service, open_page):
    page = await open_page(url(service))
    asked: list[str] = []
    page.on("request", lambda request: "/uploads" in request.url and asked.append(request.url))
    await expect(page.get_by_role("heading", name="Nothing is on its way yet")).to_be_visible()
    await expect(page.locator("#first code")).to_have_text(f"curl -T FILE {url(service)}objects/FILE")
    client, _ = await service.begin("a.bin", BODY[:1000])
    await expect(row(page, "a.bin").locator(".amounts")).to_contain_text("1000 B received")
    await client.send(chunk(BODY[1000:3000]))
    await expect(row(page, "a.bin").locator(".amounts")).to_contain_text("2.9 KiB received")
    await client.send(LAST_CHUNK)
    await expect(row(page, "a.bin").locator(".state")).to_have_text("Complete")
    assert asked == []
    client.close()


async def test_a_hidden_tab_asks_nothing_and_comes_back_at_once(service, open_page):
    page = await open_page(url(service))
    await expect(connection(page)).to_have_text("Live")
    become = """state => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => state === "hidden" });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    async with page.expect_event("requestfailed") as ended:
        await page.evaluate(become, "hidden")
    assert (await ended.value).url == url(service, "uploads/events")
    await service.leave("meanwhile.bin", BODY[:1000])
    await page.evaluate(become, "visible")
    await expect(row(page, "meanwhile.bin")).to_be_visible()
    page.complaints.clear()


async def test_it_says_once_that_the_server_is_gone_and_goes_on_with_the_next(start_service, open_page):
    service = await start_service()
    await service.leave("left.bin", BODY[:1000])
    page = await open_page(url(service))
    await expect(row(page, "left.bin")).to_be_visible()
    await page.evaluate(
        """() => {
            window.said = [];
            const status = document.querySelector("#connection [role=status]");
            new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true });
        }"""
    )
    await page.clock.install()
    failed = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    await service.stop()
    await expect(connection(page)).to_have_text("Reconnecting")
    await expect(page.locator("#connection [aria-hidden]")).to_contain_text("in ")
    await expect(page.locator("#lost")).to_contain_text("This is as it was at")
    await expect(page.locator("#server")).to_be_hidden()  # who knows how it is now?
    await expect(row(page, "left.bin")).to_be_visible()
    await eventually(lambda: len(failed) >= 3)
    await page.clock.pause_at(await page.evaluate("Date.now() + 10"))  # it will not try again by itself
    await start_service(store=service.store, listen=service.address)
    await page.get_by_role("button", name="Try now").click()
    await expect(connection(page)).to_have_text("Live")
    await expect(page.locator("#lost")).to_be_hidden()
    await expect(page.locator("#store")).to_be_visible()
    await expect(page.locator("#live-uploads li")).to_have_count(1)
    assert [word for word in await page.evaluate("said") if word != "Connecting"] == ["Reconnecting", "Live"]
    page.complaints.clear()


async def test_hundreds_of_uploads_are_filtered_and_only_what_changed_is_touched(service, open_page):
    for number in range(250):
        await service.ask("POST", f"/uploads?key=many/{number:03}.bin", headers={"Upload-Complete": "?0"})
    await service.leave("other.bin", BODY[:1000])
    await service.ask("PUT", "/objects/done.bin", b"body")
    page = await open_page(url(service))
    await expect(page.locator("#live-count")).to_have_text("251")
    await page.get_by_label("Filter by key or id").fill("MANY/24")
    await expect(page.locator("#uploads-view li:visible")).to_have_count(10)
    await expect(page.locator("#live-count")).to_have_text("10")
    await page.get_by_role("button", name="Ended").click()
    await expect(page.locator("#none")).to_be_visible()
    await page.get_by_role("button", name="Show all").click()
    await expect(page.locator("#live-count")).to_have_text("251")
    await page.get_by_role("button", name="Ended").click()
    await expect(page.locator("#uploads-view li:visible")).to_have_count(1)
    await page.get_by_role("button", name="All", exact=True).click()
    await page.evaluate(
        """() => {
            window.moved = [];
            const watch = new MutationObserver((changes) => {
                const rows = changes.flatMap((one) => [...one.addedNodes, ...one.removedNodes]);
                moved.push(...rows.map((row) => row.querySelector(".key").textContent));
            });
            for (const list of document.querySelectorAll("#dashboard .rows")) watch.observe(list, { childList: true });
        }"""
    )
    await page.get_by_role("button", name="Details of other.bin").click()
    await page.get_by_role("button", name="Cancel other.bin").click()
    await page.get_by_role("button", name="Yes, cancel it").click()
    await expect(page.locator("#ended-count")).to_have_text("2")
    assert set(await page.evaluate("moved")) == {"other.bin"}


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
    await page.locator("#files").set_input_files({"name": "Grüße 100%.bin", "mimeType": "video/mp4", "buffer": BODY})
    await expect(page.locator("#sendings .badge")).to_have_text("Sent")
    assert service.data("Grüße 100%.bin") == BODY
    assert service.store.objects["Grüße 100%.bin"].meta.content_type == "video/mp4"
    page.complaints[:] = [text for text in page.complaints if "405" not in text]  # it asks whether objects can be read


async def test_what_strangers_wrote_is_text(service, open_page):
    gate = service.store.hold("put_part")
    client = await service.connect()
    await client.send(head("PUT", f"/objects/{quote(HOSTILE)}", CHUNKED) + chunk(BODY[: PART_BYTES + 1]))
    await service.becomes(HOSTILE, writer=True)
    page = await open_page(url(service))
    await expect(page.locator("#uploads-view .key")).to_have_text(HOSTILE)
    assert await page.locator("#uploads-view .key").evaluate("one => one.childElementCount") == 0
    await page.get_by_role("button", name="Details of <img").click()
    await page.get_by_role("button", name="Cancel <img").click()
    await expect(page.locator("#question-title")).to_contain_text(HOSTILE)
    await page.get_by_role("button", name="Yes, cancel it").click()
    await expect(page.locator("#uploads-view .state")).to_have_text("Cancelled")
    await page.get_by_role("link", name="Upload").click()
    await page.locator("#files").set_input_files({"name": HOSTILE.replace("/", ""), "mimeType": "", "buffer": b"x"})
    await expect(page.locator("#sendings .key")).to_have_text(HOSTILE.replace("/", ""))
    assert await page.title() == "Upload · streamup"
    page.complaints[:] = [text for text in page.complaints if "405" not in text]
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
    await page.close()  # it may say more than one thing about that
    page.complaints.clear()


async def test_every_width_is_enough(guarded, open_page):
    key = "a-directory/with-a-very-long-name-that-has-no-space-in-it/and-a-file-of-the-same-kind.mp4"
    await guarded.ask("POST", f"/uploads?key={key}", headers={"Upload-Complete": "?0"} | BEARER)
    page = await open_page(url(guarded, f"#token={KEY}"), **PHONE)
    await page.locator("#live-uploads .more").click()
    await expect(page.locator("#live-uploads .many")).to_contain_text("part")
    for view in ("Record", "Upload", "Dashboard"):
        await page.get_by_role("link", name=view).click()
        await fits(page)
    await guarded.stop()  # what is said of it is the longest
    await expect(connection(page)).to_have_text("Reconnecting")
    await fits(page)
    page.complaints.clear()


async def fits(page: Page) -> None:
    for width in (1200, 768, 390, 320):
        await page.set_viewport_size({"width": width, "height": 800})
        assert await page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]


async def test_an_object_opens_in_a_tab_of_its_own(start_service, open_page):
    """The token goes by header, which no link can do: the page asks where the object is, and opens that."""
    service = await start_service(api_key_sha256=(parse_api_key(KEY),), downloads=True)
    await service.ask("PUT", "/objects/a/b%20c.bin", BODY, BEARER)
    page = await open_page(url(service, f"#token={KEY}"))
    await page.context.route("https://store.example/**", lambda route: route.fulfill(body="the object"))
    async with page.expect_popup() as opened:
        await page.get_by_role("link", name="Open a/b c.bin").click()
    await expect((await opened.value).locator("body")).to_have_text("the object")
    assert page.url == url(service)
    await page.evaluate("() => { window.open = () => null }")  # as a browser that blocks it
    await page.get_by_role("link", name="Open a/b c.bin").click()
    await expect(page.locator("#toasts")).to_contain_text("did not let this page open a tab")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_keeps_anybody_from_using_it(start_service, open_page, axe, scheme):
    """Names, roles, contrast, and what else axe-core finds (WCAG 2.2 AA); fingers find everything, too."""
    service = await start_service()
    page = await open_page(url(service), color_scheme=scheme, reduced_motion="reduce", **PHONE)
    await expect(page.locator("#empty")).to_be_visible()
    await check(page, axe)
    gate = service.store.hold("put_part")
    client, _ = await service.begin("live/one.ts", START)
    await service.leave("left.bin", BODY[:1000])
    await service.ask("PUT", "/objects/done.bin", b"body")
    for key in ("left.bin", "done.bin", "live/one.ts"):
        await page.get_by_role("button", name=f"Details of {key}").click()
    await check(page, axe)
    await page.get_by_role("button", name="Cancel left.bin").click()
    await check(page, axe)
    await page.keyboard.press("Escape")
    for view in ("Record", "Upload"):
        await page.get_by_role("link", name=view).click()
        await expect(page.get_by_role("heading", name=view, level=1)).to_be_visible()
        await check(page, axe)
    gate.release()
    client.close()


async def check(page: Page, axe: str) -> None:
    await page.evaluate(axe)
    found = (await page.evaluate("axe.run()"))["violations"]
    assert [(one["id"], node["target"], node["failureSummary"]) for one in found for node in one["nodes"]] == []
    small = """[...document.querySelectorAll("a, button, input, select, textarea")].filter((one) => {
        const { width, height } = one.getBoundingClientRect();
        return one.checkVisibility({ opacityProperty: true }) && width && (width < 44 || height < 44);
    }).filter((one) => !one.closest("label")).map((one) => one.outerHTML)"""
    assert await page.evaluate(small) == []  # 44 px: WCAG 2.2, 2.5.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_on_a_phone(service, open_page, scheme, tmp_path):
    await service.leave("a-directory/with-a-very-long-name-that-has-no-space-in-it/and-a-file-of-the-same-kind.mp4")
    page = await open_page(url(service), color_scheme=scheme, **PHONE)
    await expect(page.locator("#uploads-view li")).to_have_count(1)
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    await page.screenshot(path=tmp_path / f"phone-{scheme}.png", full_page=True)
