"""What was shown is read back from what each tool wrote."""

from __future__ import annotations

import importlib.util
import json
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
from click.testing import CliRunner
from sslbench_trackers.cells import curves, flat
from sslbench_trackers.mlflow import MLflow, named
from sslbench_trackers.tensorboard import TensorBoard
from sslbench_trackers.wandb import WandB

from sslbench import UserError
from sslbench.api import CellInfo, RunInfo
from sslbench.cli.app import program
from sslbench.events import CellDone, CellStarted, EpochDone, Judged, Progress
from sslbench.plugins import registry
from sslbench.run.tracking import make_trackers
from sslbench.testing import conformance

HOME = Path(__file__).parents[1]
RUN = RunInfo("fashion+1", Path("store"), "0.1.0")
# one database for all, for making its tables takes seconds
STORE = f"sqlite:///{tempfile.mkdtemp(prefix='sslbench-trackers-')}/mlflow.db"
PROTOCOL = "tent-1(linear-1)[steps=2]"


def cell(letter="a", **more):
    given = {
        "title": f"../<b>sim</b> · {letter}",  # anybody's name: no path, no markup
        "method": "simclr",
        "backbone": "test_resnet",
        "dataset": "digits",
        "seed": 0,
        "identity": {"precision": "fp32"},
        "hyperparameters": {"temperature": 0.2, "hidden": None, "sizes": [1, 2]},
        "recipe": {"lr": 0.3, "per": {}, "agree": {"lr": 0.1}},
    }
    return CellInfo(id=letter * 64, **{**given, **more})


def epoch(of, number, stage="main", loss=None):
    loss = 1 / number if loss is None else loss
    return EpochDone(of.id, stage, number, 3, loss, 100.0 * number, (("watch.knn-1.acc", 0.1),))


def told(tracker, cells, epochs=(1, 2, 3), status="ok"):
    """A run whose cells interleave."""
    tracker.start(RUN)
    for of in cells:
        tracker(CellStarted(of.id, of.title), of)
    for number in epochs:
        for of in cells:
            tracker(Progress(of.id, "main", number - 1, 3, 5, 10, 9.0, None), of)
            tracker(epoch(of, number), of)
    for of in cells:
        tracker(Judged(of.id, PROTOCOL, "ok", "acc", 0.75, (("acc", 0.75), ("nll", 0.5))), of)
        tracker(Judged(of.id, "knn-1", "failed", "", None), of)
        tracker(CellDone(of.id, of.title, status, 1.0, "" if status == "ok" else "too <b>bad"), of)
    tracker.close()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "of-wandb"))
    # libraries' own business, while this plugin's warnings are errors
    warnings.filterwarnings("ignore", module=r"(?!sslbench)")


test_they_keep_what_every_tracker_promises = conformance(
    str(HOME / "sslbench_trackers" / "__init__.py"), examples=[f"mlflow[uri='{STORE}']"]
)


# ---- what all three share --------------------------------------------------------------------


def test_curves_of_a_stage_stand_under_its_name():
    assert dict(curves(epoch(cell(), 2, "agree"))) == {
        "agree/loss": 0.5,
        "agree/images_per_second": 200.0,
        "agree/watch/knn-1.acc": 0.1,
    }
    bare = EpochDone("a", "main", 1, 3, None, None)
    assert dict(curves(bare)) == {}


def test_config_is_flat_and_plain():
    assert flat({"a": {"b": 1, "c": {"d": [1]}}, "e": None, "f": {}, "g": True}) == {
        "a.b": 1,
        "a.c.d": "[1]",
        "e": "null",
        "f": "{}",
        "g": True,
    }


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_library_is_said_with_the_pip_line_before_anything_runs(name, monkeypatch):
    real = importlib.util.find_spec
    find = lambda asked, *more: None if asked == name else real(asked, *more)  # noqa: E731
    monkeypatch.setattr("sslbench_trackers.cells.find_spec", find)
    found = registry(installed=False, files=[HOME / "sslbench_trackers" / "__init__.py"])
    with pytest.raises(UserError) as error:
        make_trackers([name], found)
    assert f"pip install 'sslbench-trackers[{name}]'" in str(error.value)
    assert not list(Path().iterdir())


# ---- TensorBoard -----------------------------------------------------------------------------


