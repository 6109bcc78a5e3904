"""`sslbench watch`: what it tells of a store's files, and who may ask for its page."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_up import judged, train

from sslbench.api import Place
from sslbench.cells.cell import Cell
from sslbench.cli.app import program
from sslbench.data import default_roots
from sslbench.errors import UserError
from sslbench.leaderboard.live import LiveServer, Watcher
from sslbench.leaderboard.live.cells import FRESH
from sslbench.leaderboard.live.log import read_log
from sslbench.leaderboard.live.page import SCRIPTS, STYLES, live_page
from sslbench.plan.selection import Selection
from sslbench.plugins import registry
from sslbench.records import Costs, Record, Warned
from sslbench.store import Store, lease

LOG = """\
2026-01-01T00:00:00 main epoch 1/5 loss 3.5 queue filled 0.5 images/s 400
2026-01-01T00:00:10 main epoch 2/5 loss 3.25 queue filled 1 images/s 500
2026-01-01T00:00:20 main epoch 3/5 loss nan images/s 600
"""


def selection(root: Path) -> Selection:
    return Selection(
        suite="quick",
        methods=("moco", "swav"),
        seeds=(0, 1),
        epochs=5,
        evaluators=("knn",),
        store=root,
        place=Place(default_roots(None)),
    )


def made(options: Selection) -> Watcher:
    return Watcher(options, registry(installed=False))


def state(watcher: Watcher) -> dict:
    watcher._made, watcher._rest = (0.0, b""), 0.0  # no patience
    return json.loads(watcher.state())


def slots(found: dict) -> dict[str, list[str]]:
    """What stands in each row of the matrix."""
    return {
        label: [cell["said"] for s in row for cell in s] for label, row in found["matrix"]["rows"]
    }


def cell_of(watcher: Watcher, method: str, seed: int = 0) -> Cell:
    [cell] = [p.cell for p in watcher.plan.cells if (p.cell.method, p.cell.seed) == (method, seed)]
    return cell


def trained(cell: Cell, **other: object) -> Record:
    return train(cell.method, cell.seed, identity=cell.identity(), cell_id=cell.id, **other)


def put(root: Path, cell: Cell, text: str) -> Path:
    """Writes a cell's log, as a run that is under way."""
    path = Store(root).cell(cell.id).path / "log.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def watcher(tmp_path: Path) -> Watcher:
    return made(selection(tmp_path / "store"))


# ---- the log ---------------------------------------------------------------------------------


def test_a_log_says_epoch_speed_pace_and_curves() -> None:
    found = read_log(LOG)
    assert found is not None
    assert (found.stage, found.epoch, found.epochs) == ("main", 3, 5)
    assert (found.speed, found.pace) == (600.0, 10.0)
    assert found.curves == {"loss": [(1, 3.5), (2, 3.25)], "queue filled": [(1, 0.5), (2, 1)]}


def test_epochs_that_came_again_after_a_stop_count_once_and_pauses_do_not_count() -> None:
    again = (
        "2026-01-01T09:00:00 resumed main at epoch 2\n"
        "2026-01-01T09:00:10 main epoch 3/5 loss 3 images/s 610\n"
        "2026-01-01T09:00:20 main epoch 4/5 loss 2 images/s 620\n"
    )
    found = read_log(LOG + again)
    assert found is not None
    assert found.curves["loss"] == [(1, 3.5), (2, 3.25), (3, 3), (4, 2)]
    assert found.pace == 10.0


def test_stages_have_curves_of_their_own_and_a_half_written_line_waits() -> None:
    assert read_log("") is None
    assert read_log(LOG.partition("\n")[0]) is None
    found = read_log(
        LOG + "2026-01-01T00:00:30 agree epoch 1/2 loss 1\n2026-01-01T00:00:40 agree ep"
    )
    assert found is not None
    assert found.done == {"main": 3, "agree": 1}
    assert found.curves["agree.loss"] == [(1, 1)]


# ---- what a cell is doing --------------------------------------------------------------------


