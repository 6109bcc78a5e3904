"""The linear probe by layers: each stage against scikit-learn, and the one that is named best."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from sslbench.cells.protocol import resolve_judge
from sslbench.errors import Unsuited
from sslbench.evaluators.linear import GRID, Linear
from sslbench.plugins import registry

from .helpers import fake


def layered(spreads=(8.0, 2.5, 5.0), classes=4, **rest):
    """Stages of other widths than the features, each a noisier or clearer view of the classes."""
    world = fake(400, 300, 10, classes, spread=3.0, **rest)
    generator = torch.Generator().manual_seed(5)
    world.levels = {"train": [], "test": []}
    for width, spread in enumerate(spreads, start=6):
        centres = 2 * torch.randn(classes, width, generator=generator)
        for split, levels in world.levels.items():
            labels = world.truth[split]
            noise = spread * torch.randn(len(labels), width, generator=generator)
            levels.append(centres[labels] + noise)
    return world


def scikit(x, y, test, l2):
    """Predictions of test by scikit-learn's probe of standardised features."""
    mean, deviation = x.mean(0), x.std(0, unbiased=False)
    points, queries = (((part - mean) / deviation).double().numpy() for part in (x, test))
    model = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-8, max_iter=5000).fit(points, y)
    return torch.from_numpy(model.predict(queries))


def test_every_layer_is_scikit_learns_probe_on_its_pooled_maps():
    world = layered()
    judgement = world.judged_by(Linear(layers=True))
    for place, (x, test) in enumerate(
        zip(world.levels["train"], world.levels["test"], strict=True)
    ):
        l2 = judgement.chosen[f"l2_layer{place + 1}"]
        right = scikit(x, world.truth["train"], test, l2) == world.truth["test"]
        value = judgement.metrics[f"layer{place + 1}"]
        assert value.value == pytest.approx(float(right.double().mean()), abs=1 / 300 + 1e-9)
        assert value.n == 300
        assert value.split == "test"


def test_every_layer_chooses_its_own_l2_as_the_features_would():
    world = layered()
    chosen = world.judged_by(Linear(layers=True)).chosen
    for place, (x, test) in enumerate(
        zip(world.levels["train"], world.levels["test"], strict=True)
    ):
        alone = layered()
        alone.train, alone.test = x, test
        assert chosen[f"l2_layer{place + 1}"] == alone.judged_by(Linear()).chosen["l2"]
    assert len({chosen[f"l2_layer{place}"] for place in (1, 2, 3)}) > 1
    assert all(chosen[f"l2_layer{place}"] in GRID for place in (1, 2, 3))


def test_the_features_are_judged_as_without_layers():
    world = layered()
    plain, wide = world.judged_by(Linear()), world.judged_by(Linear(layers=True))
    assert wide.metrics["top1"] == plain.metrics["top1"]
    assert wide.chosen["l2"] == plain.chosen["l2"]
    assert set(plain.metrics) == {"top1"}
    assert set(plain.chosen) == {"l2"}
    assert set(wide.metrics) == {"top1", "layer1", "layer2", "layer3", "best_layer"}


def test_without_layers_no_map_is_asked_for():
    world = layered()
    world.levels = {}
    assert world.judged_by(Linear()).metrics["top1"].value > 0.5


def test_the_best_layer_is_named_by_the_held_out_tenth_and_never_by_test():
    world = layered(spreads=(1.0, 3.0))
    first, held = world.levels["train"][0], world.held_out
    order = torch.randperm(int(held.sum()), generator=torch.Generator().manual_seed(0))
    first[held] = first[held][order]  # the clearer stage, but on the held-out tenth
    judgement = world.judged_by(Linear(layers=True))
    assert judgement.chosen["best_layer"] == "layer2"
    assert judgement.metrics["best_layer"] == judgement.metrics["layer2"]
    assert judgement.metrics["layer1"].value > judgement.metrics["layer2"].value + 0.05


def test_nothing_of_test_moves_what_is_chosen():
    world = layered()
    chosen = world.judged_by(Linear(layers=True)).chosen
    world.truth["test"] = world.truth["test"].flip(0)
    world.levels["test"] = [torch.randn_like(level) for level in world.levels["test"]]
    assert world.judged_by(Linear(layers=True)).chosen == chosen


def test_maps_of_test_are_asked_for_last():
    world = layered()
    asked = []
    maps = world.maps
    world.maps = lambda split: (asked.append((split, list(world.reads))), maps(split))[1]
    world.judged_by(Linear(layers=True))
    assert asked == [("train", ["train"]), ("test", ["train", "test"])]


def test_a_perfect_layer_scores_one_and_a_random_one_chance():
    world = layered(spreads=(0.01, 1e4))
    metrics = world.judged_by(Linear(layers=True)).metrics
    assert metrics["layer1"].value == metrics["best_layer"].value == 1
    assert abs(metrics["layer2"].value - 0.25) < 5 * metrics["layer2"].stderr


def test_a_fixed_l2_is_that_of_every_layer_and_the_best_is_still_chosen():
    judgement = layered().judged_by(Linear(l2=0.02, layers=True))
    assert {judgement.chosen[f"l2_layer{place}"] for place in (1, 2, 3)} == {0.02}
    assert judgement.chosen["best_layer"] == "layer2"
    assert not any("edge" in warning for warning in judgement.warnings)


def test_without_a_held_out_tenth_no_layer_is_named_best():
    world = layered()
    world.held_out[:] = False
    judgement = world.judged_by(Linear(layers=True))
    assert "best_layer" not in judgement.metrics
    assert "best_layer" not in judgement.chosen
    assert any(w.startswith("layer1: no held-out tenth") for w in judgement.warnings)


def test_unlabelled_images_take_no_part_in_any_layer():
    world = layered()
    expected = world.judged_by(Linear(layers=True))
    none = torch.full((40,), -1)
    for split in ("train", "test"):
        world.truth[split] = torch.cat([none, world.truth[split]])
        world.levels[split] = [
            torch.cat([torch.randn(40, level.shape[1]), level]) for level in world.levels[split]
        ]
        setattr(world, split, torch.cat([torch.randn(40, 10), getattr(world, split)]))
    world.held_out = torch.cat([torch.arange(40) % 2 == 0, world.held_out])
    assert world.judged_by(Linear(layers=True)) == expected


def test_maps_that_are_not_finite_are_a_sentence():
    world = layered()
    world.levels["train"][1][7, 2] = float("nan")
    with pytest.raises(ValueError, match=r"maps of stage 2 .* 1 of 400 rows of train"):
        world.judged_by(Linear(layers=True))


def test_an_encoder_without_maps_is_left_to_its_own_sentence():
    world = layered()

    def maps(split):
        raise Unsuited("no bare backbone")

    world.maps = maps
    with pytest.raises(Unsuited, match="no bare backbone"):
        world.judged_by(Linear(layers=True))


def test_the_protocol_without_layers_keeps_its_name():
    named = {
        text: resolve_judge(text, registry(installed=False))[0].protocol
        for text in ("linear", "linear[layers=false]", "linear[layers=true]")
    }
    assert named["linear"] == named["linear[layers=false]"] == "linear-2"
    assert named["linear[layers=true]"] == "linear-2[layers=true]"
