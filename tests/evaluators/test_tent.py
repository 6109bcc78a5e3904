from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslbench.corruptions import ALL
from sslbench.errors import Unsuited, UserError
from sslbench.evaluators.adapting import Adapting, entropy
from sslbench.evaluators.linear import Linear
from sslbench.evaluators.tent import Tent

from .helpers import Fake, pictured
from .sets import brighter, corrupted, noisy, same, uneven, untouched, weights

BASE = uneven(pictured(noise=60))
HEAD = Linear().probe(BASE, BASE)


@pytest.fixture
def subject() -> Fake:
    made = copy.copy(BASE)
    made.corruptions = {}
    corrupted(made, noisy)
    return made


def by_hand(encoder: nn.Module, scale, shift, x):
    """Logits of the encoder that `pictured` makes, on the statistics of the batch."""
    conv, norm, _, _, _, linear = encoder
    x = F.conv2d(x, conv.weight, conv.bias, stride=2, padding=1)
    x = F.batch_norm(x, None, None, scale, shift, training=True, eps=norm.eps)
    x = F.adaptive_avg_pool2d(F.relu(x), 4).flatten(1)
    return HEAD(F.linear(x, linear.weight, linear.bias))


class ByHand:
    """Tent of one layer, with Adam written out."""

    def __init__(self, encoder: nn.Module, lr: float) -> None:
        self.encoder, self.lr = encoder, lr
        self.moving = [p.detach().clone() for p in (encoder[1].weight, encoder[1].bias)]
        self.first = [torch.zeros(8) for _ in range(2)]
        self.second = [torch.zeros(8) for _ in range(2)]
        self.steps = 0

    def step(self, x):
        leaves = [p.clone().requires_grad_(True) for p in self.moving]
        logits = by_hand(self.encoder, *leaves, x)
        p = logits.softmax(1)
        slopes = torch.autograd.grad(-(p * p.log()).sum(1).mean(), leaves)
        self.steps += 1
        for i, slope in enumerate(slopes):
            self.first[i] = 0.9 * self.first[i] + 0.1 * slope
            self.second[i] = 0.999 * self.second[i] + 0.001 * slope**2
            mean = self.first[i] / (1 - 0.9**self.steps)
            size = (self.second[i] / (1 - 0.999**self.steps)).sqrt()
            self.moving[i] = self.moving[i] - self.lr * mean / (size + 1e-8)
        return logits.detach()

    def logits(self, x):
        return by_hand(self.encoder, *self.moving, x).detach()


def batch(seed: int = 0, n: int = 50) -> torch.Tensor:
    rows = torch.randperm(100, generator=torch.Generator().manual_seed(seed))[:n]
    return BASE.pictures["test"][rows].float() / 255 * 0.5 + 0.2


@pytest.mark.parametrize("steps", [1, 2])
def test_every_accuracy_is_that_of_a_loop_written_by_hand(subject, steps):
    made = corrupted(subject, noisy)
    found = subject.judged_by(Tent(severities="4-5", lr=0.05, batch=25, steps=steps)).metrics
    truth, right = subject.truth["test"], {}
    reads = iter(made.asked)
    for c, name in enumerate(ALL):
        for severity in (4, 5):
            online = ByHand(BASE.encoder, 0.05)
            for _ in range(4):
                corruption, at, rows = next(reads)
                assert (corruption, at, len(rows)) == (name, severity, 25)
                x = made.blocks[name, severity][rows].float() / 255
                episodic = ByHand(BASE.encoder, 0.05)
                answers = {"norm": episodic.logits(x)}
                for _ in range(steps):
                    episodic.step(x)
                    answers["online"] = online.step(x)
                answers["episodic"] = episodic.logits(x)
                with torch.no_grad():
                    answers["source"] = HEAD(BASE.encoder(x))
                for mode, logits in answers.items():
                    hits = (logits.argmax(1) == truth[rows]).tolist()
                    right.setdefault((mode, c), []).extend(hits)
    assert next(reads, None) is None
    for mode in ("online", "episodic", "norm", "source"):
        for count in (15, 19):
            hits = [hit for c in range(count) for hit in right[mode, c]]
            expected = sum(hits) / len(hits)
            assert found[f"{mode}{count}"].value == pytest.approx(expected, abs=1e-12), mode
            assert found[f"{mode}{count}"].n == 100
    for c, name in enumerate(ALL):
        assert found[name].value == pytest.approx(sum(right["online", c]) / 200), name
    assert list(found) == [metric.name for metric in Tent.metrics]
    assert next(iter(found)) == "online15"
    assert len({found[f"{mode}15"].value for mode in ("online", "episodic", "norm", "source")}) == 4


