"""Methods: what all of them promise, and what each of them is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import normalized_mutual_info_score
from torch import nn

from sslbench import testing
from sslbench.api import Batch, DataInfo, Epoch, Stream, Update
from sslbench.errors import UserError
from sslbench.feed import main_order, orders
from sslbench.identity import anatomy
from sslbench.methods.deepcluster import nmi
from sslbench.methods.scan import Agree
from sslbench.methods.swav import swapped
from sslbench.nn import sinkhorn
from sslbench.optim import Optimisation
from sslbench.plugins import registry
from sslbench.testing import METHOD_CHECKS, Trial, checks
from sslbench.train import Loop

REGISTRY = registry(installed=False)  # what others installed is theirs to test
METHODS = REGISTRY.entries("methods")
TRAINED = [name for name, entry in METHODS.items() if anatomy(entry).recipe]
SMALL = {  # what fits 96 images
    "moco.queue": 64,
    "moco.hidden": 32,
    "moco.splits": 2,
    "moco-v1.queue": 64,
    "moco-v1.splits": 2,
    "swav.prototypes": 12,
    "swav.hidden": 32,
    "swav.crops": (2, 1),
    # of 14 pixels the deepest map is a single one, and there oneDNN's bf16 gradients of a 3 x 3
    # convolution are not written but found in memory (torch 2.15, AVX-512)
    "swav.small_size": 20,
    "swav.queue": 40,
    "swav.queue_from": 1,
    "deepcluster.clusters": 8,
    "deepcluster.whiten": 16,
    "scan.confidence": 0.1,
    "scan.neighbours": 5,
}
PLAIN = {  # under what a loss falls plainly within a few steps
    "supervised": {"lr": 0.1, "lr_scaling": "none", "warmup": 0, "crop": 0.8},
    "simclr": {"optimizer": "sgd", "lr": 0.1, "lr_scaling": "none", "warmup": 0, "crop": 0.8},
    "moco": {"lr": 0.1, "momentum_target": 0.9, "queue": 32, "crop": 0.8, "jitter_p": 0, "blur": 0},
    "moco-v1": {"momentum_target": 0.99, "queue": 32, "crop": 0.9, "jitter_p": 0},
    "swav": {"optimizer": "sgd", "lr": 0.1, "lr_scaling": "none", "warmup": 0, "crop": 0.8},
    # its targets move with every epoch, so that one has to do
    "deepcluster": {"epochs": 1, "batch": 8, "clusters": 8, "whiten": 2, "crop": 0.9},
    "scan": {"lr": 1e-3, "agree.lr": 3e-3, "neighbours": 1, "entropy": 2, "crop": 0.9},
}


@pytest.fixture(scope="module", autouse=True)
def hub(tmp_path_factory):
    """A cache with published weights of one network, and no connection."""
    import timm
    from huggingface_hub import constants
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("hub")
    folder = root / "models--timm--test_resnet.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    torch.manual_seed(7)
    weights = timm.create_model("test_resnet").state_dict()
    path = folder / "snapshots" / "abc" / "model.safetensors"
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        patch.setattr(constants, "HF_HUB_CACHE", str(root))
        yield weights


@pytest.fixture(scope="module")
def trial_of(tmp_path_factory):
    known: dict[str, Trial] = {}

    def get(method: str) -> Trial:
        if method not in known:
            known[method] = Trial(REGISTRY, method, tmp_path_factory.mktemp("stores"), SMALL)
        return known[method]

    return get


@pytest.fixture
def made(trial_of):
    """A method as built, in training, with hyperparameters of the test."""

    def get(method: str, **settings) -> nn.Module:
        trial = trial_of(method)
        dotted = {f"{method}.{key}": value for key, value in settings.items()}
        return trial.bench("built").build(trial.cell(**dotted))[0].train()

    return get


@pytest.fixture
def batch_of(trial_of):
    """The first images of the data, as this method sees them."""

    def get(method, size: int = 8, *, epoch: int = 0, label=None, seed: int = 0) -> Batch:
        torch.manual_seed(seed)
        images = trial_of("untrained").data.train.images[:size]
        label = torch.full((size,), -1) if label is None else label
        return Batch(method.views()(images), torch.arange(size), label, epoch, 0.0)

    return get


def first_loss(method, batch):
    """The running step, and the loss of its first yield."""
    step = method.step(batch)
    yielded = next(step)
    return step, yielded.loss if isinstance(yielded, Update) else yielded


def trained(method, batch, lr=0.1):
    """One step as the loop takes it; its losses."""
    losses, step = [], method.step(batch)
    optimizer = torch.optim.SGD(method.parameters(), lr)
    for yielded in step:
        loss = yielded.loss if isinstance(yielded, Update) else yielded
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


# ---- what all of them promise ----------------------------------------------------------------------

EACH = [
    pytest.param(name, check, id=f"{name}-{check.__name__}")
    for name, entry in METHODS.items()
    for check in (METHOD_CHECKS if anatomy(entry).recipe else testing.ENCODER_CHECKS)
]


@pytest.mark.parametrize(("name", "check"), EACH)
def test_it_keeps_its_promises(name, check, trial_of):
    trial = trial_of(name)
    assert check in checks(trial)
    plain = PLAIN.get(name, {}) if check is testing.learns else {}
    check(trial, **{f"{name}.{key}": value for key, value in plain.items()})


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cautious(trial):
    """Everything at a tenth of its rate: at its own, rounding grows to a percent in five steps."""
    kinds = {f"{trial.name}.{stage}": kind for stage, kind in trial.parts.target.stages.items()}
    recipes = {name: kind.recipe for name, kind in kinds.items()}
    for name in (trial.name, *trial.cell().pretexts):
        recipes[name] = anatomy(METHODS[name]).recipe
    return trial.cell(**{f"{name}.lr": recipe.lr / 10 for name, recipe in recipes.items()})


@pytest.mark.parametrize("name", TRAINED)
def test_first_losses_are_those_of_the_golden_file(name, trial_of, request, one_thread):
    path = Path(__file__).parent / "golden" / f"{name}.txt"
    fit = trial_of(name).fit("golden", cautious(trial_of(name)))
    kinds = dict.fromkeys(kind for kind, _ in fit.losses)
    found = [each for kind in kinds for each in [e for e in fit.losses if e[0] == kind][:5]]
    if request.config.getoption("--regold"):
        path.write_text("".join(f"{kind} {loss:.9g}\n" for kind, loss in found))
    golden = [line.split() for line in path.read_text().splitlines()]
    assert [kind for kind, _ in found] == [kind for kind, _ in golden]
    expected = pytest.approx([float(loss) for _, loss in golden], rel=1e-4)
    assert [loss for _, loss in found] == expected, "`pytest --regold`, if that is meant"


def test_every_golden_file_is_of_a_method():
    assert {path.stem for path in Path(__file__).parent.glob("golden/*")} == set(TRAINED)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("moco", {"queue": 97}, "queue of 97 keys is longer than the 96 images of digits"),
        ("swav", {"queue": 97}, "queue of 97 features is longer than the 96 images of digits"),
        ("swav", {"crops": (1, 4)}, r"two large crops, crops=\(1, 4\) has 1"),
        ("deepcluster", {"clusters": 97}, "97 clusters of the 96 images of digits"),
        ("scan", {"neighbours": 97}, "97 neighbours among the 96 images of digits"),
    ],
)
def test_what_the_data_cannot_give_is_refused_before_training(name, settings, sentence, made):
    with pytest.raises(ValueError, match=sentence):
        made(name, **settings)


@pytest.mark.parametrize(("name", "setting"), [("moco", "queue"), ("deepcluster", "clusters")])
def test_as_many_as_there_are_images_is_allowed(name, setting, made):
    made(name, **{setting: 96})


# ---- what is never trained -------------------------------------------------------------------------


def test_pixels_are_the_image_flattened_and_averaged_down_to_32(made):
    x = torch.rand(2, 3, 64, 64)
    small = x.unflatten(3, (32, 2)).unflatten(2, (32, 2)).mean((3, 5))
    flat = made("pixels")
    assert torch.equal(flat(small), small.flatten(1))
    torch.testing.assert_close(flat(x), small.flatten(1))
    assert made("pixels", largest=8)(x).shape == (2, 3 * 8 * 8)


def test_pretrained_is_the_published_network(made, hub):
    ours = made("pretrained").net.state_dict()
    assert all(torch.equal(ours[key], hub[key]) for key in ours)


def test_without_published_weights_pretrained_says_what_would_work(tmp_path):
    trial = Trial(REGISTRY, "pretrained", tmp_path, backbone="resnet18")
    with pytest.raises(UserError, match=r"of resnet18 are not in .* --download"):
        trial.bench("none").build(trial.cell())


# ---- supervised ------------------------------------------------------------------------------------


def test_supervised_is_the_cross_entropy_of_the_shown_labels_on_untrained(made, batch_of):
    label = torch.tensor([3, -1, 0, 9, -1, -1, 4, 4])
    method = made("supervised")
    batch = batch_of(method, label=label)
    _, loss = first_loss(method, batch)
    h = made("untrained")(batch.views)
    logs = (h @ method.head.weight.T + method.head.bias).log_softmax(1)
    expected = -sum(logs[i, label[i]] for i in (0, 2, 3, 6, 7)) / 5
    torch.testing.assert_close(loss, expected)


def test_supervised_takes_no_step_where_every_label_is_hidden(made, batch_of):
    method = made("supervised")
    assert list(method.step(batch_of(method))) == []


# ---- simclr ----------------------------------------------------------------------------------------


def test_simclr_has_batch_norm_behind_every_layer_of_its_head_and_is_judged_before_it(made):
    method = made("simclr")
    kinds = [type(layer).__name__ for layer in method.head]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert method.head[3].out_features == 128
    assert method.encoder() is method.backbone


# ---- moco ------------------------------------------------------------------------------------------


def test_the_target_starts_as_a_copy_and_moves_by_the_formula(made, batch_of):
    method = made("moco", momentum_target=0.9)
    before = [p.clone() for p in method.target.parameters()]
    for old, p in zip(before, method.online.parameters(), strict=True):
        assert torch.equal(old, p)
        assert old.data_ptr() != p.data_ptr()
    trained(method, batch_of(method))
    pairs = zip(before, method.target.parameters(), method.online.parameters(), strict=True)
    for old, target, online in pairs:
        torch.testing.assert_close(target, 0.9 * old + 0.1 * online.detach(), rtol=1e-6, atol=1e-8)
    weights = method.online[1][0].weight
    assert (weights - before[-4]).abs().max() > 1e-6  # the online network did move


def test_the_target_takes_no_gradient(made, batch_of):
    method = made("moco")
    _, loss = first_loss(method, batch_of(method))
    loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in method.target.parameters())
    assert all(p.grad is not None for p in method.online.parameters())
    assert not method.queue.requires_grad


def test_keys_are_queued_after_the_loss_and_never_among_their_own_negatives(made, batch_of):
    method = made("moco", queue=16, temperature=0.2)
    batch = batch_of(method)
    keys = F.normalize(torch.randn(8, 128), dim=1)
    method.keys = lambda x: 3 * keys  # unit only once normalised
    queue = method.queue.clone()
    step, loss = first_loss(method, batch)
    assert torch.equal(method.queue, queue)
    q = F.normalize(method.online(batch.views[0]), dim=1)
    scores = torch.cat([(q * keys).sum(1, keepdim=True), q @ queue.T], dim=1) / 0.2
    torch.testing.assert_close(loss, -scores.log_softmax(1)[:, 0].mean())
    assert next(step, None) is None
    torch.testing.assert_close(method.queue[:8], keys)
    assert torch.equal(method.queue[8:], queue[8:])


@pytest.mark.parametrize(("queue", "size"), [(20, 8), (16, 8), (8, 8), (5, 8)])
def test_the_queue_is_a_ring_that_forgets_the_oldest(queue, size, made):
    method, fed = made("moco", queue=queue), []
    for step in range(6):
        keys = torch.full((size, 128), float(step)) + torch.arange(size)[:, None] / 100
        method.enqueue(keys)
        fed.append(keys)
        if queue >= size:
            assert int(method.oldest) == (step + 1) * size % queue
    newest = torch.cat(fed)[-queue:]
    assert torch.equal(method.queue[:, 0].sort().values, newest[:, 0])
    order = (torch.arange(queue) + method.oldest) % queue  # from the oldest on
    assert torch.equal(method.queue[order], newest)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 17])
def test_shuffled_keys_come_back_in_order(size, made):
    method = made("moco", splits=8)
    method.target.eval()  # no statistics of a part
    x = torch.rand(size, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(method.keys(x), method.target(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("splits", [1, 2, 8])
def test_keys_pass_in_shuffled_parts_of_two_images_or_more(splits, made):
    method, parts = made("moco", splits=splits), []
    method.target.register_forward_pre_hook(lambda _, given: parts.append(given[0][:, 0, 0, 0]))
    for size in range(2, 20):
        parts.clear()
        method.keys(torch.arange(size).view(-1, 1, 1, 1).expand(-1, 3, 32, 32) / 20)
        assert len(parts) == min(splits, size // 2)
        assert min(map(len, parts)) >= 2
        passed = torch.cat(parts)
        assert torch.equal(passed.sort().values, torch.arange(size) / 20)
    assert not torch.equal(passed, torch.arange(19) / 20)


def test_the_first_version_has_a_linear_head_and_drops_its_rate_in_steps(made, trial_of):
    first, second = made("moco-v1"), made("moco")
    assert [type(layer).__name__ for layer in first.online[1]] == ["Linear"]
    assert [type(layer).__name__ for layer in second.online[1]] == ["Linear", "ReLU", "Linear"]
    assert (first.temperature, second.temperature) == (0.07, 0.2)
    recipe = anatomy(METHODS["moco-v1"]).recipe
    assert recipe.schedule == "step"
    optimisation = Optimisation(first, recipe, steps_per_epoch=1)
    rates = [optimisation.set(epoch) for epoch in range(recipe.epochs)]
    drops = [epoch for epoch in range(1, 200) if rates[epoch] < rates[epoch - 1]]
    assert drops == [120, 160]
    assert [rates[0], rates[120], rates[160]] == pytest.approx([0.03, 0.003, 0.0003])
    assert "GaussianBlur" in repr(second.view)
    assert "GaussianBlur" not in repr(first.view)


# ---- swav ------------------------------------------------------------------------------------------


def test_prototypes_have_unit_rows_before_they_are_used(made, batch_of):
    method = made("swav", queue=0)
    batch = batch_of(method)
    _, loss = first_loss(method, batch)
    with torch.no_grad():
        method.prototypes.weight.mul_(torch.rand(12, 1) * 5 + 0.1)
    _, scaled = first_loss(method, batch)
    torch.testing.assert_close(scaled, loss)
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(12))


def test_prototypes_rest_while_frozen_and_move_afterwards(made, batch_of):
    method = made("swav", queue=0, freeze=2)
    start = F.normalize(method.prototypes.weight.detach(), dim=1).clone()
    for epoch in (0, 1):
        trained(method, batch_of(method, epoch=epoch))
        torch.testing.assert_close(method.prototypes.weight, start, rtol=0, atol=1e-6)
    trained(method, batch_of(method, epoch=2))
    assert (method.prototypes.weight - start).abs().max() > 1e-4


def features(method, batch):
    """Of every crop, [B, D], as the method's next step finds them."""
    sizes = sorted({v.shape[-1] for v in batch.views}, reverse=True)
    groups = [torch.cat([v for v in batch.views if v.shape[-1] == size]) for size in sizes]
    z = method.head(torch.cat([method.backbone(group) for group in groups]))
    return F.normalize(z, dim=1).detach().split(len(batch.views[0]))


