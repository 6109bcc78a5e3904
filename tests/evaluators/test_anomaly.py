"""One class against the rest: against scikit-learn, and cases whose answer is known."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.covariance import LedoitWolf
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torchmetrics.functional.classification import binary_auroc

from sslbench.errors import Unsuited
from sslbench.evaluators import anomaly
from sslbench.evaluators.anomaly import Anomaly, _areas, _knn, _mahalanobis
from sslbench.scores import labelled

from .helpers import fake

AUROCS = ("auroc", "mahalanobis_auroc", "reconstruction_auroc")
AUPRS = ("aupr", "mahalanobis_aupr", "reconstruction_aupr")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def permutation(n, seed=0):
    return torch.randperm(n, generator=generator(seed))


def world_of(n=300, m=200, *, level=None, **more):
    """With images and their reconstructions, wrong by `level` of the class and some noise."""
    world = fake(n, m, **{"spread": 4.0, **more})
    for split, labels in world.truth.items():
        count = len(labels)
        world.pictures[split] = torch.randint(
            256, (count, 3, 6, 5), generator=generator(), dtype=torch.uint8
        )
        wrong = torch.rand(count, generator=generator(count))
        wrong += level[labels] if level is not None else 0.0
        world.rebuilt[split] = world.pictures[split].float() / 255 + wrong[:, None, None, None]
    return world


def values(world, **asked):
    judgement = world.judged_by(Anomaly(**asked))
    return {name: value.value for name, value in judgement.metrics.items()}


def areas_of(world, score):
    """[classes, 2] by scikit-learn; `score` of a class gives NumPy's [M]."""
    found = []
    for name in range(world.classes):
        strange = (world.truth["test"] != name).numpy()
        pair = strange, score(name)
        found.append([roc_auc_score(*pair), average_precision_score(*pair)])
    return torch.tensor(found, dtype=torch.float64)


def agrees(metrics, prefix, expected):
    n = len(expected)
    for i, name in enumerate((f"{prefix}auroc", f"{prefix}aupr")):
        assert metrics[name].value == pytest.approx(float(expected[:, i].mean()), abs=1e-9)
        assert metrics[name].stderr == pytest.approx(float(expected[:, i].std()) / n**0.5)
        assert metrics[name].n == n


# ---- the scores


@pytest.mark.parametrize("k", [1, 5, 20])
def test_the_knn_score_is_scikit_learns_mean_cosine_distance(k):
    world = world_of()

    def score(name):
        bank = world.train[world.truth["train"] == name].double().numpy()
        model = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(bank)
        return model.kneighbors(world.test.double().numpy())[0].mean(1)

    expected = areas_of(world, score)
    metrics = world.judged_by(Anomaly(k=k)).metrics
    agrees(metrics, "", expected)
    assert metrics["auroc_worst"].value == pytest.approx(float(expected[:, 0].min()), abs=1e-9)
    assert 0.5 < metrics["auroc_worst"].value < metrics["auroc"].value < 0.99


@pytest.mark.parametrize("d", [1, 12, 200])
def test_the_mahalanobis_score_is_that_of_scikit_learns_ledoit_wolf(d):
    world = world_of(d=d)
    world.train[:, 0], world.test[:, 0] = 5 + 20 * world.train[:, 0], 5 + 20 * world.test[:, 0]

    def members(name):
        return world.train[world.truth["train"] == name].double()

    def score(name):
        return LedoitWolf().fit(members(name).numpy()).mahalanobis(world.test.double().numpy())

    agrees(world.judged_by(Anomaly()).metrics, "mahalanobis_", areas_of(world, score))
    scale = members(0).var(0, unbiased=False).mean()
    found = _mahalanobis(world.test, members(0).float()).square() / scale
    assert torch.allclose(found, torch.from_numpy(score(0)), rtol=1e-5)


