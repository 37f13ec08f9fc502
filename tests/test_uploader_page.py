"""The uploader in Chromium: files that a person drops on it, and whatever breaks meanwhile."""

import os
import random
from base64 import b64encode
from contextlib import suppress

import pytest
from awscrt.checksums import crc64nvme
from chromium import PHONE
from conftest import PART_BYTES, Service
from network import Network
from playwright.async_api import Page, expect
from raw_client import eventually

from streamup.values import parse_api_key

pytest_plugins = ["chromium", "network"]
pytestmark = [pytest.mark.campaign, pytest.mark.usefixtures("impatient")]

MIB = 1 << 20
KEY = "0123456789abcdef"
LARGE = 8 * MIB + 17
"""Of many parts, less than the page sends at once, and more than the buffers of sockets take (Linux: 4 MiB)."""


def url(service: Service, view: str = "#upload") -> str:
    return f"http://127.0.0.1:{service.address[1]}/{view}"


def row(page: Page, key: str):
    return page.locator("#sendings > li", has_text=key)


def badge(page: Page, key: str):
    return row(page, key).locator(".badge")


@pytest.fixture
async def open_page(open_page):
    """Chromium reports every request that is refused or does not arrive, which the page itself tells better."""
    pages = []

    async def open_(*args, **options):
        pages.append(await open_page(*args, **options))
        return pages[-1]

    yield open_
    for page in pages:
        await page.close()
        page.complaints[:] = [text for text in page.complaints if not text.startswith("Failed to load resource")]


def checksum(data: bytes) -> str:
    return b64encode(crc64nvme(data).to_bytes(8, "big")).decode()


def received(service: Service) -> float:
    """Bytes that the server has taken and kept since its start."""
    return service.metrics.registry.get_sample_value("streamup_received_bytes_total")


@pytest.fixture
def files(tmp_path):
    """`files({path: size})` in a folder of its own; that, and its contents by their paths from there."""

    def make(sizes):
        folder = tmp_path / "holidays"
        made = {}
        for path, size in sizes.items():
            made[path] = random.Random(path).randbytes(size)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(made[path])
        return folder, made

    return make


async def drop(page: Page, *paths):
    """As from a file manager: a real drop, of files and folders."""
    place = await page.locator(".drop").bounding_box()
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    session = await page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        await session.send(
            "Input.dispatchDragEvent", {"type": kind, "x": place["x"] + 20, "y": place["y"] + 20, "data": data}
        )
    await session.detach()


@pytest.fixture
def slow(between):
    """`slow(service)`: a network to it on which a connection carries half a megabyte a second, so that a file is on its
    way for 16 seconds.
    """

    def slow_(service):
        network = between(service.address[1])
        network.rate = 5e5
        return network

    return slow_


async def middle(network: Network):
    """Half a megabyte more has passed, and most has not."""
    most = network.bodies + MIB // 2
    await eventually(lambda: network.bodies > most, 20)


async def open_at(network: Network, open_page) -> Page:
    page = await open_page(f"{network.url}/#upload")
    page.on("dialog", lambda dialog: dialog.accept())  # it asks before it is left
    return page


async def test_many_files_a_reload_and_the_same_files_again(service, open_page, files, slow):
    sizes = {"one.bin": LARGE, "two.bin": LARGE, **{f"deep/er/{n} ü%.txt": n * 1000 for n in range(10)}}
    folder, made = files(sizes)
    network = slow(service)
    page = await open_at(network, open_page)
    await page.get_by_label("Below which prefix").fill("/2026/")
    await drop(page, folder / "one.bin", folder / "two.bin", folder / "deep")
    await expect(page.locator("#queue-title")).to_have_text("10 of 12 files sent")
    await middle(network)
    await page.reload()
    network.rate = None
    await expect(page.locator("#unfinished li")).to_have_count(2)
    await expect(page.locator("#unfinished")).to_contain_text("Drop or choose these files again")
    asked = len(network.requests)
    await page.get_by_label("Below which prefix").fill("2026")
    await drop(page, folder / "one.bin", folder / "two.bin", folder / "deep")
    await expect(page.locator("#queue-title")).to_have_text("12 of 12 files sent")
    await expect(page.locator("#announced")).to_have_text("12 of 12 files sent")
    await expect(page.locator("#unfinished")).to_be_hidden()
    for path, data in made.items():
        assert service.data(f"2026/{path}") == data
        await expect(row(page, f"2026/{path}").locator(".proof")).to_have_text(
            f"CRC64NVME {checksum(data)} · verified, and the store has the same"
        )
    assert received(service) == sum(sizes.values())
    again = network.appends(since=asked)
    assert len(again) == 2, "what was complete is not sent at all"
    assert all(offset > 0 for offset, _ in again)
    await page.get_by_role("button", name="Clear sent").click()
    await expect(page.locator("#queue")).to_be_hidden()


