"""The live page in a browser: a run that is watched and killed, and hostile text that stays text."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import threading

import pytest
from pages import EVIL

from sslbench.api import Place
from sslbench.data import default_roots
from sslbench.leaderboard.live import LiveServer, Watcher
from sslbench.one_cell.building import Builder
from sslbench.one_cell.workbench import Workbench
from sslbench.plan.selection import Selection
from sslbench.plugins import registry
from sslbench.store import Store
from sslbench.train.device import pick_device
from sslbench.train.options import RunOptions

pytestmark = pytest.mark.browser
FORK = multiprocessing.get_context("fork")  # it need not import torch again


@contextlib.contextmanager
def served(state):
    with LiveServer(0, state) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def opened(chromium, server, **options):
    """A page of the server; nothing must have gone wrong or elsewhere when it is left."""
    wrong = []
    context = chromium.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    known = (server.url, f"{server.url}state.json")
    page.on("request", lambda r: None if r.url in known else wrong.append(r.url))
    page.goto(server.url)
    try:
        yield page
    finally:
        context.close()
    assert wrong == []


def waits_for(page, selector, text):
    page.locator(selector, has_text=text).first.wait_for()


def work(plan, go):
    """Does the cells of a plan, once it is told to."""
    go.wait()
    builder = Builder(registry(installed=False), plan.options.place, pick_device("cpu"))
    bench = Workbench(builder, Store(plan.options.store), RunOptions())
    for planned in plan.cells:
        bench.do(planned.cell, [each.judge for each in planned.judges])


def test_a_run_is_watched_from_nothing_until_it_is_killed(chromium, tmp_path):
    store = tmp_path / "store"
    options = Selection(
        suite="quick",
        methods=("swav",),
        datasets=("digits[train=300,test=100]",),
        evaluators=("knn",),
        seeds=(0, 1),
        epochs=2000,
        batch=32,
        store=store,
        place=Place(default_roots(None)),
    )
    watcher = Watcher(options, registry(installed=False))
    go = FORK.Event()
    run = FORK.Process(target=work, args=(watcher.plan, go), daemon=True)
    run.start()  # before there are threads
    with (
        served(watcher.state) as server,
        opened(chromium, server, viewport={"width": 400, "height": 900}) as page,
    ):
        waits_for(page, "#counts", "0 of 6 cells done · 6 missing · nobody works on it")
        assert not store.exists()
        go.set()
        waits_for(page, "#counts", "1 running")
        waits_for(page, "#now .card", "images/s")
        waits_for(page, "#panels figcaption", "supervised")  # which comes before swav
        assert page.locator("#matrix .s-running").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        run.kill()
        run.join()
        waits_for(page, "#matrix .s-perhaps", "/2000")
        waits_for(page, "#now .card", "not here")


def test_hostile_text_stays_text_and_the_page_says_when_nobody_answers(chromium):
    slot = {"state": "failed", "share": 0, "said": EVIL, "title": EVIL}
    line = {"head": EVIL, "at_work": True, "points": {EVIL: [[1, 2.0], [2, 1.0]]}}
    now = {"title": EVIL, "state": "running", "share": 0.5, "doing": EVIL}
    table = {"title": EVIL, "heads": ["method"], "rows": [[EVIL]], "baselines": 0}
    state = {
        **dict.fromkeys(("suite", "summary", "store", "caption"), EVIL),
        "counts": {"failed": 1},
        "total": 1,
        "waiting": 0,
        "at_work": 1,
        "to_go": None,
        "at": "2026-01-01T00:00:00",
        "trouble": [EVIL],
        "matrix": {"groups": [[EVIL, [EVIL]]], "rows": [[EVIL, [[slot]]]]},
        "now": [{**now, "speed": 1, "loss": 2, "left": 3, "age": 4}],
        "curves": [{"label": EVIL, "group": EVIL, "lines": [line]}],
        "failed": [{"title": EVIL, "why": EVIL}],
        "tables": [{**table, "findings": [EVIL]}],
        "verdicts": [{"label": EVIL, "codes": [EVIL], "lines": [EVIL]}],
    }
    with served(lambda: json.dumps(state).encode()) as server:
        with opened(chromium, server, color_scheme="dark") as page:
            waits_for(page, "#panels figcaption", "pwn")
            assert page.evaluate("window.__pwn") is None
            assert page.locator("main img, main script").count() == 0
        context = chromium.new_context()
        page = context.new_page()
        page.goto(server.url)
        waits_for(page, "#counts", "0 of 1 cells done")
    page.locator("#lost:not([hidden])").wait_for()
    assert "does not answer" in page.locator("#lost").inner_text()
    context.close()