def test_the_reconstruction_score_is_the_distance_from_the_median_error_of_train():
    world = world_of(level=torch.tensor([0.1, 0.6, 0.3, 0.9]))
    errors = {
        split: (world.rebuilt[split].double() - world.pictures[split].double() / 255)
        .square()
        .mean((1, 2, 3))
        for split in ("train", "test")
    }

    def score(name):
        usual = errors["train"][world.truth["train"] == name].median()
        return (errors["test"] - usual).abs().numpy()

    expected = areas_of(world, score)
    agrees(world.judged_by(Anomaly()).metrics, "reconstruction_", expected)
    assert 0.5 < float(expected[:, 0].mean()) < 0.95


def test_the_plain_reconstruction_error_would_say_nothing_of_balanced_classes():
    world = world_of(level=torch.tensor([0.1, 0.6, 0.3, 0.9]))
    errors = (world.rebuilt["test"] - world.pictures["test"].float() / 255).square().mean((1, 2, 3))
    plain = _areas(lambda name: errors, labelled(world, world, "test"), [0, 1, 2, 3])
    assert float(plain[:, 0].mean()) == pytest.approx(0.5, abs=1e-12)
    assert plain[:, 0].max() > 0.8


@pytest.mark.parametrize("fit", [lambda q, m: _knn(q, m, 5), _mahalanobis])
def test_areas_of_a_score_and_of_its_negative_sum_to_one_and_are_torchmetrics(fit):
    world = world_of()
    test = labelled(world, world, "test")
    members = {name: world.train[world.truth["train"] == name] for name in range(4)}
    up = _areas(lambda name: fit(world.test, members[name]), test, [0, 1, 2, 3])
    down = _areas(lambda name: -fit(world.test, members[name]), test, [0, 1, 2, 3])
    assert torch.allclose(up[:, 0] + down[:, 0], torch.ones(4).double(), atol=1e-12)
    cubed = _areas(lambda name: fit(world.test, members[name]) ** 3, test, [0, 1, 2, 3])
    assert torch.allclose(up, cubed, atol=1e-3)
    for name in range(4):
        score = fit(world.test, members[name]).float()
        score = score / score.max()  # it takes scores above 1 for logits
        theirs = binary_auroc(score, (test.labels != name).long())
        assert float(up[name, 0]) == pytest.approx(float(theirs), abs=1e-6)


# ---- planted cases


def test_perfect_features_and_reconstructions_score_one():
    world = world_of(level=torch.tensor([0.0, 9.0, 99.0, 30.0]))
    for split in ("train", "test"):
        setattr(world, split, F.one_hot(world.truth[split], 4).float())
    found = values(world)
    assert set(found) == {metric.name for metric in Anomaly.metrics}
    assert set(found.values()) == {1.0}


@pytest.mark.parametrize("value", [0.0, 0.1, -7e5])
@pytest.mark.parametrize("whole", [True, False])
def test_constant_features_score_chance_exactly(value, whole):
    world = world_of(d=33)
    world.test[:] = value
    if whole:
        world.train[:] = value
    world.pictures["test"][:] = 51
    world.rebuilt["test"][:] = 0.7
    found = values(world)
    assert [found[name] for name in AUROCS] == pytest.approx([0.5] * 3, abs=1e-12)
    assert [found[name] for name in AUPRS] == pytest.approx([0.75] * 3, abs=1e-12)
    assert found["auroc_worst"] == pytest.approx(0.5, abs=1e-12)


def test_random_features_and_permuted_labels_score_chance():
    world = world_of(2000, 2000, spread=1.0, level=torch.tensor([0.0, 1.0, 2.0, 3.0]))
    labels = dict(world.truth)
    assert min(values(world).values()) > 0.9
    world.truth["test"] = labels["test"][permutation(2000)]
    permuted = values(world)
    world.truth = labels
    for split, seed in (("train", 1), ("test", 2)):
        setattr(world, split, torch.randn(2000, 12, generator=generator(seed)))
        world.rebuilt[split] = world.rebuilt[split][permutation(2000, seed)]
    for found in (permuted, values(world)):
        assert [found[name] for name in AUROCS] == pytest.approx([0.5] * 3, abs=0.03)
        assert [found[name] for name in AUPRS] == pytest.approx([0.75] * 3, abs=0.03)