def expected_loss(method, batch, queue=None):
    weight = F.normalize(method.prototypes.weight.detach(), dim=1)
    scores, codes = [z @ weight.T for z in features(method, batch)], []
    for i in range(2):
        old = torch.empty(0, len(weight)) if queue is None else queue[i] @ weight.T
        codes.append(sinkhorn(torch.cat([scores[i], old]))[: len(scores[i])])
    return swapped(codes, scores, 0.1)


def test_a_full_queue_joins_the_codes_and_not_the_loss(made, batch_of):
    method = made("swav", queue=16, queue_from=2)
    for epoch in (0, 1):  # it fills meanwhile
        batch = batch_of(method, epoch=epoch, seed=epoch)
        expected, newest = expected_loss(method, batch), features(method, batch)
        step, loss = first_loss(method, batch)
        torch.testing.assert_close(loss, expected)
        assert next(step, None) is None
        torch.testing.assert_close(method.queue[:, :8], torch.stack(newest[:2]))
    batch, queue = batch_of(method, epoch=2, seed=2), method.queue.clone()
    expected, without = expected_loss(method, batch, queue), expected_loss(method, batch)
    _, loss = first_loss(method, batch)
    torch.testing.assert_close(loss, expected)
    assert abs(loss - without) > 1e-3