def test_a_store_that_does_not_exist_is_all_missing_and_is_not_made(watcher: Watcher) -> None:
    found = state(watcher)
    assert found["counts"] == {"missing": 8}
    assert slots(found)["moco"] == ["missing", "missing"]
    assert list(slots(found)) == ["moco", "swav", "untrained", "supervised"], "baselines last"
    assert (found["at_work"], found["to_go"]) == (0, None)
    assert not watcher.options.store.exists()


def test_a_cell_runs_while_its_lock_is_held_and_its_log_says_how_far_it_is(
    watcher: Watcher,
) -> None:
    root, cell = watcher.options.store, cell_of(watcher, "moco")
    put(root, cell, LOG)
    with Store(root).cell(cell.id).lock():
        found = state(watcher)
        assert slots(found)["moco"] == ["3/5", "missing"]
        assert found["counts"]["running"] == 1
        [now] = found["now"]
        assert (now["doing"], now["speed"], now["loss"]) == ("epoch 3 of 5", 600, 3.25)
        assert now["left"] == pytest.approx(20, abs=1)
        assert found["to_go"] == pytest.approx(20 + 7 * 50, abs=1), "others take as long as it"
    found = state(watcher)
    assert found["counts"]["perhaps"] == 1, "a run on another machine looks like this too"


def test_a_cell_that_nobody_writes_to_is_stopped(watcher: Watcher) -> None:
    path = put(watcher.options.store, cell_of(watcher, "moco"), LOG)
    before = time.time() - FRESH - 1
    os.utime(path, (before, before))
    found = state(watcher)
    assert found["counts"] == {"stopped": 1, "missing": 7}
    assert slots(found)["moco"] == ["3/5", "missing"]
    assert found["now"] == []
    assert found["curves"][0]["lines"][0]["points"]["loss"] == [[1, 3.5], [2, 3.25]]


def test_a_cell_being_tried_again_runs_and_one_that_failed_says_why(watcher: Watcher) -> None:
    root, cell = watcher.options.store, cell_of(watcher, "swav")
    folder = Store(root).cell(cell.id)
    folder.write_identity(cell.identity())
    folder.add(trained(cell, status="failed", sentence="out of memory"))
    found = state(watcher)
    assert slots(found)["swav"] == ["failed", "missing"]
    assert [each["why"] for each in found["failed"]] == ["out of memory"]
    with folder.lock():
        assert slots(state(watcher))["swav"] == ["0/5", "missing"]


def test_a_store_that_grows_is_seen_with_its_table_verdicts_and_time_to_go(
    watcher: Watcher,
) -> None:
    root, cell = watcher.options.store, cell_of(watcher, "moco")
    state(watcher)
    folder = Store(root).cell(cell.id)
    folder.write_identity(cell.identity())
    warned = Warned(code="low-rank", message="features of rank 2")
    record = trained(cell, warnings=(warned,), health={"rank": 2.0}, costs=Costs(seconds=40))
    folder.add(record)
    with folder.lock():
        found = state(watcher)
        assert slots(found)["moco"] == ["judging", "missing"]
        assert found["now"][0]["doing"] == "to judge: knn-1"
        assert found["to_go"] == pytest.approx(7 * 40)
    assert slots(state(watcher))["moco"] == ["to judge", "missing"]
    judge = watcher.plan.cells[0].judges[0].judge
    from sslbench.cells.protocol import judged_identity

    folder.add(judged(record, judge.name, {"top1": 0.5}, identity=judged_identity(cell, judge)))
    found = state(watcher)
    assert found["counts"] == {"done": 1, "missing": 7}
    [table] = found["tables"]
    assert table["heads"] == ["method", "n", "knn-1 top1", "health"]
    assert ["moco", "1/2", "*50.0 (n=1)", "low-rank"] in table["rows"]
    assert found["verdicts"][0]["codes"] == ["low-rank"]
    assert "features of rank 2" in found["verdicts"][0]["lines"][0]


def test_nothing_is_written_not_even_where_a_record_is_damaged(watcher: Watcher) -> None:
    root, cell = watcher.options.store, cell_of(watcher, "moco")
    put(root, cell, LOG)
    records = Store(root).cell(cell.id).path / "records"
    records.mkdir()
    (records / "train-0.json").write_text("{")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    found = state(watcher)
    assert "damaged, not used" in found["trouble"][0]
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_store_that_cannot_be_read_any_more_is_said_beside_what_was_before(
    watcher: Watcher,
) -> None:
    root = watcher.options.store
    put(root, cell_of(watcher, "moco"), LOG).parent.joinpath("records").mkdir()
    (root / "store.json").write_text('{"format": 99}')
    found = state(watcher)
    assert found["trouble"][0].startswith("the page shows what was before: the store")
    (root / "store.json").unlink()
    assert state(watcher)["trouble"] == []


