"""The uploader in Chromium: files that a person drops on it, and whatever breaks meanwhile."""

import random
from base64 import b64encode

import pytest
from awscrt.checksums import crc64nvme
from chromium import PHONE
from conftest import Service
from playwright.async_api import Page, expect
from raw_client import eventually

from streamup.values import parse_api_key

pytest_plugins = ["chromium"]
pytestmark = pytest.mark.campaign

MIB = 1 << 20
KEY = "0123456789abcdef"
LARGE = 12 * MIB + 17
"""Of many parts, and less than the page sends at once."""


def url(service: Service, view: str = "#upload") -> str:
    return f"http://127.0.0.1:{service.address[1]}/{view}"


def row(page: Page, key: str):
    return page.locator("#sendings > li", has_text=key)


def badge(page: Page, key: str):
    return row(page, key).locator(".badge")


@pytest.fixture
def open_page(open_page):
    """Chromium reports every request that is refused or does not arrive, which the page itself tells better."""
    pages = []

    async def open_(*args, **options):
        pages.append(await open_page(*args, **options))
        return pages[-1]

    yield open_
    for page in pages:
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


class Slowly:
    """The page sends a megabyte a second, so that there is a middle to break it in."""

    def __init__(self, page, service):
        self.page, self.service = page, service

    async def __aenter__(self):
        self.session = await self.page.context.new_cdp_session(self.page)
        conditions = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 1e6}
        await self.session.send("Network.enable")
        await self.session.send("Network.emulateNetworkConditions", conditions)
        return self

    async def middle(self):
        """Some megabytes more have come, and most have not."""
        most = received(self.service) + 2 * MIB
        await eventually(lambda: received(self.service) > most, 20)

    async def __aexit__(self, *_):
        await self.session.detach()


async def test_a_changed_file_is_refused_and_may_begin_anew(service, open_page, files):
    folder, _ = files({"a.bin": LARGE})
    page = await open_page(url(service))
    page.on("dialog", lambda dialog: dialog.accept())
    async with Slowly(page, service) as slowly:
        await drop(page, folder / "a.bin")
        await slowly.middle()
        begun = await service.becomes("a.bin", state="open")
        await page.reload()
    (folder / "a.bin").write_bytes(b"something else")
    await page.locator("#files").set_input_files(folder / "a.bin")
    await expect(badge(page, "a.bin")).to_have_text("failed")
    await expect(row(page, "a.bin").locator(".trouble")).to_contain_text("another version")
    await page.get_by_role("button", name="Begin anew a.bin").click()
    await page.get_by_role("button", name="Yes, begin anew").click()
    await expect(badge(page, "a.bin")).to_have_text("sent")
    assert service.data("a.bin") == b"something else"
    assert (await service.ask("GET", f"/uploads/{begun['id']}")).json["state"] == "cancelled"


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