def test_a_queue_that_is_not_full_stays_out_of_the_codes(made, batch_of):
    method = made("swav", queue=24, queue_from=0)
    for seed in range(2):
        trained(method, batch_of(method, seed=seed))
    batch = batch_of(method, seed=2)
    expected = expected_loss(method, batch)
    torch.testing.assert_close(first_loss(method, batch)[1], expected)


def test_codes_sum_to_one_and_take_no_gradient_with_a_queue_and_without(made, batch_of):
    method = made("swav", queue=8, queue_from=0)
    scores = F.normalize(torch.randn(6, 12), dim=1).requires_grad_()
    for _ in range(2):
        code = method.code(scores, 0, 0)
        assert code.shape == (6, 12)
        assert not code.requires_grad
        torch.testing.assert_close(code.sum(1), torch.ones(6))
        method.enqueue([F.normalize(torch.randn(8, 128), dim=1)] * 2)


def test_every_crop_is_predicted_and_the_two_large_ones_give_codes(made, batch_of):
    method = made("swav", crops=(2, 3), queue=0)
    sides = [view.shape[-1] for view in batch_of(method).views]
    assert sides == [32, 32, 20, 20, 20]
    codes = []
    whole = method.code
    method.code = lambda scores, crop, epoch: codes.append(crop) or whole(scores, crop, epoch)
    first_loss(method, batch_of(method))
    assert codes == [0, 1]


