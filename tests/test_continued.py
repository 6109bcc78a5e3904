"""Pretraining that continues from published weights, or from those of a cell of the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import sslbench
from sslbench.api import Backbone
from sslbench.cli.app import program
from sslbench.errors import UserError
from sslbench.one_cell.backbone import backbone_of, cell_of, start_of, started
from sslbench.plugins import registry
from sslbench.store import CellFolder, Store

pytestmark = pytest.mark.usefixtures("forks")
FOUND = registry(installed=False)
SUITE = """
summary: a tiny suite
datasets: ["digits[test=30,train=100]"]
backbones: [test_resnet]
methods: [simclr]
baselines: [untrained]
floor: untrained
evaluators: [knn]
seeds: [0]
epochs: 1
batch: 32
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SSLBENCH_STORE", "SSLBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    Path("tiny.yaml").write_text(SUITE)


def ran(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(program, ["run", "--suite", "tiny.yaml", *words])
    assert done.exit_code == code, done.output
    return done.output


def cell(method: str, backbone: str) -> CellFolder:
    for folder in Store(Path("sslbench-store")).cells():
        identity = folder.identity()
        assert identity is not None
        if (identity.method, identity.backbone) == (method, backbone):
            return folder
    raise AssertionError(f"no cell of {method} on {backbone}")


def test_training_continues_from_a_cell_and_the_baseline_starts_there_too() -> None:
    ran()
    first = cell("simclr", "test_resnet")
    name = f"test_resnet[weights={first.id[:12]}]"
    ran("--backbones", name)
    before, start = first.weights("encoder"), cell("untrained", name).weights("encoder")
    after = cell("simclr", name).weights("encoder")
    assert before is not None
    assert start is not None
    assert after is not None
    assert all(start[key].equal(value) for key, value in before.items())
    moved = [key for key, value in before.items() if not after[key].equal(value)]
    assert len(moved) > len(before) / 2
    record = cell("simclr", name).trained()
    assert record is not None
    said = [w.message for w in record.warnings if w.code == "start"]
    assert said == [
        f"it starts from the weights of cell {first.id[:12]}, and so from all that these have seen"
    ]


def test_its_encoder_loads_where_the_cell_that_it_began_with_is_gone() -> None:
    ran("--methods", "untrained")
    first = cell("untrained", "test_resnet")
    name = f"test_resnet[weights={first.id[:12]}]"
    ran("--backbones", name)
    second = cell("simclr", name)
    CliRunner().invoke(program, ["store", "rm", first.id[:12], "--yes"])
    encoder = sslbench.load(second.id)
    assert isinstance(encoder, Backbone)
    assert encoder.name == name
    assert encoder(torch.rand(1, 3, 32, 32)).shape == (1, encoder.dim)


@pytest.mark.parametrize(
    ("backbone", "sentence"),
    [
        ("test_resnet[weights=0123456789ab]", "no cell '0123456789ab' in the store"),
        (
            "test_resnet[weights=0123456789abcd]",
            "write the first 12 digits of a cell: 0123456789ab",
        ),
        ("test_resnet[weights=nonsense]", "test_resnet has no weights tagged 'nonsense'"),
        ("resnet18-small[weights=a1_in1k]", "has another stem than the networks"),
    ],
)
def test_weights_that_are_not_there_are_a_sentence_before_anything_trains(
    backbone: str, sentence: str
) -> None:
    said = ran("--backbones", backbone, code=2)
    assert sentence in said
    assert "Traceback" not in said


def test_weights_of_another_network_are_refused() -> None:
    ran("--methods", "untrained")
    first = cell("untrained", "test_resnet").id[:12]
    said = ran("--backbones", f"resnet18-small[weights={first}]", code=2)
    assert f"cannot start from it: the encoder of cell {first} does not fit" in said


def test_published_weights_go_in_by_their_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def published(self: Backbone, tag: str) -> Backbone:
        asked.append(tag)
        return self.anew()

    backbone = backbone_of("test_resnet[weights=r160_in1k]", 32, FOUND)
    monkeypatch.setattr(type(backbone), "pretrained", published)
    assert started(backbone, None).name == "test_resnet[weights=r160_in1k]"
    assert asked == ["r160_in1k"]
    assert start_of(backbone.name) == (
        "it starts from the published weights r160_in1k, and so from all that these have seen"
    )


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("resnet18", None),
        ("resnet18[weights=tv_in1k]", None),
        ("resnet18[weights=0123456789ab]", "0123456789ab"),
        ("resnet18[weights=123456789012]", "123456789012"),
        ('resnet18[weights="012345678901"]', "012345678901"),
    ],
)
def test_a_cell_is_told_from_a_tag(name: str, cell: Any) -> None:
    assert cell_of(name) == cell


def test_another_store_is_said() -> None:
    backbone = backbone_of("test_resnet[weights=0123456789ab]", 32, FOUND)
    with pytest.raises(UserError, match="of cell 0123456789ab, of another store"):
        started(backbone, None)
