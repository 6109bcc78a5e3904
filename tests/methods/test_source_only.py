"""Methods of two domains: what is drawn at a step, which labels count, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.api import Batch, DataInfo
from sslbench.cells.parameters import anatomy
from sslbench.nn import by_domain, reversed_gradient
from sslbench.train.feed import orders

from .helpers import METHODS, Lent, near, noise, same

CASES = {}  # torch's cross-entropy
DATASETS = {"source-only": "styles"}
ALL = ["source-only", "dann", "mme"]
each = pytest.mark.parametrize("name", ALL)


class Two(Lent):
    """Ten images of the source, of which nine show labels, and six of the target."""

    def __init__(self, budget=(12, 14)):
        super().__init__()
        self.budget = list(budget)

    def labels(self):
        labels = torch.full((16,), -1)
        labels[1:10] = torch.arange(9) % 3
        labels[self.budget] = torch.arange(len(self.budget)) % 3
        return labels

    def domains(self):
        return (torch.arange(16) >= 10).long()


def two_domains(method, *, labelled=True, progress=0.5, hidden=-1):
    torch.manual_seed(0)
    images = torch.randint(256, (15, 3, 32, 32), dtype=torch.uint8)
    view = method.views()

    def part(first, last, label):
        return Batch(view(images[first:last]), torch.arange(first, last), label, 0, progress)

    also = {
        "source": part(0, 6, torch.arange(6) % 3),
        "labelled": part(6, 10, torch.arange(4) % 3),
        "target": part(10, 15, torch.full((5,), hidden)),
    }
    if not labelled:
        del also["labelled"]
    nothing = torch.empty(0, dtype=torch.long)
    return Batch(None, nothing, nothing, 0, progress, also)


# ---- the reversed gradient -------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_gradient_is_reversed_and_the_numbers_stay(weight):
    x = noise(4, 3).requires_grad_()
    y = reversed_gradient(x, weight)
    assert torch.equal(y, x)
    y.pow(2).sum().backward()
    same(x.grad, -weight * 2 * x.detach())


def test_it_is_reversed_in_one_place_only():
    x = noise(4, 3).requires_grad_()
    (x.sum() + reversed_gradient(x, 2.0).sum()).backward()
    same(x.grad, torch.full((4, 3), -1.0))
    assert not reversed_gradient(noise(2)).requires_grad


# ---- what is drawn ---------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [(), (12, 14)])
def test_streams_are_of_the_source_the_budget_and_the_rest_of_the_target(budget):
    found = by_domain(Two(budget), target=2.0)
    assert found["source"].pool.tolist() == [*range(1, 10)]
    assert found["target"].pool.tolist() == [i for i in range(10, 16) if i not in budget]
    assert found["target"].share == 2.0
    assert ("labelled" in found) == bool(budget)
    if budget:
        assert found["labelled"].pool.tolist() == [*budget]
    assert "target" not in by_domain(Two(budget), target=0)


@each
@pytest.mark.parametrize("budget", [(), (12, 14)])
def test_a_step_has_a_batch_of_each_and_no_main_one(name, budget, made):
    method, run = made(name), Two(budget)
    method.fit(run)
    drawn = orders(run.epoch, 16, steps=2, batch=4, origin=("x", 0))
    sizes = {key: each.shape[1] for key, each in drawn.items()}
    wanted = {"source": 4, "labelled": 4, "target": {"mme": 8}.get(name, 4)}
    if not budget:
        del wanted["labelled"]
    if name == "source-only":
        del wanted["target"]
    assert sizes == wanted


# ---- which labels count ----------------------------------------------------------------------------


@each
@pytest.mark.parametrize("labelled", [True, False])
def test_labels_given_are_classified_as_one_batch(name, labelled, made):
    method = made(name)
    batch = two_domains(method, labelled=labelled)
    known = [batch.also[key] for key in ("source", "labelled") if key in batch.also]
    update = next(method.step(batch))
    found = update if isinstance(update, torch.Tensor) else update.log["labelled"]
    x = torch.cat([each.views for each in known] + [batch.also["target"].views] * (name == "dann"))
    label = torch.cat([each.label for each in known])
    expected = F.cross_entropy(method.predict(x)[: len(label)], label)
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-4, atol=1e-5)


@each
def test_labels_of_the_other_images_do_not_matter(name, made):
    losses = []
    for hidden in (-1, 2):
        method = made(name)
        step = method.step(two_domains(method, hidden=hidden))
        losses.append([float(getattr(update, "loss", update).detach()) for update in step])
    assert losses[0] == losses[1]


@each
def test_it_answers_from_its_backbone(name, made):
    method = made(name).eval()
    x = torch.rand(3, 3, 32, 32)
    assert method.encoder() is method.backbone
    assert method.predict(x).shape == (3, 3)
    blind = math.log(3) + (math.log(2) if name == "dann" else 0)
    near(torch.tensor(method.uniform()), blind)


# ---- bad input -------------------------------------------------------------------------------------


@each
def test_other_data_are_refused_with_a_sentence(name):
    needs = anatomy(METHODS[name]).target.needs
    assert needs(None, DataInfo("emoji", 32, 96, 9, domains=2)) is None
    assert needs(None, DataInfo("digits", 32, 96, 10)) == (
        "it learns on a source for a target, and the images of digits are of one domain; take data "
        "of two"
    )
    dull = DataInfo("dull", 32, 96, 1, domains=2)
    assert needs(None, dull) == "it tells classes apart, dull has one"


@each
def test_its_recipe_is_that_of_the_paper(name):
    recipe = anatomy(METHODS[name]).recipe
    assert (recipe.optimizer, recipe.lr, recipe.momentum) == ("sgd", 0.01, 0.9)
    assert recipe.schedule == "inverse"
    assert recipe.nesterov == (name != "dann")