# ---- deepcluster -----------------------------------------------------------------------------------


class Lent:
    """A run that trains nothing and remembers what it was asked."""

    def __init__(self, features=None, epochs=1):
        self.given, self.number, self.asked = features, epochs, []

    def epochs(self, method):
        self.asked.append(("epochs", method))
        for number in range(self.number):
            self.epoch = Epoch(number)
            yield self.epoch

    def fit(self, method, name):
        self.asked.append((f"fit {name}", method))

    def pretrain(self, name, into=None):
        self.asked.append((f"pretrain {name}", into))

    def features(self, encoder):
        self.asked.append(("features", encoder))
        return self.given

    def reset(self, module):
        self.asked.append(("reset", module))


def test_images_are_drawn_evenly_over_clusters(made):
    method = made("deepcluster", clusters=4, whiten=2)
    centres = torch.tensor([0] * 60 + [1] * 24 + [2] * 9 + [3] * 3)
    run = Lent(features=torch.eye(96)[centres] + 0.01 * torch.rand(96, 96))
    method.fit(run)
    assert float(nmi(method.cluster, centres)) == pytest.approx(1)
    drawn = main_order(96, steps=1000, batch=32, epoch=run.epoch, seed=0)
    counts = torch.bincount(method.cluster[drawn.flatten()], minlength=4)
    chance = math.sqrt(32000 * 0.25 * 0.75)
    assert (counts - 8000).abs().max() < 4 * chance
    inside = torch.bincount(drawn.flatten(), minlength=96)[centres == 0]
    assert (inside - 8000 / 60).abs().max() < 5 * math.sqrt(8000 / 60)


