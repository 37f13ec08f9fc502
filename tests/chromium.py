"""The system's Chromium, driven by Playwright, which downloads none of its own.

Use: `pytest_plugins = ["chromium"]` in a test module, then the fixture `open_page`. It looks at what a person would see
in the console as well: an error there, or a violation of the content policy, fails the test.
(PYTEST_DONT_REWRITE: it is imported, too.)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright, expect

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LOOPBACK = "EXCLUDE 127.0.0.1, EXCLUDE localhost"
OPTIONS = [
    # It asks nobody but this machine, and listens for nobody.
    *("--disable-features=MediaRouter", f"--host-resolver-rules=MAP * ~NOTFOUND, {LOOPBACK}"),
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
]
DESKTOP = {"viewport": {"width": 1200, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}

expect.set_options(
    timeout=20_000
)  # milliseconds; the usual 5 s are too few for a machine that does something else, too

OpenPage = Callable[..., Awaitable[Page]]


@pytest.fixture
def chromium_options() -> list[str]:
    """More options for the browser; for a test module to define again."""
    return []


@pytest.fixture
async def open_page(chromium_options: list[str]) -> AsyncIterator[OpenPage]:
    """`await open_page(url, **context)`: a page in a profile of its own. Its `complaints` must be empty in the end,
    unless the test has taken them.
    """
    if PROGRAM is None:
        pytest.skip("chromium is missing: apt install chromium")
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=PROGRAM, args=[*OPTIONS, *chromium_options])

        async def open_(url: str, **context: Any) -> Page:
            page = await (await browser.new_context(**(DESKTOP | context))).new_page()
            page.complaints = complaints
            page.on("console", lambda message: message.type in {"error", "warning"} and complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            await page.goto(url)
            return page

        yield open_
        await browser.close()
    assert not complaints, complaints
