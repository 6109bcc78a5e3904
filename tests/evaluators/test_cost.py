"""Cost against counts by hand and a clock that is made up."""

import copy
import math
from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn

from sslbench.evaluators import cost
from sslbench.evaluators.cost import Cost, peak_bytes, weight_bytes
from sslbench.measures import flops
from sslbench.one_cell import provenance

from .helpers import pictured

# of the encoder of `pictured`, on 16 x 16 pixels
FLOPS = 2 * 8 * 8 * 8 * 27 + 2 * 128 * 24  # a convolution to 8 x 8 x 8 by 3 x 3 x 3, and a layer
PARAMETERS = (27 * 8 + 8) + (8 + 8) + (128 * 24 + 24)
BYTES = 4 * PARAMETERS + 4 * (8 + 8) + 8  # and running statistics, and their counter
ALIVE = 4 * (3 * 256 + 2 * 8 * 64)  # the image, and input and output of norm or activation


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(cost, "SECONDS", 0.02)


def values(world, **parameters):
    judgement = world.judged_by(Cost(**parameters))
    return {name: each.value for name, each in judgement.metrics.items()}


class Ticking(nn.Module):
    """Takes a time of its own on a clock of its own."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.now, self.sizes = seconds, 0.0, []

    def __deepcopy__(self, memo):
        return self

    def forward(self, x):
        self.sizes.append(len(x))
        self.now += self.seconds(len(self.sizes), len(x))
        return x.flatten(1)


def ticking(monkeypatch, seconds):
    world = pictured()
    world.encoder = Ticking(seconds)
    monkeypatch.setattr(cost.time, "perf_counter", lambda: world.encoder.now)
    return world


# ---- what is counted


def test_size_and_arithmetic_are_those_counted_by_hand():
    found = values(pictured())
    assert found["flops"] == FLOPS
    assert found["parameters"] == PARAMETERS
    assert found["bytes"] == BYTES
    assert found["memory_1"] == BYTES + ALIVE
    assert found["batch"] == 1024
    assert found["memory"] == BYTES + 1024 * ALIVE


def test_images_are_those_of_the_data():
    assert values(pictured(size=32))["flops"] == 4 * (FLOPS - 2 * 128 * 24) + 2 * 128 * 24


def test_a_vision_transformers_flops_are_those_counted_by_hand():
    """On a CPU as on a GPU, by the judge as in the costs of a training."""
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    tokens, width, heads = 1 + 14 * 14, 192, 3
    attention = 2 * 2 * heads * tokens**2 * (width // heads)  # queries by keys, weights by values
    assert attention == 29_805_312
    layer = 2 * tokens * width * (3 + 1 + 4 + 4) * width  # queries, keys, values; out; two of four
    patches = 2 * 14 * 14 * width * 3 * 16 * 16
    assert patches + 12 * (layer + attention) == 2_506_982_400
    assert flops(network, torch.zeros(1, 3, 224, 224)) == 2_506_982_400
    assert costs_of(network, size=224).flops == 2_506_982_400


def test_attention_of_torchs_own_layers_is_counted():
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True).eval()
    attention = 2 * 10 * 4 * 64 * 64 + 2 * 2 * 4 * 10 * 10 * 16
    assert flops(layer, torch.zeros(1, 10, 64)) == attention + 2 * 2 * 10 * 64 * 128
    assert torch.backends.mha.get_fastpath_enabled()


def costs_of(network, size):
    means, cell = SimpleNamespace(device=torch.device("cpu")), SimpleNamespace(size=size)
    return provenance.costs(means, network, [], cell)


def test_tensors_that_are_freed_do_not_add_up():
    deep = nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(8)))
    assert peak_bytes(deep, torch.zeros(5, 1000)) == 3 * 5 * 4000  # the first is the caller's
    assert peak_bytes(nn.Sequential(*deep[:1]), torch.zeros(5, 1000)) == 2 * 5 * 4000


def test_views_and_what_is_done_in_place_take_no_memory():
    network = nn.Sequential(nn.Linear(10, 20), nn.ReLU(inplace=True), nn.Unflatten(1, (4, 5)))
    assert peak_bytes(network, torch.zeros(3, 10)) == 4 * (30 + 60)


def test_what_is_held_until_the_end_adds_up():
    class Skips(nn.Module):
        def forward(self, x):
            return torch.cat([made := x + 1, more := made + 1, more + 1], dim=1)

    assert peak_bytes(Skips(), torch.zeros(2, 10)) == 4 * (20 + 3 * 20 + 60)


def test_a_view_of_weights_is_no_tensor_of_the_pass():
    network = nn.Linear(100, 1, bias=False)
    network.forward = lambda x: x @ network.weight.t()[:, :1]
    assert peak_bytes(network, torch.zeros(2, 100)) == 4 * (200 + 2)


def test_bytes_are_those_of_the_weights_type():
    assert weight_bytes(nn.Linear(7, 3)) == 4 * 24
    assert weight_bytes(nn.Linear(7, 3).half()) == 2 * 24
    tied = nn.Sequential(one := nn.Linear(7, 3), one)
    assert weight_bytes(tied) == 4 * 24


# ---- the batch


def test_the_largest_batch_on_a_cpu_is_bound_by_arithmetic_and_memory(monkeypatch):
    assert values(pictured(), batch=48)["batch"] == 48
    monkeypatch.setattr(cost, "CPU_FLOPS", 20 * FLOPS)
    assert values(pictured())["batch"] == 16
    monkeypatch.setattr(cost, "CPU_BYTES", 8 * ALIVE)
    assert values(pictured())["batch"] == 8
    monkeypatch.setattr(cost, "CPU_BYTES", 0)
    assert values(pictured())["batch"] == 1


class Full(nn.Module):
    """Memory ends above so many images."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("no room")
        return x.flatten(1)