async def test_pause_offline_and_a_server_that_starts_again(start_service, open_page, files, slow):
    service = await start_service()
    folder, made = files({"a.bin": LARGE, "b.bin": 1000, "c.bin": 1000})
    network = slow(service)
    page = await open_at(network, open_page)
    await drop(page, folder / "a.bin")
    await middle(network)
    await page.get_by_role("button", name="Pause a.bin").focus()
    await page.keyboard.press("Enter")
    await expect(badge(page, "a.bin")).to_have_text("Paused")
    await page.context.set_offline(True)
    await drop(page, folder / "b.bin")
    await expect(badge(page, "b.bin")).to_have_text("Waiting")
    await expect(row(page, "b.bin").locator(".trouble")).to_contain_text("cannot be reached")
    await page.context.set_offline(False)
    await expect(badge(page, "b.bin")).to_have_text("Sent")
    await expect(badge(page, "a.bin")).to_have_text("Paused")
    await page.get_by_role("button", name="Resume all").click()
    await middle(network)
    await service.stop()
    await expect(badge(page, "a.bin")).to_have_text("Waiting")
    network.rate = None
    again = await start_service(store=service.store)
    network.port = again.address[1]
    with suppress(Exception):  # it may have begun by itself
        await page.get_by_role("button", name="Try now a.bin").click(timeout=500)
    await drop(page, folder / "c.bin")
    await expect(page.locator("#queue-title")).to_have_text("3 of 3 files sent")
    assert {name: again.data(name) for name in made} == made
    assert received(service) + received(again) == LARGE + 2000


async def test_of_those_that_are_paused_one_goes_on(service, open_page, files, slow):
    folder, made = files({"a.bin": LARGE, "b.bin": LARGE, "c.bin": 10})
    network = slow(service)
    page = await open_at(network, open_page)
    await drop(page, folder / "a.bin", folder / "b.bin", folder / "c.bin")
    await middle(network)
    await expect(badge(page, "c.bin")).to_have_text("In line")
    await page.get_by_role("button", name="Pause all").click()
    for key in made:
        await expect(badge(page, key)).to_have_text("Paused")
    await page.get_by_role("button", name="Resume c.bin").click()
    await expect(badge(page, "c.bin")).to_have_text("Sent")
    await expect(badge(page, "a.bin")).to_have_text("Paused")


async def test_cancelled_and_given_up(service, open_page, files, slow):
    folder, _ = files({"a.bin": LARGE, "b.bin": LARGE, "c.bin": 10})
    network = slow(service)
    page = await open_at(network, open_page)
    await drop(page, folder / "a.bin", folder / "b.bin", folder / "c.bin")
    await middle(network)
    await expect(badge(page, "c.bin")).to_have_text("In line")
    await page.get_by_role("button", name="Cancel c.bin").click()  # nothing of it has been sent: no question
    await expect(row(page, "c.bin")).to_have_count(0)
    await page.get_by_role("button", name="Cancel a.bin").click()
    await page.get_by_role("button", name="No, leave it").click()
    await expect(row(page, "a.bin")).to_have_count(1)
    await page.get_by_role("button", name="Cancel a.bin").click()
    await page.get_by_role("button", name="Yes, cancel it").click()
    await expect(row(page, "a.bin")).to_have_count(0)
    await service.becomes("a.bin", state="cancelled")
    await page.reload()
    await expect(page.locator("#unfinished li")).to_have_count(1)
    await page.context.set_offline(True)
    await drop(page, folder / "c.bin")
    await expect(badge(page, "c.bin")).to_have_text("Waiting")
    await expect(row(page, "c.bin").locator(".trouble")).to_contain_text("It is tried again by itself.")
    await expect(page.locator("#unfinished li")).to_have_count(1)
    await page.get_by_role("button", name="Cancel c.bin").click()
    await page.context.set_offline(False)
    await page.get_by_role("button", name="Give up b.bin").click()
    await page.get_by_role("button", name="Yes, give it up").click()
    await expect(page.locator("#unfinished")).to_be_hidden()
    await service.becomes("b.bin", state="cancelled")
    assert await service.document("c.bin") is None


async def test_a_changed_file_is_refused_and_may_begin_anew(service, open_page, files, slow):
    folder, made = files({"a.bin": LARGE})
    network = slow(service)
    page = await open_at(network, open_page)
    await drop(page, folder / "a.bin")
    await middle(network)
    begun = await service.becomes("a.bin", state="open")
    await page.reload()
    network.rate = None
    date = (folder / "a.bin").stat()
    (folder / "a.bin").write_bytes(b"\0" * PART_BYTES + made["a.bin"][PART_BYTES:])
    os.utime(folder / "a.bin", ns=(date.st_atime_ns, date.st_mtime_ns))  # by name, size and date it is the same
    await page.locator("#files").set_input_files(folder / "a.bin")
    await expect(row(page, "a.bin").locator(".trouble")).to_contain_text("its first bytes are not those that were sent")
    (folder / "a.bin").write_bytes(b"something else")
    await page.locator("#files").set_input_files(folder / "a.bin")
    await expect(badge(page, "a.bin")).to_have_text("Failed")
    await expect(row(page, "a.bin").locator(".trouble")).to_contain_text("another version")
    await page.get_by_role("button", name="Begin anew a.bin").click()
    await page.get_by_role("button", name="Yes, begin anew").click()
    await expect(badge(page, "a.bin")).to_have_text("Sent")
    assert service.data("a.bin") == b"something else"
    assert (await service.ask("GET", f"/uploads/{begun['id']}")).json["state"] == "cancelled"