def test_scores_with_their_sign_turned_are_below_chance():
    world = world_of()
    for split, sign in (("train", 1), ("test", -1)):
        setattr(world, split, sign * F.one_hot(world.truth[split], 4).float())
    assert values(world)["auroc"] == 0


def test_covariance_counts_and_not_the_mean_alone():
    # classes share their mean and differ in the direction in which they scatter
    world = world_of(2000, 1000, d=2, classes=2)
    for split, labels in world.truth.items():
        scale = torch.where(labels[:, None] == 0, torch.tensor([9.0, 0.1]), torch.tensor([0.1, 9]))
        noise = torch.randn(len(labels), 2, generator=generator(len(labels)))
        setattr(world, split, scale * noise)
    assert values(world)["mahalanobis_auroc"] > 0.95


def test_classes_that_scatter_along_one_line_alone_are_judged():
    # two opposite points each: Ledoit and Wolf do not shrink, and the covariance has rank one
    world = world_of(n=400, m=400, d=3)
    for split, labels in world.truth.items():
        side = 1.0 - 2 * (torch.arange(400) // 4 % 2)
        lines = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 3], [1, 1, 1]])
        setattr(world, split, side[:, None] * lines[labels])
    found = values(world)
    assert found["mahalanobis_auroc"] == found["auroc"] == 1


def test_lone_outliers_of_the_class_move_no_neighbour_of_its_heart():
    world = world_of(spread=0.1)
    expected = values(world)["auroc"]
    assert expected == 1
    for name in range(4):  # three images of the next class under this one's label
        rows = (world.truth["train"] == name).nonzero()[:3, 0]
        world.train[rows] = world.train[(world.truth["train"] == (name + 1) % 4).nonzero()[5:8, 0]]
    assert values(world, k=20)["auroc"] == 1
    assert values(world, k=1)["auroc"] < 0.98


# ---- what must not matter


def test_the_order_of_train_and_the_seed_do_not_matter():
    world = world_of()
    expected = values(world)
    assert world.judged_by(Anomaly(), seed=1) == world.judged_by(Anomaly(), seed=2)
    order = permutation(300)
    world.train, world.held_out = world.train[order], world.held_out[order]
    world.truth["train"] = world.truth["train"][order]
    world.pictures["train"] = world.pictures["train"][order]
    world.rebuilt["train"] = world.rebuilt["train"][order]
    assert values(world) == pytest.approx(expected, abs=1e-12)


def test_lengths_do_not_matter_to_neighbours_nor_one_scale_to_mahalanobis():
    world = world_of()
    expected = values(world)
    world.train, world.test = world.train * 2.0**-40, world.test * 2.0**-40
    assert values(world) == pytest.approx(expected, abs=1e-12)
    world.test *= 2.0 ** torch.randint(-3, 4, (200, 1), generator=generator())
    found = values(world)
    assert found["auroc"] == pytest.approx(expected["auroc"], abs=1e-12)
    assert found["mahalanobis_auroc"] != expected["mahalanobis_auroc"]


def test_how_much_is_held_at_a_time_does_not_matter(monkeypatch):
    world = world_of()
    expected = values(world)
    monkeypatch.setattr(anomaly, "_BLOCK", 400)
    assert values(world) == pytest.approx(expected, abs=1e-12)


def test_each_split_is_read_once_and_test_last():
    world = world_of()
    world.judged_by(Anomaly())
    assert world.reads == ["train", "test"]