def events(folder="runs"):
    """EventAccumulators by the folder of the run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for path in sorted({file.parent for file in Path(folder).rglob("events.out.tfevents.*")}):
        found[path] = EventAccumulator(str(path)).Reload()
    return found


def test_tensorboard_shows_curves_metrics_and_hyperparameters():
    first, second = cell("a"), cell("b")
    told(TensorBoard(), [first, second])
    found = events()
    assert [path.parts[:2] for path in found] == [("runs", "fashion-1")] * 2
    assert all(len(path.parts) == 3 for path in found)  # a title is no path
    for path, of in zip(found, (first, second), strict=True):
        read = found[path]
        assert path.name.endswith(of.id[:12])
        loss = [(point.step, point.value) for point in read.Scalars("loss")]
        assert loss == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
        assert [point.value for point in read.Scalars("images_per_second")] == [100, 200, 300]
        assert read.Scalars("watch/knn-1.acc")[0].value == pytest.approx(0.1)
        judged = read.Scalars(f"judge/{PROTOCOL}.acc")
        assert [(point.step, point.value) for point in judged] == [(3, 0.75)]
        [text] = read.Tensors("config/text_summary")
        assert '"temperature": 0.2' in text.tensor_proto.string_val[0].decode()
        assert "_hparams_/session_start_info" in read.summary_metadata
        row = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        assert b"hyperparameters.temperature" in row
        assert b"recipe.agree.lr" in row


def test_a_cell_that_goes_on_stays_one_run_of_tensorboard():
    told(TensorBoard(dir="shown"), [cell()], epochs=(1,), status="interrupted")
    told(TensorBoard(dir="shown"), [cell()], epochs=(2, 3))
    [read] = events("shown").values()
    assert [point.step for point in read.Scalars("loss")] == [1, 2, 3]
    [text] = read.Tensors("status/text_summary")
    assert text.tensor_proto.string_val[0] == b"    interrupted: too <b>bad"  # code, not markup


def test_points_can_be_read_while_the_run_goes_on():
    tracker, of = TensorBoard(), cell()
    tracker.start(RUN)
    tracker(epoch(of, 1), of)
    [read] = events().values()
    assert [point.step for point in read.Scalars("loss")] == [1]
    tracker.close()


# ---- Weights & Biases ------------------------------------------------------------------------


def records(path):
    """Of the log that `wandb sync` reads: LevelDB's format behind a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    content, place, parts, found = path.read_bytes(), 7, b"", []
    while place + 7 <= len(content):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return found


def read_wandb(path):
    """(run, config, rows of the history, summary, exit code) of an offline run."""
    run, config, rows, summary, code = None, {}, [], {}, None
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            config |= {item.key: json.loads(item.value_json) for item in run.config.update}
        elif kind == "history":
            row = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            rows.append({key: value for key, value in row.items() if not key.startswith("_")})
        elif kind == "summary":
            for item in record.summary.update:
                summary[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        elif kind == "exit":
            code = record.exit.exit_code
    return run, config, rows, summary, code


def test_wandb_keeps_cells_apart_and_offline():
    told(WandB(project="mine"), [cell("a"), cell("b")])
    told(WandB(project="mine"), [cell("c")], epochs=(1,), status="failed")
    assert not list(Path("wandb").glob("run-*"))  # what an online run would lie in
    found = sorted(Path("wandb").glob("offline-run-*/run-*.wandb"), key=lambda path: path.name)
    assert [path.stem for path in found] == [f"run-{letter * 32}" for letter in "abc"]
    run, config, rows, summary, code = read_wandb(found[0])
    assert (run.project, run.run_group, run.display_name) == ("mine", RUN.suite, cell("a").title)
    assert config["hyperparameters"] == cell().hyperparameters
    assert config["recipe"]["agree"] == {"lr": 0.1}
    assert config["cell"] == "a" * 64
    assert [(row["epoch"], row["loss"]) for row in rows] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert rows[1]["images_per_second"] == 200.0
    assert rows[1]["watch/knn-1.acc"] == 0.1
    assert summary[f"judge/{PROTOCOL}.acc"] == 0.75
    assert summary[f"judge/{PROTOCOL}.nll"] == 0.5
    assert (summary["status"], code) == ("ok", 0)
    *_, summary, code = read_wandb(found[2])
    assert (summary["status"], summary["sentence"], code) == ("failed", "too <b>bad", 1)


@pytest.mark.parametrize(
    ("given", "variable", "mode"),
    [("", None, "offline"), ("", "online", "online"), ("offline", "online", "offline")],
)
def test_wandb_is_online_only_where_that_was_said(given, variable, mode, monkeypatch):
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    assert WandB(mode=given).mode == mode


# ---- MLflow ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store():
    return STORE


def runs(store, experiment):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=store)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, {run.data.tags["sslbench.cell"][0]: run for run in found}


def test_mlflow_goes_on_with_the_run_of_a_cell(store):
    told(MLflow(uri=store), [cell("a")], epochs=(1,), status="interrupted")
    client, found = runs(store, f"sslbench {RUN.suite}")
    assert found["a"].info.status == "KILLED"
    assert found["a"].data.tags["sslbench.status"] == "interrupted: too <b>bad"

    told(MLflow(uri=store), [cell("a"), cell("b")], epochs=(2, 3))
    client, found = runs(store, f"sslbench {RUN.suite}")
    assert set(found) == {"a", "b"}
    run = found["a"]
    assert (run.info.status, run.info.run_name) == ("FINISHED", cell("a").title)
    loss = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in loss] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    metrics = run.data.metrics
    assert metrics[named(f"judge/{PROTOCOL}.acc")] == 0.75
    assert metrics["watch/knn-1.acc"] == 0.1
    params = run.data.params
    assert params["hyperparameters.temperature"] == "0.2"
    assert params["hyperparameters.sizes"] == "[1, 2]"
    assert params["recipe.agree.lr"] == "0.1"
    assert params["cell"] == "a" * 64
    assert [point.step for point in client.get_metric_history(found["b"].info.run_id, "loss")] == [
        2,
        3,
    ]


def test_mlflow_goes_where_it_is_told(store, monkeypatch):
    assert MLflow().uri == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert (MLflow().uri, MLflow(uri=store).uri) == ("http://elsewhere", store)
    told(MLflow(uri=store, experiment="mine"), [cell("c")], epochs=(1,), status="failed")
    _, found = runs(store, "mine")
    assert found["c"].info.status == "FAILED"


# ---- beside a real run -----------------------------------------------------------------------

SUITE = """
summary: A hundred digits
datasets: ["digits[test=50,train=100]"]
backbones: [test_resnet]
methods: [simclr]
baselines: []
evaluators: [knn]
seeds: [0]
epochs: 2
batch: 32
"""


def test_the_three_beside_a_real_run_agree_with_its_record(store):
    from sslbench.store import Store

    Path("tiny.yaml").write_text(SUITE)
    plugin = str(HOME / "sslbench_trackers" / "__init__.py")
    track = f"tensorboard[dir=shown],wandb,mlflow[uri='{store}',experiment=real]"
    line = ["--no-plugins", "--plugin", plugin, "run", "--suite", "tiny.yaml", "--watch", "knn:1"]
    done = CliRunner().invoke(program, [*line, "--json", "--track", track])
    assert done.exit_code == 0, done.output
    assert "left out" not in done.stderr
    json.loads(done.stdout)  # and nothing else

    [folder] = Store(Path("sslbench-store")).cells()
    [train] = [record for record in folder.records() if record.kind == "train"]
    [judged] = [record for record in folder.records() if record.kind == "evaluation"]
    tag = f"judge/knn-1.{judged.metric().name}"
    losses, accuracy = [value for _, value in train.curves["loss"]], judged.metric().value

    [read] = events("shown").values()
    assert [point.value for point in read.Scalars("loss")] == pytest.approx(losses)
    assert len(read.Scalars(tag.replace("judge", "watch"))) == 2
    [path] = Path("wandb").glob("offline-run-*/run-*.wandb")
    _, config, rows, summary, _ = read_wandb(path)
    assert [row["loss"] for row in rows] == losses
    assert {key: summary[key] for key in summary if key.startswith("judge/")} == {
        f"judge/knn-1.{metric.name}": metric.value for metric in judged.metrics
    }
    assert config["hyperparameters"] == train.hyperparameters
    _, found = runs(store, "real")
    [run] = found.values()
    assert run.data.metrics[tag] == accuracy
    assert run.data.metrics["loss"] == losses[-1]


# ---- the package -----------------------------------------------------------------------------


def test_the_hook_names_the_three_without_importing_them():
    command = (
        "import sys, sslbench.plugins as p, pathlib;"
        f"found = p.registry(installed=False, files=[pathlib.Path({str(HOME)!r}, "
        "'sslbench_trackers', '__init__.py')]).entries('trackers');"
        "print(sorted(found), [bool(e.summary()) for e in found.values()],"
        " {'torch', 'tensorboard', 'wandb', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['mlflow', 'tensorboard', 'wandb'] [True, True, True] set()"


def test_the_wheel_holds_the_package_and_the_entry_point(tmp_path):
    source = copytree(HOME, tmp_path / "source", ignore=ignore_patterns("build", "*.egg-info"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("sslbench_trackers-0.1.0-*.whl")
    with zipfile.ZipFile(wheel) as held:
        names = {f"sslbench_trackers/{path.name}" for path in HOME.glob("sslbench_trackers/*.py")}
        assert names <= set(held.namelist())
        points = held.read("sslbench_trackers-0.1.0.dist-info/entry_points.txt").decode()
    assert points.split() == ["[sslbench]", "trackers", "=", "sslbench_trackers"]