def test_a_step_is_that_of_adam_on_the_entropy(subject):
    ours, hand = Adapting(subject.copy(), HEAD, 0.01), ByHand(BASE.encoder, 0.01)
    for seed in range(4):
        x = batch(seed)
        assert torch.allclose(ours.step(x, "x"), hand.step(x), atol=1e-3, rtol=1e-4)
    for one, other in zip(ours.moving, hand.moving, strict=True):
        assert torch.allclose(one, other, atol=2e-5)


def test_standard_errors_are_over_images(subject):
    made = corrupted(subject, noisy)
    found = subject.judged_by(Tent(severities=5)).metrics["source15"]
    with torch.no_grad():
        hits = torch.stack(
            [
                HEAD(BASE.encoder(made.blocks[name, 5].float() / 255)).argmax(1)
                == BASE.truth["test"]
                for name in ALL[:15]
            ]
        )
    assert found.value == pytest.approx(float(hits.double().mean()))
    assert found.stderr == pytest.approx(float(hits.double().mean(0).std(correction=0)) / 10)


class Deep(nn.Module):
    """Norms of several kinds, and dropout."""

    def __init__(self, affine: bool = True) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8, affine=affine))
        self.plain = nn.BatchNorm2d(8, affine=False)
        self.group = nn.GroupNorm(2, 8)
        self.last = nn.Sequential(nn.Linear(8, 24), nn.BatchNorm1d(24, affine=affine))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        x = self.group(F.relu(self.plain(self.first(x)))).mean((2, 3))
        return self.dropout(self.last(x))


def test_only_scales_and_shifts_of_batch_norm_move():
    torch.manual_seed(0)
    source = Deep().eval()
    ours = Adapting(copy.deepcopy(source), HEAD, 0.01)
    learning = [name for name, p in ours.encoder.named_parameters() if p.requires_grad]
    assert learning == ["first.1.weight", "first.1.bias", "last.1.weight", "last.1.bias"]
    assert len(ours.moving) == 4
    ours.step(batch(), "x")
    before, after = dict(source.named_parameters()), dict(ours.encoder.named_parameters())
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved == learning


def test_dropout_is_off_and_every_batch_norm_is_on_the_statistics_of_the_batch():
    torch.manual_seed(0)
    ours = Adapting(Deep().train(), HEAD, 0.0)
    x = batch()
    assert torch.equal(ours.step(x, "x"), ours.step(x, "x"))
    seen = {}
    for name, module in ours.encoder.named_modules():
        module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    ours.logits(x, "x")
    for name, over in (("first.1", (0, 2, 3)), ("plain", (0, 2, 3)), ("last.1", 0)):
        assert seen[name].mean(over).abs().max() < 1e-5
        assert (seen[name].var(over, correction=0) - 1).abs().max() < 0.05


def test_reset_is_the_source_to_the_bit_and_forgets_the_optimiser(subject):
    ours = Adapting(subject.copy(), HEAD, 0.01)
    first = [ours.step(batch(seed), "x") for seed in range(3)]
    assert not torch.equal(ours.encoder[1].weight, BASE.encoder[1].weight)
    ours.reset()
    for name, value in ours.encoder.named_parameters():
        assert torch.equal(value, dict(BASE.encoder.named_parameters())[name]), name
    again = [ours.step(batch(seed), "x") for seed in range(3)]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_the_entropy_of_a_fixed_batch_falls(subject):
    ours = Adapting(subject.copy(), HEAD, 1e-3)
    found = [float(entropy(ours.step(batch(), "x"))) for _ in range(6)]
    assert all(later < sooner for sooner, later in pairwise(found))


def test_entropy_is_the_textbooks_and_a_class_never_shown_has_no_part():
    logits = torch.tensor([[0.0, 0.0, 0.0], [math.log(2), 0.0, 0.0]])
    expected = (math.log(3) + 1.5 * math.log(2)) / 2  # of thirds, and of 1/2 1/4 1/4
    assert float(entropy(logits)) == pytest.approx(expected, rel=1e-6)
    wider = torch.cat([logits, torch.full((2, 1), -torch.inf)], dim=1).requires_grad_(True)
    assert float(entropy(wider).detach()) == pytest.approx(expected, rel=1e-6)
    entropy(wider).backward()
    assert wider.grad.isfinite().all()


def test_a_class_that_train_does_not_show_does_not_poison_it(subject):
    subject.truth = dict(subject.truth, train=subject.truth["train"] % 3)
    found = subject.judged_by(Tent(severities=5, batch=25, lr=0.05)).metrics
    assert found["online15"].value > 0.3


def test_at_lr_0_every_adaptation_is_norm(subject):
    found = subject.judged_by(Tent(severities=5, batch=25, lr=0.0)).metrics
    for count in (15, 19):
        assert found[f"online{count}"] == found[f"norm{count}"] == found[f"episodic{count}"]
    assert found["norm15"] != found["source15"]


