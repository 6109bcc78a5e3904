"""Encoders that cannot be judged, and judges that cannot judge, on the whole road of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from sslbench.cli.app import program
from sslbench.store import Store

pytestmark = pytest.mark.usefixtures("forks")
TINY = """
summary: a tiny suite
datasets: ["digits[test=30,train=100]"]
backbones: [test_resnet]
methods: [broken, constant, shapeless, listed, fickle]
baselines: [untrained]
floor: untrained
evaluators: [knn, shy, sly]
seeds: [0]
"""
PLUGIN = '''
import torch
from torch import nn
from sslbench import hookimpl
from sslbench.api import Evaluator, Judgement, Metric, Value
from sslbench.errors import Unsuited

SSLBENCH_API = (1, 0)


class Spoilt(nn.Module):
    def __init__(self, backbone, how):
        super().__init__()
        self.backbone, self.how = backbone, how

    def forward(self, x):
        return self.how(self.backbone(x), self.backbone, x)


def one_nan(features, backbone, x):
    """In the row of the darkest image alone."""
    features[x.flatten(1).sum(1).argmin(), 3] = torch.nan
    return features


def broken(backbone, data):
    """NaN."""
    return Spoilt(backbone, one_nan)


def constant(backbone, data):
    """The same for all."""
    return Spoilt(backbone, lambda f, b, x: torch.ones_like(f))


def shapeless(backbone, data):
    """Maps, no vectors."""
    return Spoilt(backbone, lambda f, b, x: b.maps(x)[-1])


def listed(backbone, data):
    """A list of vectors."""
    return Spoilt(backbone, lambda f, b, x: [f])


def fickle(backbone, data):
    """Other features each time, on top of something large that hides it."""
    return Spoilt(backbone, lambda f, b, x: 50 * f.abs().max() + f * (1 + torch.rand_like(f)))


class Sly(Evaluator):
    """Borrows a probe and does not say so."""

    metrics = (Metric("top1"),)

    def __call__(self, subject, data, seed):
        return Judgement({"top1": Value(float(subject.probe("linear")(subject.features("test")).mean()))})


class Shy(Evaluator):
    """Judges nobody but itself."""

    metrics = (Metric("sum"),)

    def __call__(self, subject, data, seed):
        if data.classes == 10:
            raise Unsuited("ten classes were asked about; shy judges nine")
        return Judgement({"sum": Value(float(subject.features("test").sum()))})


@hookimpl
def methods():
    return {f.__name__: f for f in (broken, constant, shapeless, listed, fickle)}


@hookimpl
def evaluators():
    return {"shy": Shy, "sly": Sly}
'''
LINE = ("run", "--plugin", "odd.py", "--suite", "tiny.yaml")
SHY = "ten classes were asked about; shy judges nine"


@pytest.fixture(scope="module")
def home(forks, tmp_path_factory):
    """A folder in which everything was run once, and how that ended."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "odd.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder, CliRunner().invoke(program, LINE)


def records(folder: Path, method: str):
    """Of that method, by what made them."""
    return {
        r.evaluator or "train": r
        for cell in Store(folder / "sslbench-store").cells()
        for r in cell.records()
        if r.method == method
    }


def test_a_run_with_encoders_that_cannot_be_judged_ends_with_3_and_judges_the_others(home):
    folder, done = home
    assert done.exit_code == 3, done.output
    assert records(folder, "untrained")["knn"].status == "ok"
    assert "Traceback" not in done.output


def test_a_probe_is_lent_only_to_judges_that_say_so(home):
    folder, _ = home
    record = records(folder, "untrained")["file:odd/sly"]
    assert record.status == "failed"
    assert "put 'linear' in its `uses`" in record.sentence


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("broken", "check finite: 1 of 100 feature vectors of train hold NaN or infinity"),
        ("constant", "check varied: the features of all 100 images of train are the same"),
        ("shapeless", "check vectors: the encoder returned"),
        ("listed", "check vectors: the encoder returned list"),
        ("fickle", "check repeatable: the features of the same 16 images of train differ"),
    ],
)
def test_its_record_failed_names_the_check_and_the_table_says_it(home, method, sentence):
    folder, done = home
    found = records(folder, f"file:odd/{method}")
    failed = found["train"] if found["train"].status == "failed" else found["knn"]
    assert failed.status == "failed"
    assert failed.sentence.startswith(sentence)
    assert failed.metrics == ()
    said = " ".join(done.output.split())
    assert f"{method} · test_resnet · digits[test=30,train=100] · seed 0: " in said
    assert sentence.partition(" (")[0] in said


def test_a_judge_that_is_not_suited_is_skipped_and_not_asked_again_but_a_failed_one_is(home):
    folder, _ = home
    judged = records(folder, "untrained")["file:odd/shy"]
    assert (judged.status, judged.sentence, judged.attempt) == ("skipped", SHY, 1)
    again = CliRunner().invoke(program, [*LINE, "--methods", "constant"])
    assert again.exit_code == 3, again.output
    assert "made 0 evaluations" in again.stdout
    assert SHY in again.stdout
    assert records(folder, "untrained")["file:odd/shy"].attempt == 1
    assert records(folder, "file:odd/constant")["knn"].attempt == 2
    line = ["evaluate", "tiny.yaml", *LINE[1:3], "--methods", "", "--evaluators", "knn,shy"]
    alone = CliRunner().invoke(program, line)
    assert alone.exit_code == 0, alone.output
    assert SHY in alone.stdout
