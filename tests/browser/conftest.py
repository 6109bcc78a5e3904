"""The page in a browser, opened from a file: pytest -m browser, with playwright and chromium.

Every test fails when the page logs anything, raises, or asks for anything but itself.
"""

from __future__ import annotations

import os
import shutil

import pytest
from boards import board_of
from pages import EVIL

from sslbench.leaderboard.output.page import as_html


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert path, "no chromium on the path: apt-get install chromium, or set CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    boards = {"made": board_of(datasets=7, methods=9), "evil": board_of(text=EVIL)}
    for name, board in boards.items():
        (folder / f"{name}.html").write_text(as_html(board), encoding="utf-8")
    return folder, boards


@pytest.fixture
def visit(chromium, pages):
    """Opens a page; afterwards nothing must have gone wrong or out."""
    contexts, wrong = [], []

    def opened(name="made", *, width=1280, script="", **options):
        address = f"file://{pages[0]}/{name}.html"
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request", lambda r: None if r.url.split("#")[0] == address else wrong.append(r.url)
        )
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []
