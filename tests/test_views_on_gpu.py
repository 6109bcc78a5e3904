"""Views on a GPU that is pretended: what they ask of it, and that they give what a CPU gives.

The last tests need a real one.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from pretending import where_it_works
from test_views import ALL, pictures
from torch import Tensor

from sslbench import views as V
from sslbench.testing.pretend_cuda import pretend_cuda
from sslbench.views import graphs, phases
from sslbench.views.resample import placed, resampled

EPS = 4e-6  # three steps of colour stretch an error of 2e-7 up to six times; hue doubles it

MULTI_CROP = V.MultiCrop(((V.contrastive(32), 2), (V.contrastive(14, scale=(0.05, 0.14)), 6)))
CHAINS = [
    V.contrastive(32, solarise=0.2),
    V.crop_flip(20),
    V.Chain(V.HorizontalFlip(), V.Solarize()),
]


@pytest.fixture
def gpu():
    with where_it_works():
        pretended = pretend_cuda()
        with pretended as gpu:
            yield gpu


def made(view, images: Tensor, seed: int = 0) -> list[Tensor]:
    """What a view makes at a seed."""
    torch.manual_seed(seed)
    found = view(images)
    return found if isinstance(found, list) else [found]


def close(got: list[Tensor], wanted: list[Tensor], tolerance: float = EPS) -> None:
    assert [x.shape for x in got] == [x.shape for x in wanted]
    pairs = zip(got, wanted, strict=True)
    assert max(float((a.cpu() - b.cpu()).abs().max()) for a, b in pairs) <= tolerance


# ---- the same as on a CPU ------------------------------------------------------------------


@pytest.mark.parametrize("view", [*ALL, V.asymmetric(32), MULTI_CROP], ids=repr)
@pytest.mark.parametrize("count", [1, 3, 32])
def test_a_gpu_gives_what_a_cpu_gives_and_never_waits(gpu, view, count):
    images = pictures(count)
    wanted = made(view, images)
    state = torch.get_rng_state()
    there = images.to("cuda")
    with gpu.watched() as seen:
        found = made(view, there)
    assert torch.equal(torch.get_rng_state(), state)  # as many numbers were drawn
    assert [seen.waits, seen.blocking, seen.mixed, seen.half] == [{}] * 4
    close(found, wanted)
    assert torch.equal(there.cpu(), images)


@pytest.mark.parametrize("view", CHAINS, ids=repr)
@pytest.mark.parametrize("sides", [(1, 1), (1, 7), (17, 45), (64, 21)])
def test_odd_sides_and_floats_give_what_a_cpu_gives(gpu, view, sides):
    for images in (pictures(8, *sides), V.to_float(pictures(8, *sides))):
        close(made(view, images.to("cuda")), made(view, images))


def test_large_images_differ_by_the_rounding_of_places(gpu):
    # float32 knows a place near 224 to 1.5e-5 of a pixel, and colours stretch what comes of that
    images = pictures(3, 224, 224)
    close(made(V.contrastive(224), images.to("cuda")), made(V.contrastive(224), images), 1e-4)


def test_a_crop_in_fixed_shapes_is_as_near_to_the_exact_one_as_that_of_a_cpu():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 256, 300), dtype=torch.uint8)
    boxes, flip = V.RandomResizedCrop(224).draw(4, (256, 300))
    numbers = placed(boxes, flip, (256, 300), (224, 224))
    fixed = resampled(images, *numbers, (224, 224))
    usual = V.resample(images, boxes, 224, flip)
    for i, (top, left, high, wide) in enumerate(boxes.int().tolist()):
        box = images[i : i + 1, :, top : top + high, left : left + wide].double() / 255
        exact = F.interpolate(box, (224, 224), mode="bilinear", antialias=True)[0]
        exact = exact.flip(-1) if flip[i] else exact
        assert float((fixed[i] - exact).abs().max()) <= 3e-5
        assert float((usual[i] - exact).abs().max()) <= 3e-5


def test_hues_near_grey_stay_near_grey(gpu):
    torch.manual_seed(0)
    images = torch.rand(64, 1, 8, 8).expand(64, 3, 8, 8)
    images = images + torch.rand(64, 3, 8, 8) * 10.0 ** -torch.arange(64).div(8).view(-1, 1, 1, 1)
    images = images.clamp(0, 1)
    view = V.ColorJitter(hue=0.5)
    close(made(view, images.to("cuda")), made(view, images), 2e-6)
    grey = images[:, :1].expand_as(images)
    assert torch.equal(view(grey.to("cuda")).cpu(), grey)


def test_autocast_does_not_cost_precision_on_a_gpu(gpu):
    view, images = V.contrastive(32, solarise=0.2), pictures(8).to("cuda")
    wanted = made(view, images)
    with torch.autocast("cuda", torch.bfloat16):
        close(made(view, images), wanted, 0.0)


@pytest.mark.parametrize("switch", ["older", "newer"])
def test_products_are_exact_within_a_view_and_as_the_run_wants_them_after(gpu, switch):
    matmul = torch.backends.cuda.matmul
    if switch == "newer" and not hasattr(matmul, "fp32_precision"):
        pytest.skip("this torch has one switch")

    @dataclass(frozen=True)
    class Asks(V.Grayscale):
        def on_device(self, images, numbers):
            asked.append(torch.get_float32_matmul_precision())
            return super().on_device(images, numbers)

    asked: list[str] = []
    before = getattr(matmul, "fp32_precision", None)
    try:
        if switch == "older":
            torch.set_float32_matmul_precision("high")
        else:
            matmul.fp32_precision = "tf32"
        Asks()(pictures(2).to("cuda"))
        if switch == "older":
            assert torch.get_float32_matmul_precision() == "high"
        else:
            assert matmul.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")
        if before is not None:
            matmul.fp32_precision = before
    assert asked == ["highest"]


# ---- what is asked of a GPU ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "side", "ops", "traffic"),  # operations; bytes for each value of the images
    [
        (V.contrastive(32), 32, 54, 301),  # 217 and 423 before shapes were fixed
        (V.contrastive(224), 224, 54, 301),  # 257, 737
        (V.contrastive(32, blur=0), 32, 51, 276),
        (V.contrastive(32, solarise=0.2), 32, 57, 327),  # 226, 446
        (V.asymmetric(32), 32, 54 + 57, 628),  # 440, 858
        (V.crop_flip(32), 32, 12, 70),  # 62, 109
        (MULTI_CROP, 32, 2 * 54 + 6 * 51, 1030),
    ],
    ids=repr,
)
def test_views_ask_little_of_a_gpu(gpu, view, side, ops, traffic):
    images = pictures(64 if side < 100 else 8, side, side).to("cuda")
    with gpu.watched() as seen:
        count = len(made(view, images))
    assert seen.count <= 1.05 * ops, seen.names
    assert seen.bytes / images.numel() <= 1.05 * traffic
    assert sum(seen.copies.values()) == count  # one for all numbers of a view


def test_the_operations_do_not_depend_on_what_was_drawn(gpu):
    counts = set()
    for seed in range(5):
        with gpu.watched() as seen:
            made(V.contrastive(32, solarise=0.2), pictures(2).to("cuda"), seed)
        counts.add(tuple(sorted(seen.names.items())))
    assert len(counts) == 1


# ---- among other views ---------------------------------------------------------------------


def test_a_view_of_another_kind_runs_between_two_phases(gpu):
    def darker(images: Tensor) -> Tensor:
        assert images.dtype == torch.float32
        return images * (0.5 + 0.5 * torch.rand(1).item())

    view = V.Chain(V.RandomResizedCrop(16), darker, V.Grayscale(0.5), V.GaussianBlur(3))
    images = pictures(8)
    close(made(view, images.to("cuda")), made(view, images))


def test_a_view_with_a_call_of_its_own_keeps_it_in_a_chain(gpu):
    @dataclass(frozen=True)
    class Black(V.Grayscale):
        def __call__(self, images):
            return super().__call__(images) * 0

    for view in (V.Chain(V.HorizontalFlip(), Black()), V.compiled(V.Chain(Black()))):
        assert not view(pictures(3).to("cuda")).cpu().any()


# ---- compiled and captured -----------------------------------------------------------------


def second_phase(chain, images: Tensor, phase: phases.Phase) -> Tensor:
    """Runs what a GPU would, on the CPU."""
    views = chain.ops if isinstance(chain, V.Chain) else (chain,)
    numbers = phases.drawn(views, len(images), (images.shape[2], images.shape[3]))
    layout = tuple(tuple(each.shape for each in own) for own in numbers)
    return phase(views, layout, images, phases.lent(numbers, images.device))


@pytest.mark.parametrize("view", CHAINS, ids=repr)
def test_the_second_phase_compiles_as_one_graph(view):
    images = pictures(5)
    compiled = graphs._Compiled({"backend": "aot_eager", "fullgraph": True})
    for seed in (0, 1):  # the second time it is not compiled anew
        torch.manual_seed(seed)
        usual = second_phase(view, images, phases.act)
        torch.manual_seed(seed)
        close([second_phase(view, images, compiled)], [usual], 1e-6)
        close([usual], made(view, images, seed))
    assert len(compiled.made) == 1


@pytest.mark.parametrize("make", [V.compiled, V.captured])
@pytest.mark.parametrize("view", [*CHAINS, V.asymmetric(32), MULTI_CROP, V.RandAugment(), V.plain])
def test_compiled_and_captured_views_are_the_views_on_a_cpu(make, view):
    images = pictures(3)
    assert all(map(torch.equal, made(make(view), images), made(view, images)))


def test_compiled_views_give_on_a_gpu_what_a_cpu_gives(gpu):
    images = pictures(5)
    view = V.compiled(V.asymmetric(32), backend="eager")
    close(made(view, images.to("cuda")), made(V.asymmetric(32), images))


# ---- on a real GPU -------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@needs_gpu
@pytest.mark.parametrize("make", [lambda view: view, V.compiled, V.captured])
@pytest.mark.parametrize("view", [*CHAINS, V.asymmetric(32), MULTI_CROP])
def test_a_real_gpu_gives_what_a_cpu_gives(make, view):
    fast = make(view)
    for seed, count in enumerate((8, 8, 5)):  # the last batch is smaller
        images = pictures(count, seed=seed)
        close(made(fast, images.cuda(), seed), made(view, images, seed), 1e-5)


@needs_gpu
def test_views_of_a_captured_chain_are_not_overwritten():
    first, second = V.captured(V.Views(V.contrastive(32), 2))(pictures(8).cuda())
    kept = first.clone()
    V.captured(V.Views(V.contrastive(32), 2))(pictures(8).cuda())
    assert torch.equal(first, kept)
    assert not torch.equal(first, second)