def test_a_targets_names_are_its_clusters(made, batch_of):
    method = made("deepcluster")
    method.cluster.copy_(torch.randint(8, (96,)))
    batch = batch_of(method)._replace(index=torch.tensor([5, 90, 3, 3, 17, 40, 0, 95]))
    _, loss = first_loss(method, batch)
    logs = method.head(method.backbone(batch.views)).log_softmax(1)
    expected = -logs[torch.arange(8), method.cluster[batch.index]].mean()
    torch.testing.assert_close(loss, expected)


def test_every_epoch_starts_with_a_new_head_that_the_optimiser_does_not_know(
    trial_of, monkeypatch, tmp_path
):
    forgotten, heads = [], []
    forget, finish = Optimisation.forget, Loop._finish_epoch

    def forgetting(self, module):
        forgotten.append(module)
        forget(self, module)

    def looking(self):
        head = self.method.head
        assert forgotten[-1] is head
        heads.append(head.weight.detach().clone())
        assert float(heads[-1].std()) == pytest.approx(0.01, rel=0.1)
        assert not head.bias.any()
        assert bool(self.optimisation.optimizer.state[next(self.method.parameters())]) == (
            self._at.epoch.number > 0
        )
        finish(self)

    monkeypatch.setattr(Optimisation, "forget", forgetting)
    monkeypatch.setattr(Loop, "_finish_epoch", looking)
    trial = Trial(REGISTRY, "deepcluster", tmp_path, SMALL)
    assert trial.fitted.done.status == "ok"
    assert len(forgotten) == len(heads) == 2
    assert not torch.equal(*heads)
    for epoch in range(2):  # of three steps each
        assert trial.fitted.losses[3 * epoch][1] == pytest.approx(math.log(8), abs=0.1)


