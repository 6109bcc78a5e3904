"""The conformance kit: a sound method passes, and each broken promise is caught by its own check."""

from __future__ import annotations

import random
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslbench import testing
from sslbench.api import DataInfo, Method, Predictions, Pretext, Recipe, Update
from sslbench.data import Data
from sslbench.plugins import KINDS, Entry, Registry, registry
from sslbench.testing import (
    BACKBONE_CHECKS,
    DATASET_CHECKS,
    ENCODER_CHECKS,
    EVALUATOR_CHECKS,
    METHOD_CHECKS,
    SUITE_CHECKS,
    BackboneTrial,
    DatasetTrial,
    JudgeTrial,
    NameTrial,
    Trial,
    checks,
)
from sslbench.testing.evaluators import predicts_each_image
from sslbench.views import crop_flip

OURS = registry(installed=False)


class Sound(Method):
    """Tells the mean colours of an image. arXiv 0000.00000. Departures: from everything."""

    recipe = Recipe(epochs=1, batch=32, lr=0.05)

    def __init__(self, backbone, data, *, width: int = 3):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.dim, width)
        self.view = crop_flip(data.size, scale=(0.5, 1.0))

    def views(self):
        return self.view

    def step(self, batch):
        found = self.head(self.backbone(batch.views))
        yield F.mse_loss(found, batch.views.mean((2, 3)))


def trial_of(kind, folder) -> Trial:
    entries = [entry for every in KINDS for entry in OURS.entries(every).values()]
    planted = Entry("methods", "planted", kind, plugin="planted", dist="planted", version="1")
    return Trial(Registry([], [*entries, planted]), "planted", folder)


def with_step(step, **more):
    return type("Planted", (Sound,), {"__doc__": Sound.__doc__, "step": step, **more})


def with_view(view):
    return type("Planted", (Sound,), {"__doc__": Sound.__doc__, "views": lambda self: view})


def with_encoder(forward):
    class Around(nn.Module):
        def __init__(self, backbone):
            super().__init__()
            self.backbone = backbone
            self.register_buffer("calls", torch.zeros(()))

        forward = None

    Around.forward = forward
    members = {"__doc__": Sound.__doc__, "encoder": lambda self: self.around}

    def born(self, backbone, data):
        Sound.__init__(self, backbone, data)
        self.around = Around(backbone)

    return type("Planted", (Sound,), {**members, "__init__": born})


# ---- plants ----------------------------------------------------------------------------------------


class Uncited(Sound):
    """Tells the mean colours of an image. Departures: none known."""


class Undeparted(Sound):
    """Tells the mean colours of an image. doi 10.1145/279943.279962"""


class Staged(Sound):
    """Has a stage that says nothing. arXiv 0000.00000. Departures: none known."""

    stages: ClassVar = {"mute": Uncited}


class Undocumented(Sound):
    pass


class Picky(Sound):
    __doc__ = Sound.__doc__

    @classmethod
    def needs(cls, backbone, data):
        return "it wants a network of patches"


class Silent(Sound):
    __doc__ = Sound.__doc__

    def __init__(self, backbone, data):
        super().__init__(backbone, data)
        self.spare = nn.Linear(2, 2)


class Counting(Sound):
    """Keeps a number where no checkpoint finds it."""

    steps = 0

    def step(self, batch):
        self.steps += 1
        found = self.head(self.backbone(batch.views))
        yield F.mse_loss(found, batch.views.mean((2, 3))) * self.steps


def draws_from_the_clock(self, batch):
    found = self.head(self.backbone(batch.views))
    yield F.mse_loss(found, batch.views.mean((2, 3))) + random.SystemRandom().random()


def mixes_types(self, batch):
    found = self.head(self.backbone(batch.views))
    bank = torch.zeros(96, 3)
    bank[batch.index] = found
    yield bank.square().mean()


def stands_still(self, batch):
    found = self.head(self.backbone(batch.views))
    yield F.mse_loss(found.detach(), batch.views.mean((2, 3))) + 0 * found.sum()


class Opposed(Sound):
    """Beside its main loss has another group's, which cannot fall. arXiv 0000.00000. Departures: all."""

    def __init__(self, backbone, data):
        super().__init__(backbone, data)
        self.spare = nn.Parameter(torch.zeros(()))

    def groups(self):
        return {
            "main": [*self.backbone.parameters(), *self.head.parameters()],
            "other": [self.spare],
        }

    def step(self, batch):
        yield from Sound.step(self, batch)
        yield Update(1e3 * (1 + batch.progress) + 0 * self.spare, "other")


class Stuck(Opposed):
    __doc__ = Opposed.__doc__

    def step(self, batch):
        yield from stands_still(self, batch)
        yield Update((1e3 + self.spare) * (1 - batch.progress), "other")