def test_a_lock_is_asked_for_and_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".lock"
    assert lease.is_leased(path) is False
    with lease.leased(path):
        assert lease.is_leased(path) is True
    assert lease.is_leased(path) is False
    monkeypatch.setattr(lease, "HELD", tmp_path / "nowhere")
    assert lease.is_leased(path) is None


# ---- the server ------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with LiveServer(0, lambda: b'{"suite": "<b>"}') as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def ask(
    server: LiveServer, path: str, *, method: str = "GET", host: str | None = None
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


def test_there_is_a_page_and_its_state_and_nothing_else(server: LiveServer) -> None:
    code, page, headers = ask(server, "/")
    assert (code, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"<title>sslbench watch</title>" in page
    code, content, headers = ask(server, "/state.json")
    assert (code, content, headers["Content-Type"]) == (
        200,
        b'{"suite": "<b>"}',
        "application/json",
    )
    for path in ("/../etc/passwd", "/state.json?x", "/live.js"):
        assert ask(server, path)[0] == 404


def test_every_answer_has_the_headers_that_shut_others_out(server: LiveServer) -> None:
    for path in ("/", "/state.json", "/nothing"):
        headers = ask(server, path)[2]
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy
        assert "connect-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"


def test_only_this_machines_own_names_are_answered(server: LiveServer) -> None:
    port = server.server_port
    assert server.server_address[0] == "127.0.0.1"
    assert ask(server, "/", host=f"localhost:{port}")[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "localhost", f"127.0.0.1:{port + 1}"):
        assert ask(server, "/state.json", host=host)[0] == 403


def test_it_is_only_read(server: LiveServer) -> None:
    code, content, headers = ask(server, "/", method="HEAD")
    assert (code, content) == (200, b"")
    assert int(headers["Content-Length"]) > 10_000
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ask(server, "/", method=method)[0] == 405
    assert ask(server, "/", method="BREW")[0] == 501


def test_a_reader_who_leaves_makes_no_noise(
    server: LiveServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port)) as each:
        each.sendall(b"GET / HT")
    assert ask(server, "/")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_the_page_names_no_other_address_and_parses_no_markup() -> None:
    page, policy = live_page()
    own = b"http://www.w3.org/2000/svg"  # the name of a language, which is not asked for
    assert page.replace(own, b"").count(b"http") == 1  # the test of a link in dom.js
    assert "http" not in policy
    for path in SCRIPTS:
        text = path.read_text()
        assert "innerHTML" not in text
        assert "eval" not in text
    assert all(path.is_file() for path in STYLES)


# ---- the command -----------------------------------------------------------------------------


def call(*args: str, root: Path) -> tuple[int, str, str]:
    line = ["watch", "--methods", "moco", "--seeds", "0", "--no-browser", "--store", str(root)]
    done = CliRunner().invoke(program, [*line, *args])
    return done.exit_code, done.stdout, done.stderr


def test_a_port_in_use_is_one_sentence_that_says_what_would_work(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert call("--port", str(port), root=tmp_path) == (
            2,
            "",
            f"error: port {port} is in use, perhaps by another watch; name another with --port N; "
            "--port 0 takes a free one\n",
        )


def test_ctrl_c_ends_it_quietly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(server: LiveServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LiveServer, "serve_forever", interrupted)
    code, out, err = call("--port", "0", root=tmp_path / "store")
    assert (code, err) == (130, "")
    assert "3 cells: http://127.0.0.1:" in out
    assert not (tmp_path / "store").exists()


def test_a_selection_that_cannot_be_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    code, _, err = call("--methods", "mocko", root=tmp_path)
    assert (code, "mocko" in err) == (2, True)
    with pytest.raises(UserError):
        made(replace(selection(tmp_path), suite="nowhere.yaml"))
