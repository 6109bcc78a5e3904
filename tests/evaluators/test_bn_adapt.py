from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslbench.corruptions import ALL
from sslbench.errors import Unsuited, UserError
from sslbench.evaluators.bn_adapt import Blended, BNAdapt
from sslbench.evaluators.linear import Linear
from sslbench.evaluators.tent import Tent

from .helpers import Fake, pictured
from .sets import brighter, corrupted, noisy, same, uneven, weights

BASE = uneven(pictured(noise=60))
HEAD = Linear().probe(BASE, BASE)


@pytest.fixture
def subject() -> Fake:
    made = copy.copy(BASE)
    made.corruptions = {}
    corrupted(made, noisy)
    return made


def by_hand(encoder: nn.Module, x, prior: float):
    """Features of the encoder that `pictured` makes, statistics mixed in float64."""
    conv, norm, _, _, _, linear = encoder
    x = F.conv2d(x, conv.weight, conv.bias, stride=2, padding=1).double()
    n = len(x)
    flat = x.transpose(0, 1).flatten(1)  # [C, B * H * W]
    mean = n / (n + prior) * flat.mean(1) + prior / (n + prior) * norm.running_mean
    variance = n / (n + prior) * flat.var(1, correction=0) + prior / (n + prior) * norm.running_var
    x = (x - mean.view(1, -1, 1, 1)) / (variance + norm.eps).sqrt().view(1, -1, 1, 1)
    x = x * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
    x = F.adaptive_avg_pool2d(F.relu(x.float()), 4).flatten(1)
    return F.linear(x, linear.weight, linear.bias).detach()


def batch(n: int = 50) -> torch.Tensor:
    return BASE.pictures["test"][:n].float() / 255 * 0.5 + 0.2


def test_every_accuracy_is_that_of_a_loop_written_by_hand(subject):
    made = corrupted(subject, noisy)
    found = subject.judged_by(BNAdapt(severities="4-5", batch=30, prior=40)).metrics
    assert [len(rows) for _, _, rows in made.asked] == [34, 33, 33] * 38
    right: dict[tuple[str, str], list[bool]] = {}
    for name, severity, rows in made.asked:
        x = made.blocks[name, severity][rows].float() / 255
        with torch.no_grad():
            source = BASE.encoder(x)
        answers = {
            "adapted": by_hand(BASE.encoder, x, 0.0),
            "mixed": by_hand(BASE.encoder, x, 40.0),
            "source": source,
        }
        for mode, features in answers.items():
            hits = (HEAD(features).argmax(1) == BASE.truth["test"][rows]).tolist()
            right.setdefault((mode, name), []).extend(hits)
    for mode in ("adapted", "mixed", "source"):
        for count in (15, 19):
            hits = [hit for name in ALL[:count] for hit in right[mode, name]]
            expected = sum(hits) / len(hits)
            assert found[f"{mode}{count}"].value == pytest.approx(expected, abs=1e-12)
    for name in ALL:
        assert found[name].value == pytest.approx(sum(right["adapted", name]) / 200)
    assert list(found) == [metric.name for metric in BNAdapt.metrics]
    assert next(iter(found)) == "adapted15"
    assert len({found[f"{mode}15"].value for mode in ("adapted", "mixed", "source")}) == 3


@pytest.mark.parametrize("prior", [0.0, 16.0, 400.0])
def test_statistics_are_mixed_as_the_paper_says(subject, prior):
    ours = Blended(subject.copy())
    ours.features(batch(20), 3.0)  # what came before leaves nothing behind
    assert torch.allclose(
        ours.features(batch(), prior), by_hand(BASE.encoder, batch(), prior), atol=1e-4
    )


def test_a_prior_without_end_is_the_source(subject):
    with torch.no_grad():
        source = BASE.encoder(batch())
    ours = Blended(subject.copy())
    assert torch.allclose(ours.features(batch(), 1e12), source, atol=1e-4)
    assert not torch.allclose(ours.features(batch(), 16.0), source, atol=1e-2)


class Deep(nn.Module):
    """Several norms on top of each other; only some may be adapted."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.BatchNorm2d(8, affine=False)
        self.third = nn.BatchNorm1d(8)
        self.own = nn.BatchNorm1d(8, track_running_stats=False)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        x = self.third(self.second(self.first(x)).mean((2, 3)))
        return self.dropout(self.own(x))


def test_every_batch_norm_adapts_to_what_reaches_it_and_dropout_is_off():
    torch.manual_seed(0)
    source = Deep()
    with torch.no_grad():
        source(batch(100) * 0.3)  # running statistics that are not those of a new layer
    plain = copy.deepcopy(source).eval()
    for module in plain.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    with torch.no_grad():
        expected = plain(batch())
    assert torch.allclose(Blended(source.train()).features(batch(), 0.0), expected, atol=1e-3)


def test_adapted_is_what_tent_calls_norm(subject):
    adapted = subject.judged_by(BNAdapt(severities=5, batch=25)).metrics
    tent = subject.judged_by(Tent(severities=5, batch=25)).metrics
    for count in (15, 19):
        assert adapted[f"adapted{count}"] == tent[f"norm{count}"]
        assert adapted[f"source{count}"] == tent[f"source{count}"]


def test_what_statistics_undo_is_undone(subject):
    corrupted(subject, brighter)
    found = subject.judged_by(BNAdapt(severities=5, batch=50)).metrics
    assert found["adapted15"].value > found["source15"].value + 0.2
    assert found["mixed15"].value > found["source15"].value


def test_encoder_and_its_statistics_are_left_as_they_were(subject):
    before = weights(BASE.encoder)
    subject.judged_by(BNAdapt(severities=5, batch=25))
    assert same(before, weights(BASE.encoder))
    assert not BASE.encoder[1]._forward_pre_hooks


def test_the_same_numbers_whatever_the_seed_and_only_of_the_images_asked_for(subject):
    judge = BNAdapt(severities=5, batch=25, images=40)
    first, again = subject.judged_by(judge, 0), subject.judged_by(judge, 5)
    assert first == again
    assert {value.n for value in first.metrics.values()} == {40}
    assert first.sources == {"made-up-official": "fingerprint of made-up-official"}


@pytest.mark.parametrize(
    ("encoder", "sentence"),
    [
        (nn.Sequential(nn.Flatten(), nn.LayerNorm(768), nn.Linear(768, 24)), "has LayerNorm; use"),
        (nn.Flatten(), "has no normalisation; use"),
    ],
)
def test_an_encoder_without_batch_norm_is_unsuited(subject, encoder, sentence):
    subject.encoder = encoder
    with pytest.raises(Unsuited, match=sentence):
        subject.judged_by(BNAdapt())


def test_features_that_are_no_numbers_are_named(subject):
    subject.encoder = subject.copy()
    with torch.no_grad():
        subject.encoder[5].bias[0] = torch.nan
    with pytest.raises(ValueError, match="gaussian_noise at severity 5 were to be judged"):
        subject.judged_by(BNAdapt(severities=5))


def test_bad_parameters_are_refused_with_what_would_work():
    with pytest.raises(UserError, match="bn-adapt was given batch=1; statistics take at least 2"):
        BNAdapt(batch=1)
    with pytest.raises(UserError, match="bn-adapt was given severities=6"):
        BNAdapt(severities=6)
    assert BNAdapt().severities == (1, 2, 3, 4, 5)
    assert (BNAdapt().batch, BNAdapt().prior) == (200, 16)
    assert BNAdapt.uses == ("linear",)