def diverges(self, batch):
    yield self.head(self.backbone(batch.views)).mean() / 0


def reads_labels(self, batch):
    found = self.head(self.backbone(batch.views))
    yield F.mse_loss(found, batch.label[:, None].expand(-1, 3).float())


def jumbled(images):
    return images.float() / 255 * float(np.random.default_rng().random())


def brightened(images):
    images += 1
    return images.float() / 255


def squeezed(images):
    return (images.float() / 255).squeeze(0)


class Shown:
    """A view that prints well."""

    def __init__(self, how):
        self.how = how

    def __repr__(self):
        return f"Shown({self.how.__name__})"

    def __call__(self, images):
        return self.how(images)


def counted(self, x):
    self.calls += 1
    return self.backbone(x)


class Following(Sound):
    __doc__ = Sound.__doc__
    targets = ("follower",)

    def __init__(self, backbone, data):
        super().__init__(backbone, data)
        self.follower = nn.Linear(backbone.dim, 3)

    def step(self, batch):
        h = self.backbone(batch.views)
        yield F.mse_loss(self.head(h), self.follower(h))


def wants_three(self, batch):
    found = self.head(self.backbone(batch.views))
    yield found[2:].square().mean()


BROKEN = [
    (Following, "asks_no_gradient_of_targets", "of its target 'follower' ask for a gradient"),
    (with_step(wants_three), "takes_the_smallest_batch", "a batch of 2, which its `least` allows"),
    (Undocumented, "says_what_it_is", "no docstring"),
    (Uncited, "says_what_it_is", "Uncited has no arXiv id and no DOI"),
    (Undeparted, "says_what_it_is", "Undeparted has no `Departures:`"),
    (Staged, "says_what_it_is", "Uncited has no arXiv id"),
    (Staged, "trains_all_it_has", "Uncited never yielded a loss"),
    (Picky, "builds_from_backbone_and_data_alone", "does not take .*network of patches"),
    (
        with_encoder(lambda self, x: self.backbone.maps(x)[-1]),
        "encodes_each_image_alone",
        r"gave .5, |, not .B, D",
    ),
    (
        with_encoder(lambda self, x: F.dropout(self.backbone(x), 0.5)),
        "encodes_each_image_alone",
        "the same images gave other features",
    ),
    (
        with_encoder(lambda self, x: self.backbone(x) - self.backbone(x).mean(0)),
        "encodes_each_image_alone",
        "alone an image has other features",
    ),
    (
        with_encoder(lambda self, x: self.backbone(x) * torch.nan),
        "encodes_each_image_alone",
        "not finite",
    ),
    (with_encoder(counted), "encodes_each_image_alone", r"changed \['around.calls'\]"),
    (with_view(lambda images: images.float() / 255), "views_serve_any_batch", "prints an address"),
    (with_view(Shown(jumbled)), "views_serve_any_batch", "generator of its own"),
    (with_view(Shown(brightened)), "views_serve_any_batch", "wrote on its images"),
    (with_view(Shown(squeezed)), "views_serve_any_batch", r"made torch.float32 \[3, 32, 32\] of 1"),
    (with_view(Shown(torch.Tensor.float)), "views_serve_any_batch", r"left \[0, 1\]"),
    (Silent, "trains_all_it_has", r"never got a gradient: spare.bias, spare.weight"),
    (with_step(diverges), "trains_all_it_has", "did not train: the loss is "),
    (with_step(mixes_types), "trains_in_bf16", "in bf16: .*dtypes match"),
    (with_step(draws_from_the_clock), "repeats_itself", "another course: loss 0 is"),
    (Counting, "resumes_exactly", "another course: loss 2 is"),
    (with_step(stands_still), "learns", "the loss of Planted did not fall"),
    (Stuck, "learns", "the loss of Stuck did not fall"),
]


@pytest.mark.parametrize("check", METHOD_CHECKS)
def test_a_sound_method_passes_every_check(check, tmp_path):
    check(trial_of(Sound, tmp_path))


def test_the_losses_of_other_groups_than_main_need_not_fall(tmp_path):
    trial = trial_of(Opposed, tmp_path)
    for check in (testing.learns, testing.trains_all_it_has, testing.resumes_exactly):
        check(trial)
    assert {name for name, _ in trial.fitted.losses} == {"Opposed", "Opposed.other"}


@pytest.mark.parametrize(
    ("kind", "check", "sentence"), BROKEN, ids=[f"{c}-{s[:20]}" for _, c, s in BROKEN]
)
def test_a_broken_promise_is_a_sentence(kind, check, sentence, tmp_path):
    with pytest.raises(AssertionError, match=sentence):
        getattr(testing, check)(trial_of(kind, tmp_path))