def test_nmi_of_renamed_clusters_is_one_and_of_any_two_that_of_sklearn():
    torch.manual_seed(0)
    one, two = torch.randint(7, (500,)), torch.randint(4, (500,))
    two = torch.where(torch.rand(500) < 0.5, one % 4, two)
    assert nmi(one, torch.randperm(7)[one]) == pytest.approx(1)
    for a, b in ((one, two), (two, one), (one, torch.arange(500)), (one, one * 0)):
        theirs = normalized_mutual_info_score(a, b, average_method="geometric")
        assert nmi(a, b) == pytest.approx(theirs, abs=1e-9)
    assert nmi(torch.tensor([0, 0, 1, 1]), torch.arange(4)) == pytest.approx(0.7071, abs=1e-4)


def test_sobel_hides_colours_from_the_network_and_is_kept_for_judging(made):
    encoder = made("deepcluster", sobel=True).eval().encoder()
    assert encoder.net.conv1[0].in_channels == 2
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(encoder(x[:, [2, 0, 1]]), encoder(x))
    plain = made("deepcluster").eval().encoder()
    assert (plain(x[:, [2, 0, 1]]) - plain(x)).abs().max() > 1e-3


# ---- scan ------------------------------------------------------------------------------------------


def test_scan_goes_from_pretext_to_neighbours_to_agreement_to_its_own_labels(made):
    method = made("scan", neighbours=3)
    x = torch.randn(96, 5)
    run = Lent(features=x)
    method.fit(run)
    words = [word for word, _ in run.asked]
    assert words == ["pretrain simclr", "features", "fit agree", "epochs"]
    (_, into), (_, encoder), (_, agree), (_, last) = run.asked
    assert into is encoder is agree.backbone is method.backbone
    assert agree.head is method.head
    assert last is method
    unit = F.normalize(x, dim=1)
    nearest = (unit @ unit.T).topk(3, dim=1).indices
    assert torch.equal(agree.near.sort(1).values, nearest.sort(1).values)


