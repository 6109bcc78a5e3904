"""Parts that methods of few labels share."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslbench.api import DataInfo
from sslbench.nn import aligned, balanced, follow, labelled, one_class, weighed_entropy


class Shown:
    """A run that shows these labels."""

    def __init__(self, *labels):
        self.shown = torch.tensor(labels)

    def labels(self):
        return self.shown


def test_the_labelled_stream_holds_the_rows_that_are_not_hidden():
    whole = labelled(Shown(-1, 0, 3, -1, 1))
    assert whole.pool.tolist() == [1, 2, 4]
    assert (whole.batch, whole.share) == (None, None)  # as many as the main batch
    assert labelled(Shown(2, -1), 1 / 7).share == 1 / 7


@pytest.mark.parametrize(
    ("classes", "said"), [(1, "it tells classes apart, dull has one"), (2, None)]
)
def test_one_class_is_a_sentence(classes, said):
    assert one_class(DataInfo("dull", 8, 100, classes)) == said


def test_hard_and_soft_targets_weigh_alike_and_the_mean_is_over_all():
    logits, label = torch.randn(6, 4), torch.tensor([0, 3, 1, 2, 2, 0])
    weight = torch.tensor([1.0, 0, 0.5, 0, 1, 0])
    hard = weighed_entropy(logits, label, weight)
    each = [
        float(weight[i]) * (math.log(sum(math.exp(x) for x in row)) - row[int(label[i])])
        for i, row in enumerate(logits.tolist())
    ]
    assert float(hard) == pytest.approx(sum(each) / 6, rel=1e-5)
    soft = weighed_entropy(logits, F.one_hot(label, 4).float(), weight)
    torch.testing.assert_close(hard, soft)
    assert weighed_entropy(logits.bfloat16(), label, weight).dtype == torch.float32


def test_shares_are_aligned_by_the_quotient_of_two_mixes():
    p = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    found = aligned(p, torch.tensor([0.2, 0.2, 0.6]), torch.tensor([0.4, 0.2, 0.4]))
    wanted = torch.tensor([[2, 2, 3], [1, 2, 24]]) / torch.tensor([[7], [27]])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)


def test_what_is_balanced_is_remembered_in_its_turn_and_divided_by_all_that_is():
    recent = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    p = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    found = balanced(p, recent, torch.tensor(7))
    torch.testing.assert_close(recent, torch.tensor([[0.5, 0.5], [0.6, 0.4]]))
    wanted = p / torch.tensor([1.1, 0.9])
    torch.testing.assert_close(found, wanted / wanted.sum(1, keepdim=True))
    # classes that nobody saw, here or before, stay finite
    assert balanced(torch.tensor([[1.0, 0.0]]), torch.zeros(2, 2), torch.tensor(0)).isfinite().all()


def test_an_average_follows_by_a_momentum_that_is_warmed_up_and_counts():
    online, average = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.zeros_(average.weight)
    nn.init.ones_(online.weight)
    steps = torch.zeros((), dtype=torch.long)
    follow(average, online, 0.999, steps)
    assert float(average.weight.detach()) == pytest.approx(0.9)
    follow(average, online, 0.999, steps)
    assert float(average.weight.detach()) == pytest.approx(0.9 * 2 / 11 + 9 / 11)
    assert int(steps) == 2
