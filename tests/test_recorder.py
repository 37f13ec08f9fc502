"""The recorder, in Chromium with a camera, a microphone and a screen that it makes up itself."""

import re
from pathlib import Path

import imageio_ffmpeg
import pytest
from playwright.async_api import Page, expect
from process import prefix_of, run

pytest_plugins = ["weed", "process", "chromium"]
pytestmark = pytest.mark.campaign

FAKE = "--use-fake-device-for-media-stream"
YES = "--use-fake-ui-for-media-stream"
NO = "--use-fake-ui-for-media-stream=deny"
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


async def shows(page: Page, seconds: int) -> None:
    """Wait until the clock of the recording does."""
    await page.wait_for_function(CLOCK, arg=seconds)


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
    page.on("dialog", lambda dialog: dialog.accept())
    await page.get_by_label("Camera").first.check()
    await page.get_by_role("button", name="Turn on the camera").click()
    await page.get_by_role("button", name="Record", exact=True).click()
    await shows(page, 4)
    server.kill()
    await expect(page.locator("#safety")).to_contain_text("It is tried again by itself")
    await shows(page, 9)
    server.start()
    await expect(page.locator("#safety")).not_to_contain_text("It is tried again by itself")
    await page.get_by_role("button", name="Pause").click()
    await page.screenshot(path=tmp_path / "paused.png", full_page=True)
    await page.get_by_role("button", name="Resume").click()
    await shows(page, 16)
    before = seconds_of(await page.locator("#clock").text_content())
    await page.reload()

    first = page.locator("#recordings li").last
    await expect(first.locator(".state")).to_have_text("complete")
    await expect(first.locator(".told")).to_contain_text("The page was left while this was recorded")
    await page.get_by_label("Camera").first.check()
    await first.get_by_role("button", name="Record on").click()
    await shows(page, 3)
    await page.get_by_role("button", name="Stop and save").click()
    second = page.locator("#recordings li").first
    await expect(second.locator(".state")).to_have_text("complete")
    await page.screenshot(path=tmp_path / "after.png", full_page=True)

    keys = [await row.locator(".key").text_content() for row in (first, second)]
    assert keys[1] == keys[0].replace(".webm", "-2.webm")
    told = [seconds_of(await row.locator(".numbers").text_content()) for row in (first, second)]
    assert before - 2 <= told[0] <= before + 2
    for key, length in zip(keys, told, strict=True):
        seconds = played(bucket.read(prefix_of(server) + key), tmp_path)
        assert length - SLACK <= seconds <= length + 1 + SLACK
    head = bucket.client.head_object(Bucket=bucket.name, Key=prefix_of(server) + keys[1])
    assert head["Metadata"]["continues"] == "recordings%2F" + keys[0].removeprefix("recordings/")
    assert head["ContentType"] == "video/webm"
    page.complaints[:] = [text for text in page.complaints if "ERR_CONNECTION" not in text and "ERR_EMPTY" not in text]
