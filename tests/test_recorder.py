"""The recorder, in Chromium with a camera, a microphone and a screen that it makes up itself."""

import re
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
from chromium import PHONE
from conftest import Service
from network import Fate
from playwright.async_api import Dialog, Locator, Page, expect
from process import prefix_of, run

from streamup.values import parse_api_key

pytest_plugins = ["weed", "process", "chromium", "network"]
pytestmark = pytest.mark.campaign

FAKE = "--use-fake-device-for-media-stream"
YES = "--use-fake-ui-for-media-stream"
NO = "--use-fake-ui-for-media-stream=deny"
KEY = "0123456789abcdef"
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
CUT = re.compile(r"\[in#0/matroska,webm @ \w+\] File ended prematurely.*\n")
"""The last bytes before a reload may be the beginning of a frame: MediaRecorder slices by time."""

DECODE = "-fps_mode vfr -enc_time_base demux -f null - -progress pipe:1 -nostats"
SLACK = 1.2
"""Seconds: a slice of the recording, and a frame or two that the encoder still has."""


@pytest.fixture
def chromium_options():
    return [FAKE, YES]


CLOCK = """seconds => {
    const [minutes, rest] = document.getElementById("clock").textContent.split(/[: ]/);
    return 60 * minutes + Number(rest) >= seconds;
}"""


KEPT = """async () => {
    const [{ name }] = await indexedDB.databases();
    const found = (request) => new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
    const database = await found(indexedDB.open(name));
    return await found(database.transaction("recordings").objectStore("recordings").getAllKeys());
}"""
"""Which recordings the browser keeps."""


async def shows(page: Page, seconds: int) -> None:
    """Wait until the clock of the recording does."""
    await page.wait_for_function(CLOCK, arg=seconds)


def url(service: Service) -> str:
    return f"http://127.0.0.1:{service.address[1]}/#record"


def press(page: Page, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True).click()


def rows(page: Page) -> Locator:
    """The newest first."""
    return page.locator("#recordings li")


async def record(page: Page, *, camera: bool = True) -> None:
    if camera:
        await page.locator("#source-camera").check()
    await press(page, "Turn on the camera" if camera else "Choose what to share")
    await press(page, "Record")


async def saved(page: Page) -> str:
    """Stop. The key of what was recorded, once that is complete."""
    await press(page, "Stop")
    await expect(rows(page).first.locator(".state")).to_have_text("Complete")
    return await rows(page).first.locator(".key").text_content()


def seconds_of(told: str) -> int:
    minutes, seconds = re.search(r"(\d+):(\d\d)", told).groups()
    return 60 * int(minutes) + int(seconds)


def played(recording: bytes, directory: Path) -> float:
    """How long it plays, in seconds: all of it is decoded, without an error."""
    path = directory / "recording.webm"
    path.write_bytes(recording)
    ran = run(FFMPEG, "-v", "error", "-xerror", "-i", path, *DECODE.split())
    assert (ran.code, CUT.sub("", ran.err)) == (0, "")
    return max(int(time) for time in re.findall(r"out_time_us=(\d+)", ran.text)) / 1e6


async def test_a_recording_outlives_the_server_and_the_page(serve, bucket, open_page, tmp_path):
    server = serve("--downloads").start()
    page = await open_page(f"{server.url}/#record")
    asked: list[str] = []

    async def leave(dialog: Dialog) -> None:
        asked.append(dialog.type)
        await dialog.accept()

    page.on("dialog", leave)
    await record(page)
    await shows(page, 4)
    server.kill()
    await expect(page.locator("#safety")).to_contain_text("It is tried again by itself")
    await shows(page, 9)
    server.start()
    await expect(page.locator("#safety")).not_to_contain_text("It is tried again by itself")
    await press(page, "Pause")
    await page.screenshot(path=tmp_path / "paused.png", full_page=True)
    await press(page, "Resume")
    await page.route("**/uploads/*", lambda route: route.abort())  # from here on it is in the browser only
    await shows(page, 20)
    before = seconds_of(await page.locator("#clock").text_content())
    await page.reload()
    assert asked == ["beforeunload"]
    await expect(rows(page).locator(".told")).to_contain_text("It is being finished from what this browser has kept.")
    await page.unroute("**/uploads/*")

    first = rows(page).last
    await expect(first.locator(".state")).to_have_text("Complete")
    await expect(first.locator(".told")).to_contain_text("The page was left while this was recorded")
    await first.get_by_role("button", name="Record on").click()
    await shows(page, 3)
    await saved(page)
    second = rows(page).first
    await expect(first.get_by_role("button", name="Record on")).to_be_hidden()
    await page.screenshot(path=tmp_path / "after.png", full_page=True)
    async with page.expect_popup() as popup:
        await second.get_by_role("button", name="Open").click()
    await expect((await popup.value).locator("video")).to_be_visible()  # the browser's own player, at the store

    keys = [await row.locator(".key").text_content() for row in (first, second)]
    assert keys[1] == keys[0].replace(".webm", "-2.webm")
    told = [seconds_of(await row.locator(".numbers").text_content()) for row in (first, second)]
    assert before - 2 <= told[0] <= before + 2
    for row in (first, second):
        await expect(row.locator(".verified")).to_contain_text("Verified: CRC64NVME")
    for key, length in zip(keys, told, strict=True):
        seconds = played(bucket.read(prefix_of(server) + key), tmp_path)
        assert length - SLACK <= seconds <= length + 1 + SLACK
    head = bucket.client.head_object(Bucket=bucket.name, Key=prefix_of(server) + keys[1])
    assert head["Metadata"]["continues"] == "recordings%2F" + keys[0].removeprefix("recordings/")
    assert head["ContentType"] == "video/webm"
    page.complaints[:] = [text for text in page.complaints if "net::ERR_" not in text]  # of the lost connection