def test_a_label_that_reaches_the_method_is_found(tmp_path, monkeypatch):
    leaking = with_step(reads_labels)
    testing.sees_no_hidden_label(trial_of(leaking, tmp_path / "sound"))
    whole = Data.pretraining

    def leaks(self, labels, **given):
        return whole(self, labels, **given)._replace(labels=self.train.labels)

    monkeypatch.setattr(Data, "pretraining", leaks)
    with pytest.raises(AssertionError, match="other hidden labels, it took another course"):
        testing.sees_no_hidden_label(trial_of(leaking, tmp_path / "leaking"))
    supervised = with_step(reads_labels, labels="all")
    with pytest.raises(AssertionError, match="other hidden labels, it took another course"):
        testing.sees_no_hidden_label(trial_of(supervised, tmp_path / "held out"))


def test_a_label_beyond_the_budget_that_reaches_the_method_is_found(tmp_path, monkeypatch):
    few = with_step(reads_labels, labels="budget")
    testing.sees_no_hidden_label(trial_of(few, tmp_path / "sound"))
    monkeypatch.setattr(Data, "_within_budget", lambda self, shown, budget, seed: shown)
    with pytest.raises(AssertionError, match="other hidden labels, it took another course"):
        testing.sees_no_hidden_label(trial_of(few, tmp_path / "leaking"))


def test_what_is_seen_is_self_view_unless_said_otherwise(tmp_path):
    sound = {k: v for k, v in vars(Sound).items() if k in ("__doc__", "recipe", "__init__", "step")}
    default = type("Planted", (Method,), {**sound, "__init__": plainly_born})
    testing.views_serve_any_batch(trial_of(default, tmp_path / "default"))
    blind = type("Planted", (Method,), {**sound, "__init__": blindly_born})
    with pytest.raises(AssertionError, match=r"Planted does not say what it sees: set self\.view"):
        testing.views_serve_any_batch(trial_of(blind, tmp_path / "blind"))


def blindly_born(self, backbone, data):
    Method.__init__(self)
    self.backbone, self.head = backbone, nn.Linear(backbone.dim, 3)


def plainly_born(self, backbone, data):
    blindly_born(self, backbone, data)
    self.view = crop_flip(data.size, scale=(0.5, 1.0))


def test_labels_that_may_be_seen_are_not_called_hidden(tmp_path):
    testing.sees_no_hidden_label(trial_of(with_step(reads_labels, labels="all"), tmp_path))


def test_an_encoder_gets_the_checks_that_concern_it(tmp_path):
    def colours(backbone, data: DataInfo, *, power: float = 1.0):
        """The mean colours."""
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    trial = trial_of(colours, tmp_path)
    assert checks(trial) == ENCODER_CHECKS
    assert checks(trial_of(Sound, tmp_path)) == METHOD_CHECKS
    for check in checks(trial):
        check(trial)


def test_every_check_states_its_promise():
    kinds = [getattr(testing, name) for name in testing.__all__ if name.endswith("_CHECKS")]
    assert len(kinds) == 9
    for check in {check for each in kinds for check in each}:
        assert (check.__doc__ or "").split("\n\n")[0].rstrip().endswith("."), check


# ---- what there is beside methods ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_resnet", "test_vit[patch_size=8]"])
def test_networks_of_timm_pass_as_backbones(name):
    for check in BACKBONE_CHECKS:
        check(BackboneTrial(OURS, name))


def test_a_built_in_dataset_passes():
    trial = DatasetTrial(OURS, "digits")
    assert [check(trial) for check in DATASET_CHECKS] == [None] * len(DATASET_CHECKS)


@pytest.mark.parametrize("name", OURS.names("suites"))
def test_built_in_suites_name_what_there_is(name):
    for check in SUITE_CHECKS:
        check(NameTrial(OURS, name))


@pytest.mark.parametrize("name", ["knn", "clustering", "geometry"])
def test_judges_pass_on_the_kits_own_images(name):
    for check in EVALUATOR_CHECKS:
        check(JudgeTrial(OURS, name))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda said, truth: (said[:-1], truth[:-1]),
            "the truth in its predictions is not the 160 ",
        ),
        (lambda said, truth: (said.flip(0), truth.flip(0)), "not the 160 labels of test, in their"),
        (lambda said, truth: (said[:-1], truth), r"predictions of shape \(159,\) came with labels"),
        (lambda said, truth: (said + 1, truth), "predicted class 8; there are 8, counted from 0"),
        (lambda said, truth: (said - 1, truth), "`predicted` has int64 from -1 to 6"),
        (lambda said, truth: (said / 2, truth), "`predicted` has float32 from 0.0 to 3.5"),
    ],
)
def test_predictions_that_are_no_class_of_each_image_are_found(change, sentence):
    trial = JudgeTrial(OURS, "knn")
    honest = trial.honest
    predicts_each_image(trial)
    said = honest.predictions
    trial.honest = honest._replace(predictions=Predictions(*change(said.predicted, said.truth)))
    with pytest.raises(AssertionError, match=sentence):
        predicts_each_image(trial)