def test_normality_is_that_of_train_alone():
    world = world_of(spread=0.5)
    # in train class 0 looks as class 1 does in test, and so on: nothing of test mends that
    world.truth["train"] = (world.truth["train"] + 3) % 4
    found = values(world)
    assert found["auroc"] < 0.4
    assert found["mahalanobis_auroc"] < 0.4


def test_unlabelled_images_take_no_part():
    world = world_of()
    expected = world.judged_by(Anomaly())
    noise, none = torch.randn(50, 12, generator=generator()), torch.full((50,), -1)
    world.train, world.test = torch.cat([noise, world.train]), torch.cat([noise, world.test])
    world.held_out = torch.cat([none > 0, world.held_out])
    for split in ("train", "test"):
        world.truth[split] = torch.cat([none, world.truth[split]])
        world.pictures[split] = torch.cat([world.pictures[split][:50], world.pictures[split]])
        world.rebuilt[split] = torch.cat([torch.zeros(50, 3, 6, 5), world.rebuilt[split]])
    assert world.judged_by(Anomaly()) == expected


# ---- what cannot be asked


def test_an_encoder_that_does_not_reconstruct_has_no_such_metric():
    world = world_of()
    expected = values(world)
    world.rebuilt.clear()
    found = values(world)
    assert found == {n: v for n, v in expected.items() if not n.startswith("reconstruction")}


def test_a_class_that_test_lacks_is_never_normal_and_counted():
    world = world_of()
    keep = world.truth["test"] != 2
    world.test, world.truth["test"] = world.test[keep], world.truth["test"][keep]
    world.rebuilt.clear()
    judgement = world.judged_by(Anomaly())
    assert judgement.warnings == ("test shows 3 of 4 classes: the others were never normal",)
    assert judgement.metrics["auroc"].n == 3
    members = {name: world.train[world.truth["train"] == name] for name in (0, 1, 3)}
    test = labelled(world, world, "test")
    expected = _areas(lambda name: _knn(world.test, members[name], 5), test, [0, 1, 3])
    agrees(judgement.metrics, "", expected)


def test_a_test_split_of_one_class_is_unsuited():
    world = world_of()
    world.truth["test"] = torch.full((200,), 2)
    with pytest.raises(Unsuited, match="the test split of made-up shows one class alone; use"):
        world.judged_by(Anomaly())


@pytest.mark.parametrize(
    ("left", "k", "sentence"),
    [
        (4, 5, r"at least 5 train images of each class \(k=5\), class 1 of made-up has 4; ask"),
        (0, 1, r"at least 2 train images of each class \(k=1\), class 1 of made-up has 0; ask"),
        (1, 1, r"at least 2 train images of each class \(k=1\), class 1 of made-up has 1; ask"),
    ],
)
def test_fewer_train_images_than_neighbours_are_unsuited(left, k, sentence):
    world = world_of()
    labels = world.truth["train"]
    world.truth["train"] = torch.where((labels == 1) & (torch.arange(300) >= 4 * left), -1, labels)
    with pytest.raises(Unsuited, match=sentence):
        world.judged_by(Anomaly(k=k))
    if left >= 2:
        world.judged_by(Anomaly(k=left))


def test_features_and_reconstructions_that_are_not_finite_are_a_sentence():
    world = world_of()
    world.rebuilt["test"][7, 0, 1, 1] = float("nan")
    with pytest.raises(ValueError, match="of test was to be judged, 1 images of it hold NaN"):
        world.judged_by(Anomaly())
    world.test[5, 1] = float("nan")
    with pytest.raises(ValueError, match="1 of 200 rows hold NaN or infinity; train again"):
        world.judged_by(Anomaly())


def test_reconstructions_of_another_size_are_a_sentence():
    world = world_of()
    world.rebuilt["train"] = world.rebuilt["train"][:, :, 1:]
    with pytest.raises(ValueError, match=r"\[300, 3, 5, 5\] where they are \[300, 3, 6, 5\]"):
        world.judged_by(Anomaly())