def test_a_batch_is_answered_before_it_teaches(subject):
    one = subject.judged_by(Tent(severities=5, batch=100, lr=0.5)).metrics
    assert one["online15"] == one["norm15"] != one["episodic15"]


@pytest.mark.slow
def test_every_corruption_and_severity_starts_from_the_source(subject):
    corrupted(subject, untouched)
    found = subject.judged_by(Tent(severities="1-2", batch=25, lr=0.2)).metrics
    single = subject.judged_by(Tent(severities=1, batch=25, lr=0.2)).metrics
    assert len({found[name].value for name in ALL}) == 1
    assert found["online15"].value == single["online15"].value != found["norm15"].value


def test_what_statistics_undo_is_undone(subject):
    corrupted(subject, brighter)
    found = subject.judged_by(Tent(severities=5, batch=50)).metrics
    assert found["norm15"].value > found["source15"].value + 0.2


def test_encoder_and_head_are_left_as_they_were(subject):
    before, head = weights(BASE.encoder), copy.deepcopy(HEAD)
    lent = copy.deepcopy(HEAD)
    subject.probe = lambda name: lent
    subject.judged_by(Tent(severities=5, batch=25, lr=0.5))
    assert same(before, weights(BASE.encoder))
    assert all(p.grad is None and p.requires_grad for p in BASE.encoder.parameters())
    assert torch.equal(lent.weight, head.weight)
    assert torch.equal(lent.bias, head.bias)


@pytest.mark.slow
def test_images_come_shuffled_in_the_same_order_everywhere(subject):
    made = corrupted(subject, noisy)
    for seed in (0, 1):
        subject.judged_by(Tent(severities="1-2", batch=30), seed)
    orders = {tuple(r.tolist()) for r in (rows for _, _, rows in made.asked)}
    assert sorted(len(rows) for rows in orders) == [33, 33, 34]  # no small one is left over
    assert sorted(row for rows in orders for row in rows) == list(range(100))
    assert not any(list(rows) == sorted(rows) for rows in orders)
    sorted_set = copy.copy(subject)
    by_class = subject.truth["test"].argsort()
    sorted_set.truth = dict(subject.truth, test=subject.truth["test"][by_class])
    sorted_set.pictures = dict(subject.pictures, test=subject.pictures["test"][by_class])
    made = corrupted(sorted_set, noisy)
    sorted_set.judged_by(Tent(severities=5, batch=25))
    counts = [
        torch.bincount(sorted_set.truth["test"][rows], minlength=4) for *_, rows in made.asked
    ]
    assert min(int(count.min()) for count in counts) > 0


def test_the_same_numbers_whatever_the_generators_and_with_gradients_off(subject):
    judge = Tent(severities=5, batch=25, lr=0.05, images=40)
    torch.manual_seed(0)
    first = subject.judged_by(judge)
    torch.manual_seed(1)
    with torch.no_grad():
        again = subject.judged_by(judge, 5)
    assert first == again
    assert first.metrics["online15"].n == 40
    assert first.sources == {"made-up-official": "fingerprint of made-up-official"}


@pytest.mark.parametrize(
    ("encoder", "sentence"),
    [
        (nn.Sequential(nn.Flatten(), nn.LayerNorm(768), nn.Linear(768, 24)), "has LayerNorm; use"),
        (nn.Flatten(), "has no normalisation; use"),
        (Deep(affine=False), "has neither; use a backbone whose batch norm is affine"),
    ],
)
def test_an_encoder_without_what_it_learns_is_unsuited(subject, encoder, sentence):
    subject.encoder = encoder
    with pytest.raises(Unsuited, match=sentence):
        subject.judged_by(Tent())


class Shut(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    @torch.no_grad()
    def forward(self, x):
        return self.encoder(x)


def test_an_encoder_that_lets_no_gradient_pass_is_unsuited(subject):
    subject.encoder = Shut(BASE.encoder)
    with pytest.raises(Unsuited, match="none passes through this encoder"):
        subject.judged_by(Tent())


def test_features_that_leave_the_numbers_are_named_not_counted_wrong(subject):
    with pytest.raises(ValueError, match="gaussian_noise at severity 5 were to be judged"):
        subject.judged_by(Tent(severities=5, batch=25, lr=3e37))


def test_bad_parameters_are_refused_with_what_would_work():
    with pytest.raises(UserError, match="tent was given batch=1; statistics take at least 2"):
        Tent(batch=1)
    with pytest.raises(UserError, match="tent was given severities=6"):
        Tent(severities=6)
    assert Tent().severities == (1, 2, 3, 4, 5)
    assert (Tent().lr, Tent().batch, Tent().steps) == (1e-3, 200, 1)
    assert Tent.uses == ("linear",)