BROKEN = """() => {
    const file = (name) => ({ name, isFile: true, file: (done) => done(new File(["x"], name)) });
    const gone = { name: "b.bin", isFile: true, file: (_, failed) => failed(new DOMException("It is gone.")) };
    const inside = [[file("a.bin"), gone, file("c.bin")], []];
    const reader = { readEntries: (done) => done(inside.shift()) };
    const folder = { name: "holidays", isFile: false, createReader: () => reader };
    const dataTransfer = { types: ["Files"], items: [{ webkitGetAsEntry: () => folder }] };
    dispatchEvent(Object.assign(new Event("drop"), { dataTransfer }));
}"""
"""A folder is dropped, of whose files one vanishes meanwhile."""


async def test_a_file_that_cannot_be_read_keeps_no_other_from_being_sent(service, open_page):
    page = await open_page(url(service))
    await page.evaluate(BROKEN)
    await expect(page.locator("#toasts")).to_contain_text("holidays/b.bin cannot be read: It is gone.")
    await expect(page.locator("#queue-title")).to_have_text("2 of 2 files sent")
    assert [service.data(f"holidays/{name}.bin") for name in "ac"] == [b"x", b"x"]


@pytest.mark.parametrize("downloads", [False, True])
async def test_links_are_there_where_they_lead_somewhere(start_service, open_page, files, downloads):
    service = await start_service(downloads=downloads)
    await service.ask("PUT", "/objects/before.bin", b"x")
    folder, _ = files({"a.bin": 1000})
    page = await open_page(url(service, "#uploads"))
    await expect(page.locator("#ended-uploads li")).to_have_count(1)
    await expect(page.get_by_role("link", name="Open before.bin")).to_be_visible(visible=downloads)
    await page.evaluate("location.hash = 'upload'")
    await drop(page, folder / "a.bin")
    await expect(page.locator("#queue-title")).to_have_text("1 of 1 file sent")
    await expect(page.get_by_role("button", name="Open a.bin")).to_be_visible(visible=downloads)
    assert page.complaints == []
    if downloads:
        await page.context.route("https://store.example/**", lambda route: route.fulfill(body="the object"))
        async with page.expect_popup() as opened:
            await page.get_by_role("button", name="Open a.bin").click()
        await expect((await opened.value).locator("body")).to_have_text("the object")


async def test_a_token_that_ends_asks_for_another_and_goes_on(start_service, open_page, files):
    service = await start_service(api_key_sha256=(parse_api_key(KEY),))
    folder, made = files({"a.bin": 1000})
    page = await open_page(url(service, f"#token={KEY}"))
    await expect(page.locator("#connection [role=status]")).to_have_text("Live")
    await page.evaluate("location.hash = 'upload'")
    await page.get_by_role("button", name="Forget the token").click()
    await page.locator("#files").set_input_files(folder / "a.bin")
    await page.get_by_label("Token or API key").fill(KEY)
    await page.keyboard.press("Enter")
    await expect(page.locator("#queue-title")).to_have_text("1 of 1 file sent")
    assert service.data("a.bin") == made["a.bin"]


SEND = """
async ([url, text]) => {
    const { Sending, Server } = await import(`${url}static/streamup.js`);
    const file = new File([text], "ü.txt", { type: "text/plain" });
    const sending = new Sending(new Server(), file, { slice: 10 });
    const { key, checksum } = await sending.start();
    return [key, checksum.crc64nvme, sending.crc64nvme];
}
"""


async def test_a_page_of_another_origin_uses_the_module(start_service, open_page):
    other = await start_service()
    origin = f"http://127.0.0.1:{other.address[1]}"
    data = other.config.data.with_name("second")
    service = await start_service(data=data, cors_origins=(origin,))
    page = await open_page(f"{origin}/openapi.json", bypass_csp=True)  # our own policy would forbid other hosts
    text = "in slices of ten bytes"
    with pytest.raises(Exception, match="dynamically imported module"):
        await page.evaluate(SEND, [f"http://localhost:{other.address[1]}/", text])
    assert await page.evaluate(SEND, [url(service, ""), text]) == ["ü.txt", *[checksum(text.encode())] * 2]
    assert service.data("ü.txt") == text.encode()
    page.complaints.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_on_a_phone(service, open_page, files, scheme, tmp_path):
    folder, _ = files({f"{'a-long-name-without-a-space' * 4}.mp4": 1000, "a.bin": 5})
    page = await open_page(url(service), color_scheme=scheme, **PHONE)
    await drop(page, folder)
    await expect(page.locator("#queue-title")).to_have_text("2 of 2 files sent")
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    await page.screenshot(path=tmp_path / f"phone-{scheme}.png", full_page=True)