def test_a_partner_is_one_of_the_images_neighbours(made):
    method = made("scan")
    near = torch.randint(96, (96, 5))
    stage, run = Agree(method.backbone, method.head, near, 5.0, method.strong), Lent()
    stage.fit(run)
    assert run.epoch.main
    assert isinstance(run.epoch.streams["near"], Stream)
    drawn = orders(run.epoch, 96, steps=3, batch=32, origin=("x", 0))
    for image, partner in zip(drawn["main"].flatten(), drawn["near"].flatten(), strict=True):
        assert partner in near[image]


def test_scan_starts_from_its_pretexts_weights_and_sees_no_label(tmp_path, monkeypatch):
    trial, seen = Trial(REGISTRY, "scan", tmp_path, SMALL), []
    fit, step = Agree.fit, Agree.step

    def fitting(self, run):
        seen.append({k: v.clone() for k, v in self.backbone.state_dict().items()})
        fit(self, run)

    def stepping(self, batch):
        partner = batch.also["near"]
        assert (batch.label == -1).all()
        assert (partner.label == -1).all()
        assert (self.near[batch.index] == partner.index[:, None]).any(1).all()
        yield from step(self, batch)

    monkeypatch.setattr(Agree, "fit", fitting)
    monkeypatch.setattr(Agree, "step", stepping)
    cell = trial.cell()
    assert trial.fit("store", cell).done.status == "ok"
    pretext = trial.bench("store").store.cell(cell.pretexts["simclr"].id)
    saved, _ = pretext.load("encoder")
    (start,) = seen
    assert saved.keys() == start.keys()
    assert all(torch.equal(saved[key], start[key]) for key in saved)
    untrained = made_of("untrained", trial).state_dict()
    assert any(not torch.equal(saved[key], untrained[key]) for key in saved)


def made_of(name, trial):
    other = Trial(trial.registry, name, trial.folder)
    return other.bench("built").build(other.cell())[0]


def sure_of(method, logits):
    """Makes the method see these logits: first its weak views', then its strong views'."""
    given = iter(logits)
    method.predict = lambda x: next(given)


def test_only_confident_images_label_themselves_each_class_with_the_same_weight(made, batch_of):
    method = made("scan", confidence=0.9)
    weak = torch.zeros(8, 10)
    weak[torch.arange(6), torch.tensor([3, 3, 3, 3, 7, 7])] = 20.0  # the last two are not sure
    strong = torch.randn(8, 10)
    sure_of(method, [weak, strong])
    _, loss = first_loss(method, batch_of(method))
    logs = strong.log_softmax(1)
    expected = -(logs[:4, 3].mean() + logs[4:6, 7].mean()) / 2
    torch.testing.assert_close(loss, expected)


def test_where_nobody_is_confident_no_step_is_taken(made, batch_of):
    method = made("scan", confidence=0.9)
    sure_of(method, [torch.zeros(8, 10), torch.zeros(8, 10)])
    assert list(method.step(batch_of(method))) == []


def test_own_labels_take_no_gradient_through_the_weak_view(made, batch_of):
    method = made("scan", confidence=0.9)
    weak = (20.0 * torch.eye(10)[:8]).requires_grad_()
    strong = torch.randn(8, 10, requires_grad=True)
    sure_of(method, [weak, strong])
    _, loss = first_loss(method, batch_of(method))
    through, own = torch.autograd.grad(loss, [weak, strong], allow_unused=True)
    assert through is None
    assert own.abs().sum() > 0


def test_scan_predicts_the_clusters_of_its_head(made):
    method = made("scan").eval()
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(method.predict(x), method.head(method.encoder()(x)))


# ---- who may serve ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAINED)
def test_a_built_in_method_takes_any_backbone_or_says_in_a_sentence_why_not(name, made):
    target, backbone = anatomy(METHODS[name]).target, made("untrained")
    sentence = target.needs(backbone, DataInfo("few", size=8, length=1, classes=1))
    assert sentence is None or " " in sentence