async def test_a_screen_and_a_microphone_until_the_browser_ends_the_sharing(service, open_page, tmp_path):
    page = await open_page(url(service))
    await page.locator("#recording-name").fill("a/talk.webm")
    await record(page, camera=False)
    await shows(page, 2)
    assert (
        await page.evaluate("document.title") == f"● {await page.locator('#clock').text_content()} · Record · streamup"
    )
    await page.evaluate(
        "document.getElementById('preview').srcObject.getVideoTracks()[0].dispatchEvent(new Event('ended'))"
    )
    await expect(rows(page).locator(".state")).to_have_text("Complete")
    await expect(page.locator("#prepare")).to_be_visible()
    assert played(service.data("a/talk.webm"), tmp_path) > 1
    found = run(FFMPEG, "-hide_banner", "-i", tmp_path / "recording.webm").err
    assert found.count("Video: vp9") == 1
    assert found.count("Audio: opus") == 1


async def test_answers_that_are_lost_and_connections_that_break_cost_nothing(service, between, open_page, tmp_path):
    network = between(service.address[1])
    page = await open_page(network.url + "/#record")
    await page.locator("#recording-name").fill("talk")
    network.fate = lambda number: Fate("reset", "up", 30_000) if number % 2 else Fate("reset", "down", 0)
    network.reset_all()
    await record(page)
    await shows(page, 6)
    network.fate = lambda _number: None
    await press(page, "Stop")
    await expect(rows(page).locator(".state")).to_have_text("Complete")
    await expect(rows(page).locator(".verified")).to_contain_text("Verified")
    assert network.did["reset up"] > 1
    assert network.did["reset down"] > 1  # answers that are lost
    assert played(service.data("talk.webm"), tmp_path) > 5
    page.complaints.clear()


async def test_what_was_ended_at_the_server_goes_on_as_a_second_part(service, open_page, tmp_path):
    page = await open_page(url(service))
    await page.locator("#recording-name").fill("talk")
    await record(page)
    await shows(page, 2)
    await expect(page.locator("#safety")).to_contain_text("all of it safe")
    upload = await service.becomes("talk.webm", state="open")
    await service.ask("DELETE", f"/uploads/{upload['id']}")
    await expect(rows(page).locator(".reason")).to_contain_text("cancelled")
    await shows(page, 2)
    assert await saved(page) == "talk-2.webm"
    assert played(service.data("talk-2.webm"), tmp_path) > 1
    assert service.store.objects["talk-2.webm"].meta.user["continues"] == "talk.webm"
    page.complaints.clear()  # Chromium reports every 404


async def test_a_second_tab_leaves_a_recording_alone_until_the_first_has_gone(service, open_page, tmp_path):
    page = await open_page(url(service))
    await page.locator("#recording-name").fill("talk")
    await record(page)
    await shows(page, 1)
    other = await page.context.new_page()
    await other.goto(url(service))
    await expect(other.locator("#studio")).to_be_visible()
    await page.bring_to_front()
    await shows(page, 3)
    await expect(rows(other)).to_have_count(0)
    await page.close()
    await expect(rows(other).locator(".state")).to_have_text("Complete")
    assert played(service.data("talk.webm"), tmp_path) > 1


async def test_without_room_it_goes_on_and_says_what_is_at_stake(service, open_page, tmp_path):
    page = await open_page(url(service))
    session = await page.context.new_cdp_session(page)
    await session.send(
        "Storage.overrideQuotaForOrigin", {"origin": url(service).removesuffix("/#record"), "quotaSize": 1}
    )
    await page.route("**/uploads/*", lambda route: route.abort())
    await record(page)
    await expect(page.locator("#safety")).to_contain_text("no room")
    await page.unroute("**/uploads/*")
    await expect(page.locator("#safety")).to_contain_text("all of it safe")
    assert played(service.data(await saved(page)), tmp_path) > 1
    page.complaints.clear()