def test_views_that_seed_are_found(tmp_path):
    def seeding(images):
        random.seed(1)
        return images.float() / 255 * (0.5 + 0.5 * random.random())

    kind = with_view(Shown(seeding))
    with pytest.raises(AssertionError, match="its views seed the global generator of random"):
        testing.seeds_nothing(trial_of(kind, tmp_path))


def test_a_step_that_seeds_torch_by_the_batch_is_found_too(tmp_path):
    def by_batch(self, batch):
        torch.manual_seed(int(batch.index[0]))
        yield self.head(self.backbone(batch.views)).square().mean()

    with pytest.raises(AssertionError, match="its step seeds the global generator of torch"):
        testing.seeds_nothing(trial_of(with_step(by_batch), tmp_path))


def test_checks_leave_the_callers_random_numbers_alone(tmp_path):
    trial = trial_of(Sound, tmp_path)
    trial.module  # noqa: B018 - trained before the numbers are drawn
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    testing.views_serve_any_batch(trial)
    testing.encodes_each_image_alone(trial)
    assert torch.equal(torch.rand(3), expected)


class Wide(Sound):
    """Has large numbers of everything. arXiv 0000.00000. Departures: none known."""

    def __init__(
        self, backbone, data, *, queue: int = 65536, splits: int = 64, share: float = 99.0
    ):
        super().__init__(backbone, data)


class Late(Wide):
    """Starts from another. arXiv 0000.00000. Departures: none known."""

    def __init__(
        self,
        backbone,
        data,
        *,
        pretext: Pretext = "wide",
        dim: int = 128,
        crop: float = 0.1,
    ):
        Sound.__init__(self, backbone, data)
        self.pretext = pretext

    def fit(self, run):
        run.pretrain(self.pretext, into=self.backbone)
        super().fit(run)


def late(folder, **settings) -> Trial:
    ours = [entry for every in KINDS for entry in OURS.entries(every).values()]
    planted = [
        Entry("methods", kind.__name__.lower(), kind, plugin="planted", dist="planted", version="1")
        for kind in (Wide, Late)
    ]
    return Trial(Registry([], [*ours, *planted]), "late", folder, settings)


def test_what_is_too_large_for_96_images_is_64_unless_it_is_set(tmp_path):
    cell = late(tmp_path).cell()
    assert cell.hyperparameters == {"pretext": "wide", "dim": 64, "crop": 0.1}
    (pretext,) = cell.pretexts.values()
    assert pretext.hyperparameters == {"queue": 64, "splits": 64, "share": 99.0}
    set_to = late(tmp_path, **{"late.dim": 100, "wide.queue": 96}).cell(**{"wide.splits": 70})
    assert set_to.hyperparameters["dim"] == 100
    (pretext,) = set_to.pretexts.values()
    assert pretext.hyperparameters == {"queue": 96, "splits": 70, "share": 99.0}


@pytest.mark.slow
def test_a_pretext_is_trained_once_in_a_precision_for_all_checks(tmp_path, monkeypatch):
    trained, fit = [], Wide.fit

    def fitting(self, run):
        trained.append(type(self).__name__)
        fit(self, run)

    monkeypatch.setattr(Wide, "fit", fitting)
    trial = late(tmp_path)
    for check in METHOD_CHECKS:
        if check is not testing.keeps_a_gpu_busy:  # which watches the steps of pretexts too
            check(trial)
    assert trained.count("Wide") == 2  # one of them in bf16
    assert trained.count("Late") > 4


def test_learning_is_looked_for_in_mild_views_under_a_bold_recipe(tmp_path, monkeypatch):
    trial, seen = late(tmp_path), []
    whole = trial.fit
    monkeypatch.setattr(trial, "fit", lambda store, cell: seen.append(cell) or whole(store, cell))
    testing.learns(trial, **{"late.lr": 0.01})
    (cell,) = seen
    assert cell.hyperparameters["crop"] == 0.8
    assert (cell.recipe.optimizer, cell.recipe.lr, cell.recipe.epochs) == ("adamw", 0.01, 10)
    (pretext,) = cell.pretexts.values()
    assert (pretext.recipe.optimizer, pretext.recipe.epochs) == ("sgd", 2)
