"""SimCLR v2 distilled: a student learns its teacher's softened answers on all images."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslbench.api import Batch, DataInfo
from sslbench.cells.parameters import anatomy
from sslbench.errors import UnknownName, UserError
from sslbench.methods.simclr_v2_distil import distilled
from sslbench.train.optim import scaled_lr

from .helpers import METHODS, Case, Lent, first_loss, log_share, noise, same

NAME = "simclr-v2-distil"
B, K = 6, 4


def of_distilled(logits, answer):
    return distilled(logits, answer, 0.5)


def looped_distilled(logits, answer):
    losses = []
    for mine, taught in zip(logits / 0.5, answer / 0.5, strict=True):
        losses.append(-sum(log_share(taught, c).exp() * log_share(mine, c) for c in range(K)))
    return 0.25 * sum(losses) / len(losses)


CASES = {"distilled": Case(of_distilled, [noise(B, K), noise(B, K, seed=1)], looped_distilled)}


# ---- the loss --------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_a_student_that_answers_as_its_teacher_pays_the_teachers_entropy(temperature):
    answer = noise(B, K)
    logits = answer.clone().requires_grad_()
    loss = distilled(logits, answer, temperature)
    p = (answer.double() / temperature).softmax(1)
    entropy = -(p * (answer.double() / temperature).log_softmax(1)).sum(1).mean()
    same(loss.detach(), (temperature**2 * entropy).float())
    loss.backward()
    assert logits.grad.abs().max() < 1e-7


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_its_gradient_is_the_difference_of_both_shares_times_the_temperature(temperature):
    logits, answer = noise(B, K).requires_grad_(), noise(B, K, seed=1)
    distilled(logits, answer, temperature).backward()
    mine, taught = ((x.detach() / temperature).softmax(1) for x in (logits, answer))
    same(logits.grad, temperature * (mine - taught) / B)


def test_a_blind_student_of_a_sure_teacher_pays_the_logarithm_of_the_classes():
    answer = 1e3 * F.one_hot(torch.tensor([2, 0]), 10).float()
    same(distilled(torch.zeros(2, 10), answer, 1.0), torch.tensor(math.log(10)))


# ---- a step ----------------------------------------------------------------------------------------


class Beside(Lent):
    """A run whose teacher is at hand."""

    def __init__(self, teacher):
        super().__init__()
        self.teacher = teacher

    def pretrain(self, name, into=None):
        super().pretrain(name, into)
        return self.teacher

    def labels(self):
        return torch.tensor([-1, 3, -1, 0, -1])


class Teacher(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3 * 32 * 32, 10)

    def predict(self, x):
        return 3 * self.net(x.flatten(1))


def taught(made, **settings):
    torch.manual_seed(3)
    method, run = made(NAME, **settings), Beside(Teacher())
    method.fit(run)
    return method, run


def batch_of(label=-1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    own, others = (torch.rand(n, 3, 32, 32, generator=generator) for n in (5, 8))
    given = Batch(own, torch.arange(5), torch.arange(5), 0, 0.0)
    return Batch(others, torch.arange(8), torch.full((8,), label), 0, 0.0, {"labelled": given})


def test_it_asks_its_teacher_of_the_same_view_and_teaches_the_student_alone(made):
    method, run = taught(made, temperature=2.0)
    assert [what for what, _ in run.asked] == ["pretrain simclr-v2-finetune", "epochs"]
    batch = batch_of()
    update = next(method.step(batch))
    with torch.no_grad():
        answer = run.teacher.predict(batch.views)
    logits = method.predict(batch.views)
    same(update.loss, distilled(logits, answer, 2.0))
    same(update.log["distilled"].detach(), update.loss.detach())
    expected = (logits.argmax(1) == answer.argmax(1)).float().mean()
    assert float(update.log["agreed"]) == pytest.approx(float(expected))
    update.loss.backward()
    assert all(p.grad is None for p in run.teacher.parameters())
    assert all(p.grad is not None for p in method.parameters())


def test_the_teacher_is_kept_in_its_own_cell_and_not_in_the_students(made):
    method, _ = taught(made)
    keys = {key.partition(".")[0] for key in method.state_dict()}
    assert keys == {"backbone", "head"}


def test_by_default_no_label_is_seen(made):
    method, run = taught(made)
    assert run.epoch.streams == {}
    assert run.epoch.main
    losses = [first_loss(method, batch_of(label))[1] for label in (-1, 2)]
    assert losses[0].equal(losses[1])


def test_labels_and_answers_share_the_weight(made):
    method, run = taught(made, taught=0.3, temperature=1.0, ratio=4.0)
    stream = run.epoch.streams["labelled"]
    assert stream.pool.tolist() == [1, 3]
    assert stream.share == 0.25
    batch = batch_of()
    given = batch.also["labelled"]
    update = next(method.step(batch))
    logits = method.predict(torch.cat([batch.views, given.views]))
    with torch.no_grad():
        answer = run.teacher.predict(batch.views)
    known = F.cross_entropy(logits[8:], given.label)
    same(update.loss, 0.3 * distilled(logits[:8], answer, 1.0) + 0.7 * known)
    same(update.log["labelled"], known.detach())


# ---- students and teachers -------------------------------------------------------------------------


def test_the_default_student_is_the_untrained_backbone_of_the_row(made):
    method, untrained = made(NAME), made("untrained")
    for one, two in zip(method.encoder().parameters(), untrained.parameters(), strict=True):
        assert one.equal(two)


def test_a_student_may_have_a_smaller_backbone_which_is_judged(made):
    whole = made("untrained")
    method, _ = taught(made, student="test_efficientnet")
    assert method.encoder().name == "test_efficientnet"
    small = sum(p.numel() for p in method.encoder().parameters())
    assert small < sum(p.numel() for p in whole.parameters())
    x = torch.rand(2, 3, 32, 32)
    assert method.encoder()(x).shape == (2, method.encoder().dim)
    assert method.predict(x).shape == (2, 10)
    first_loss(method, batch_of())[1].backward()


@pytest.mark.parametrize(
    ("student", "kind", "sentence"),
    [
        ("resnet18", ValueError, "student=resnet18 has .* its teacher test_resnet .* or smaller"),
        ("resnet81", UnknownName, "unknown backbone 'resnet81'"),
        ("test_vit[patch=8]", UserError, "takes no 'patch'"),
        ("test_resnet:2", UserError, "no name of a network"),
    ],
)
def test_an_impossible_student_is_refused_with_a_sentence(student, kind, sentence, made):
    backbone = made("untrained")
    with pytest.raises(kind, match=sentence):
        anatomy(METHODS[NAME]).target(
            backbone, DataInfo("x", size=32, length=96, classes=10), student=student
        )


def test_each_step_of_the_paper_is_the_pretext_of_the_next(trial_of):
    cell = trial_of(NAME).cell()
    (teacher,) = cell.pretexts.values()
    (pretext,) = teacher.pretexts.values()
    assert [teacher.method, pretext.method] == ["simclr-v2-finetune", "simclr-v2"]
    assert [teacher.labels, pretext.labels] == ["budget", "none"]
    large = anatomy(METHODS["simclr-v2-distil-imagenet"]).defaults["pretext"]
    assert large == "simclr-v2-finetune-imagenet"
    assert anatomy(METHODS[large]).defaults["pretext"] == "simclr-v2-imagenet"


def test_the_papers_rate_and_warm_up():
    recipe = anatomy(METHODS[NAME]).recipe
    assert scaled_lr(recipe) == pytest.approx(0.1 * math.sqrt(4096))
    assert recipe.warmup == recipe.epochs / 20


def test_one_class_is_refused(made):
    method = made(NAME)
    said = type(method).needs(method.backbone, DataInfo("one", size=32, length=9, classes=1))
    assert said == "it tells classes apart, one has one"
