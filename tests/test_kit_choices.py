"""The kit checks each method on a backbone and data that it takes, or says what to name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from sslbench.api import Place
from sslbench.cli.app import program
from sslbench.plugins import registry
from sslbench.testing import Kit, Trial, conformance, open_kit
from sslbench.testing.methods import (
    builds_from_backbone_and_data_alone,
    sees_no_hidden_label,
    trains_all_it_has,
)

VIT = "vit_tiny_patch16_224[embed_dim=24,num_heads=2,depth=1,patch_size=8]"
PICKY = '''
import torch
from sslbench import hookimpl
from sslbench.api import Method, Recipe
from sslbench.views import crop_flip

SSLBENCH_API = (1, 2)


class Means(Method):
    """Tells the mean colours of an image. arXiv 0000.00000. Departures: none known."""

    recipe = Recipe(epochs=1, batch=32, lr=0.05)

    def __init__(self, backbone, data):
        super().__init__()
        self.backbone, self.head = backbone, torch.nn.Linear(backbone.dim, 3)
        self.view = crop_flip(data.size, scale=(0.5, 1.0))

    def step(self, batch):
        found = self.head(self.backbone(batch.views)).float()
        yield (found - batch.views.mean((2, 3))).square().mean()


def wanting(name, refuse):
    needs = classmethod(lambda cls, backbone, data: refuse(backbone, data))
    return type(name, (Means,), {"__doc__": Means.__doc__, "needs": needs})


Coloured = wanting("Coloured", lambda b, d: "it wants colours" if d.grey else None)
Patched = wanting("Patched", lambda b, d: None if b.patch else "it wants patches")
Moving = wanting("Moving", lambda b, d: None if d.clips else "it wants clips")


@hookimpl
def methods():
    return {"means": Means, "coloured": Coloured, "patched": Patched, "moving": Moving}
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "picky.py"
    path.write_text(PICKY)
    return path


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for split, clips in (("train", 3), ("test", 1)):
        for clip in range(clips):
            (tmp_path / "videos" / split / str(clip)).mkdir(parents=True)
            for frame in range(40):
                noise = np.random.default_rng(100 * clip + frame).integers(0, 256, (16, 16, 3))
                path = tmp_path / "videos" / split / str(clip) / f"{frame}.png"
                Image.fromarray(noise.astype(np.uint8)).save(path)
    return tmp_path / "videos"


def trials(kit: Kit) -> dict[str, Trial]:
    """The trials of the methods that can be checked."""
    return {
        check.of.removeprefix("method "): check.run.args[0]  # type: ignore[attr-defined]
        for check in kit.checks()
        if check.name == "learns"
    }


def kit_of(plugin: Path, **asked: object) -> Kit:
    found = registry(installed=False, files=[plugin])
    return open_kit(str(plugin), plugin.parent / "kit", found=found, **asked)  # type: ignore[arg-type]


def test_a_method_that_declines_says_what_to_name(plugin: Path) -> None:
    kit = kit_of(plugin)
    assert [*trials(kit)] == ["means"]
    (check,) = (c for c in kit.checks() if c.of == "method coloured")
    assert check.name == "can_be_checked"
    assert kit.run(check).sentence == (
        "it does not take test_resnet on digits[test=20,train=96]: it wants colours; "
        "name what it takes with --backbone NAME and --dataset NAME"
    )


@pytest.mark.slow
def test_each_method_takes_the_first_that_suits_it(plugin: Path, videos: Path) -> None:
    found = trials(
        kit_of(plugin, backbones=[VIT], datasets=["photo-crops[train=40]", f"clips:{videos}"])
    )
    on = {name: (trial.backbone, trial.data.name) for name, trial in found.items()}
    photos, clips = "photo-crops[test=20,train=40]", f"clips:{videos}[test=20,train=96]"
    assert on == {
        "means": (VIT, photos),
        "coloured": (VIT, photos),
        "patched": (VIT, photos),
        "moving": (VIT, clips),
    }
    digits = trials(kit_of(plugin, backbones=["test_resnet", VIT]))
    assert {name: trial.backbone for name, trial in digits.items()} == {
        "means": "test_resnet",
        "patched": VIT,
    }


def test_nothing_needs_labels_or_patches_that_are_not_there(plugin: Path, videos: Path) -> None:
    found = trials(kit_of(plugin, backbones=[VIT], datasets=[f"clips:{videos}"]))
    for check in (builds_from_backbone_and_data_alone, trains_all_it_has, sees_no_hidden_label):
        check(found["moving"])
    assert found["moving"].fitted.losses


def test_a_dataset_with_less_is_taken_whole(plugin: Path, tmp_path: Path) -> None:
    found = registry(installed=False, files=[plugin])
    trial = Trial(found, "means", tmp_path, {}, "digits[train=50]", place=Place())
    assert trial.dataset == "digits[test=20,train=50]"
    few = Trial(found, "means", tmp_path, {}, "digits[test=5,train=40]")
    assert (len(few.data.train.labels), len(few.data.test.labels)) == (40, 5)


@pytest.mark.slow
def test_a_test_file_names_them_too(plugin: Path) -> None:
    test = conformance(str(plugin), datasets=["photo-crops"])
    (mark,) = test.pytestmark  # type: ignore[attr-defined]
    assert "method-coloured-learns" in mark.kwargs["ids"]
    assert "method-moving-can_be_checked" in mark.kwargs["ids"]


@pytest.mark.slow
def test_the_command_has_the_options(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslbench.testing.kit.method_checks", lambda trial: ())
    line = ["plugins", "check", str(plugin), "--no-plugins", "--store", str(plugin.parent / "st")]
    done = CliRunner().invoke(
        program, [*line, "--dataset", "photo-crops", "--backbone", "nonsense"]
    )
    assert done.exit_code == 5
    assert "unknown backbone 'nonsense'" in done.output
    done = CliRunner().invoke(program, [*line, "--dataset", "photo-crops", "--backbone", VIT])
    assert done.exit_code == 5
    assert done.output.count("can_be_checked") == 1
    assert "method moving: can_be_checked: it does not take vit_tiny" in done.output