def test_the_largest_batch_is_halved_until_it_fits():
    world = pictured()
    world.encoder = Full(100)
    assert values(world)["batch"] == 64
    assert values(world, batch=100)["batch"] == 100


def test_memory_that_holds_not_even_one_image_is_an_error():
    world = pictured()
    world.encoder = Full(0)
    with pytest.raises(torch.OutOfMemoryError):
        world.judged_by(Cost())


def test_a_batch_above_the_number_of_images_repeats_them():
    assert values(pictured(m=3))["memory"] == BYTES + 1024 * ALIVE


# ---- time


def test_latency_and_throughput_are_those_of_the_clock(monkeypatch):
    found = values(ticking(monkeypatch, lambda _, n: 0.001 + 0.0001 * n), batch=64)
    assert found["latency_ms"] == found["latency_p95_ms"] == pytest.approx(1.1)
    assert found["throughput_1"] == pytest.approx(1 / 0.0011)
    assert found["throughput"] == pytest.approx(64 / 0.0074)


def test_passes_to_warm_up_are_not_timed_and_the_median_is_no_mean(monkeypatch):
    monkeypatch.setattr(cost, "SECONDS", 1e9)
    slow = 2 + cost.WARM  # two passes count FLOPs and bytes
    first = slow + 1
    world = ticking(monkeypatch, lambda i, n: 100 if i <= slow else 0.001 * (i - first + 1))
    found = world.judged_by(Cost(batch=1)).metrics
    assert found["latency_ms"].n == cost.PASSES == 200
    assert found["latency_ms"].value == pytest.approx(100.5)
    assert found["latency_p95_ms"].value == pytest.approx(190)


def test_a_slow_encoder_is_timed_a_few_times_and_no_more(monkeypatch):
    world = ticking(monkeypatch, lambda i, n: 30.0)
    found = world.judged_by(Cost(batch=2)).metrics
    assert found["latency_ms"].value == pytest.approx(30_000)
    assert found["latency_ms"].n == found["throughput"].n == cost.LEAST
    assert world.encoder.sizes == [1] * (2 + 1 + cost.LEAST) + [2] * (1 + cost.LEAST + 1)


def test_every_number_is_positive_and_finite():
    found = values(pictured())
    assert all(math.isfinite(value) and value > 0 for value in found.values())
    assert found.keys() | {"allocated"} == {metric.name for metric in Cost.metrics}
    assert found["latency_p95_ms"] >= found["latency_ms"]


# ---- what it leaves alone


def test_what_is_counted_is_the_same_each_time():
    counted = ("flops", "parameters", "bytes", "batch", "memory_1", "memory")
    one, two = values(pictured(seed=1)), values(pictured(seed=2))
    assert [one[name] for name in counted] == [two[name] for name in counted]
    assert Cost.metrics[0].name == "flops"


def test_no_label_and_no_feature_is_read():
    world = pictured()
    del world.truth, world.train, world.test
    values(world)
    assert world.reads == []


def test_the_encoder_is_as_it_was():
    world = pictured()
    before = copy.deepcopy(world.encoder.state_dict())
    values(world)
    after = world.encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in world.encoder.parameters())


def test_what_is_higher_when_better_says_so():
    higher = {metric.name for metric in Cost.metrics if metric.higher_is_better}
    assert higher == {"throughput_1", "throughput", "batch"}