async def test_a_disk_that_fills_meanwhile_costs_nothing(service, open_page, tmp_path):
    page = await open_page(url(service))
    await page.route("**/uploads/*", lambda route: route.abort())
    await record(page)
    await shows(page, 2)  # this much is kept, and cannot be let go any more, since that is written down, too
    full = "new DOMException('The disk is full.', 'QuotaExceededError')"
    await page.evaluate(f"() => {{ IDBObjectStore.prototype.put = () => {{ throw {full} }} }}")
    await expect(page.locator("#safety")).to_contain_text("no room")
    await page.unroute("**/uploads/*")
    await expect(page.locator("#safety")).to_contain_text("all of it safe")
    assert played(service.data(await saved(page)), tmp_path) > 2
    assert await page.evaluate(KEPT) == []
    page.complaints.clear()


async def test_what_is_discarded_does_not_come_back(service, open_page):
    page = await open_page(url(service))
    await page.locator("#recording-name").fill("talk")
    await record(page)
    await expect(page.locator("#safety")).to_contain_text("all of it safe")
    await press(page, "Discard")
    await press(page, "Yes, discard it")
    await service.becomes("talk.webm", state="cancelled")
    await expect(rows(page)).to_have_count(0)
    assert await page.evaluate(KEPT) == []
    page.complaints.clear()  # Chromium reports every 404


async def test_a_token_that_ends_is_asked_for_while_the_recording_goes_on(start_service, open_page, tmp_path):
    service = await start_service(api_key_sha256=(parse_api_key(KEY),))
    page = await open_page(url(service).replace("#record", f"#token={KEY}"))
    await page.get_by_role("navigation").get_by_role("link", name="Record").click()
    await record(page)
    await shows(page, 1)
    await press(page, "Forget the token")
    await expect(page.locator("#safety")).to_contain_text("API key")
    await page.get_by_label("Token or API key").fill(KEY)
    await page.keyboard.press("Enter")
    await expect(page.locator("#safety")).to_contain_text("all of it safe")
    assert played(service.data(await saved(page)), tmp_path) > 1
    page.complaints.clear()  # Chromium reports every 401


async def test_a_second_that_the_browser_loses_ends_the_recording_before_it(service, open_page, tmp_path):
    page = await open_page(url(service))
    await record(page)
    await shows(page, 3)  # of which the last may not have been read yet
    gone = "new DOMException('It is gone.', 'NotReadableError')"
    await page.evaluate(f"() => {{ Blob.prototype.arrayBuffer = async () => {{ throw {gone} }} }}")
    await expect(page.locator("#recorder-trouble")).to_contain_text("The recording was stopped")
    await expect(rows(page).locator(".state")).to_have_text("Complete")
    assert played(service.data(await rows(page).locator(".key").text_content()), tmp_path) > 1
    page.complaints.clear()


@pytest.mark.parametrize("chromium_options", [[FAKE, NO]])
async def test_what_is_refused_is_told_in_one_line(service, open_page):
    page = await open_page(url(service))
    await press(page, "Choose what to share")
    await expect(page.locator("#recorder-trouble")).to_contain_text("Nothing is shared.")
    await page.locator("#source-camera").check()
    await expect(page.locator("#recorder-trouble")).to_be_empty()
    await press(page, "Turn on the camera")
    await expect(page.locator("#recorder-trouble")).to_contain_text("Allow both beside the address")


@pytest.mark.parametrize("chromium_options", [["--host-resolver-rules=MAP streamup.test 127.0.0.1"]])
async def test_over_plain_http_it_says_what_to_do(start_service, open_page):
    service = await start_service(allowed_hosts=("streamup.test",))
    page = await open_page(url(service).replace("127.0.0.1", "streamup.test"))
    await expect(page.locator("#recorder-obstacle")).to_contain_text("open this one by https")
    await expect(page.locator("#studio")).to_be_hidden()
    page.complaints.clear()  # Chromium reports a policy that it keeps for secure pages only


async def test_a_key_that_is_not_allowed_is_told_before_anything_is_recorded(service, open_page):
    page = await open_page(url(service))
    await page.locator("#recording-name").fill("a//b")
    await record(page)
    await expect(page.locator("#recorder-trouble")).not_to_be_empty()
    await expect(page.locator("#begin")).to_be_visible()
    assert await page.evaluate("indexedDB.databases()") != []
    await expect(rows(page)).to_have_count(0)
    page.complaints.clear()  # Chromium reports every 400


async def test_it_fits_on_a_phone(service, open_page, tmp_path):
    page = await open_page(url(service), **PHONE)
    await record(page)
    await shows(page, 1)
    await pictures(page, tmp_path / "recording")
    await saved(page)
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    await pictures(page, tmp_path / "saved")


async def pictures(page: Page, path: Path) -> None:
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        await page.screenshot(path=f"{path}-{scheme}.png", full_page=True)
