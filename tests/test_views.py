"""Views against torchvision: exactly where numbers are given, as distributions where drawn."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as TF
from PIL import Image
from scipy import stats
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from sslbench import views as V

LEVEL = 1 / 255
EPS = 2e-6


def pictures(count: int = 6, height: int = 32, width: int = 32, seed: int = 0) -> Tensor:
    """Smooth colours with some noise, uint8; the last one is grey."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=g)
    images = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    images = (images + 0.1 * torch.randn(images.shape, generator=g)).clamp(0, 1)
    if count > 1:
        images[-1] = images[-1, :1]
    return images.mul(255).to(torch.uint8)


def each(images: Tensor, act, *numbers) -> Tensor:
    """torchvision's answer, image by image."""
    return torch.stack([act(image, *own) for image, *own in zip(images, *numbers, strict=True)])


def close(got: Tensor, wanted: Tensor, tolerance: float = EPS) -> None:
    wanted = wanted.float() / 255 if wanted.dtype == torch.uint8 else wanted
    assert got.dtype == torch.float32
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= tolerance


RANDOM = [
    V.RandomResizedCrop(16, flip=0.5),
    V.RandomResizedCrop((12, 80)),
    V.HorizontalFlip(),
    V.PadCrop(3),
    V.PadCrop(2, "reflect"),
    V.Cutout(5, 0.5, p=0.9),
    V.Cutout(16, (0.2, 0.5, 0.9), least=2),
    V.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
    V.ColorJitter(brightness=(0.5, 0.7)),
    V.Grayscale(0.5),
    V.GaussianBlur(3),
    V.GaussianBlur(9, (0.5, 3.0), p=0.5),
    V.Solarize(0.5),
    V.Posterize(3, p=0.5),
    V.Equalize(p=0.5),
    V.AutoContrast(p=0.5),
    V.Sharpness(0.1, p=0.5),
    V.ShearX(0.3),
    V.ShearY(0.3, "bilinear", 0.5),
    V.Translate(0.3, 0.3),
    V.Rotate(30, fill=0.25),
    V.RandAugment(2, 9),
    V.RandAugment(3, 20, interpolation="bilinear", fill=0.5),
    V.RandAugment(2, 2, scale="offset", p=0.9, distinct=True),
    V.RandAugment(2, 7, scale="offset"),
    V.RandAugment(2, 10, scale="levels", p=0.5),
    V.RandAugment(4, scale="drawn"),
    V.contrastive(32, solarise=0.2),
    V.crop_flip(20, (0.2, 1.0)),
]
FIXED = [
    V.plain,
    V.Chain(),
    V.Chain(V.plain, V.Grayscale()),
    V.Resize(16),
    V.Resize((80, 10)),
    V.CenterCrop(24),
    V.CenterCrop((40, 8)),
]
ALL = RANDOM + FIXED


# ---- what holds for every view -------------------------------------------------------------


@pytest.mark.parametrize("view", ALL, ids=repr)
@pytest.mark.parametrize("count", [1, 3])
def test_a_view_gives_float32_in_0_to_1_and_leaves_its_input(view, count):
    for images in (pictures(count), V.to_float(pictures(count))):
        before = images.clone()
        out = view(images)
        assert out.dtype == torch.float32
        assert out.shape[:2] == (count, 3)
        assert out.isfinite().all()
        assert 0 <= float(out.min()) <= float(out.max()) <= 1
        assert out.is_contiguous()
        assert torch.equal(images, before)


@pytest.mark.parametrize("view", ALL, ids=repr)
@pytest.mark.parametrize("sides", [(1, 1), (1, 7), (2, 1)])
def test_a_side_of_one_pixel_is_an_image_too(view, sides):
    if view == V.PadCrop(2, "reflect"):
        with pytest.raises(RuntimeError, match="adding"):
            view(pictures(3, *sides))
        return
    out = view(pictures(3, *sides))
    assert out.isfinite().all()
    assert len(out) == 3


@pytest.mark.parametrize("view", RANDOM, ids=repr)
def test_the_seed_decides_and_every_image_draws_its_own(view):
    images = (pictures(1) // 2 + 40).expand(64, 3, 32, 32)  # room for autocontrast
    torch.default_generator.manual_seed(3)
    first = view(images)
    torch.manual_seed(3)
    assert torch.equal(view(images), first)
    assert not torch.equal(view(images), first)
    assert len(first.flatten(1).unique(dim=0)) > 1


@pytest.mark.parametrize("view", RANDOM, ids=repr)
def test_what_becomes_of_an_image_does_not_depend_on_the_others_pixels(view):
    images, others = pictures(8), pictures(8, seed=1)
    others[3] = images[3]
    torch.manual_seed(0)
    first = view(images)[3]
    torch.manual_seed(0)
    close(view(others)[3], first)


@pytest.mark.parametrize("view", ALL, ids=repr)
def test_a_view_is_a_printable_value(view):
    assert eval(repr(view), vars(V)) == view
    assert hash(view) == hash(eval(repr(view), vars(V)))
    with pytest.raises(AttributeError):
        view.p = 0.3  # frozen


@pytest.mark.parametrize("view", ALL, ids=repr)
def test_a_view_never_waits_for_the_device_nor_mixes_it_with_the_host(view):
    # on `meta` a read of the values raises, and so does a host tensor among its operands
    out = view(pictures(5).to("meta"))
    assert out.device.type == "meta"


class NoDoubles(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, (tuple, list)) else [out]:
            assert not isinstance(made, Tensor) or made.dtype != torch.float64, func
        return out


@pytest.mark.parametrize("view", ALL, ids=repr)
def test_no_double_is_made_on_the_way(view):
    with NoDoubles():
        view(pictures(5))


@pytest.mark.parametrize("view", ALL, ids=repr)
def test_autocast_does_not_cost_precision(view):
    torch.manual_seed(0)
    wanted = view(pictures(5))
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        close(view(pictures(5)), wanted)


def test_one_image_without_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\], got \[3, 32, 32\]"):
        V.RandomResizedCrop(8)(pictures(1)[0])
    with pytest.raises(ValueError, match="grey channel"):
        V.plain(pictures(2)[:, :1])
    with pytest.raises(ValueError, match=r"torch\.int64"):
        V.plain(pictures(2).long())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: V.RandomResizedCrop(0), "one or more pixels"),
        (lambda: V.RandomResizedCrop(8, (0.5, 0.2)), "rising pair of shares"),
        (lambda: V.RandomResizedCrop(8, ratio=(0, 1)), "positive aspects"),
        (lambda: V.HorizontalFlip(1.5), "share of images"),
        (lambda: V.ColorJitter(-1), "zero or more"),
        (lambda: V.ColorJitter(hue=0.6), "half a circle"),
        (lambda: V.GaussianBlur(4), "odd number of taps"),
        (lambda: V.GaussianBlur(3, (0, 1)), "positive widths"),
        (lambda: V.Posterize(9), "8 bits"),
        (lambda: V.PadCrop(-1), "zero or more pixels"),
        (lambda: V.RandAugment(2, 31), "0 to bins - 1"),
        (lambda: V.RandAugment(-1), "number of operations"),
        (lambda: V.RandAugment(15, distinct=True), "of 14 where they are distinct; got 15"),
        (lambda: V.RandAugment(2, 1, scale="offset"), "2 to 10 where levels"),
        (lambda: V.RandAugment(2, 11, scale="offset"), "2 to 10 where levels"),
        (lambda: V.RandAugment(2, 1, scale="levels"), "2 to 10 where levels"),
        (lambda: V.RandAugment(2, p=2), "share of images"),
        (lambda: V.Cutout(4, least=5), r"a side of 1 to size \(4\), got 5"),
        (lambda: V.Cutout(4, least=0), r"a side of 1 to size \(4\), got 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_with_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


# ---- crops ---------------------------------------------------------------------------------


def resized(images: Tensor, boxes: Tensor, size) -> Tensor:
    size = list(size) if isinstance(size, tuple) else [size, size]
    return each(
        images, lambda x, b: TF.resized_crop(x, *b, size, antialias=True), boxes.int().tolist()
    )


@pytest.mark.parametrize(
    ("sides", "size"),
    [
        ((32, 32), 32),
        ((40, 28), 12),
        ((17, 50), (30, 9)),
        ((5, 5), 64),
        ((90, 70), 48),
        ((60, 60), 100),
        ((1, 1), 8),
    ],
)
def test_a_box_is_resampled_as_by_torchvision(sides, size):
    torch.manual_seed(0)
    images = pictures(40, *sides)
    boxes = V.crop_boxes(40, sides, (0.02, 1), (0.4, 2.5))
    exact = resized(V.to_float(images), boxes, size)
    close(V.resample(images, boxes, size), exact, 1e-5)
    close(V.resample(V.to_float(images), boxes, size), exact, 1e-5)
    close(V.resample(images, boxes, size), resized(images, boxes, size), LEVEL)
    flip = torch.rand(40) < 0.5
    mirrored = torch.where(flip[:, None, None, None], exact.flip(-1), exact)
    close(V.resample(images, boxes, size, flip), mirrored, 1e-5)


def test_a_box_is_resampled_as_by_pil_within_its_rounding():
    images = pictures(10, 40, 40)
    boxes = V.crop_boxes(10, (40, 40), (0.1, 1), (0.75, 1.33))
    made = [
        TF.to_tensor(TF.resized_crop(TF.to_pil_image(x), *b, [24, 24]))
        for x, b in zip(images, boxes.int().tolist(), strict=True)
    ]
    close(V.resample(images, boxes, 24), torch.stack(made), 1.01 * LEVEL)


def test_a_large_batch_in_pieces_is_the_small_ones():
    images = pictures(400)
    boxes = V.crop_boxes(400, (32, 32), (0.08, 1), (0.75, 1.33))
    whole = V.resample(images, boxes, 32)
    parts = [V.resample(images[i : i + 100], boxes[i : i + 100], 32) for i in (0, 100, 200, 300)]
    close(whole, torch.cat(parts))
    sigma = torch.linspace(0.1, 2, 400)
    parts = [V.blur(images[i : i + 100], 3, sigma[i : i + 100]) for i in (0, 100, 200, 300)]
    close(V.blur(images, 3, sigma), torch.cat(parts))


@pytest.mark.parametrize(
    ("sides", "scale", "ratio"),
    [
        ((224, 224), (0.08, 1.0), (3 / 4, 4 / 3)),
        ((32, 32), (0.2, 1.0), (3 / 4, 4 / 3)),
        ((40, 100), (0.3, 1.0), (3 / 4, 4 / 3)),
        ((100, 20), (0.5, 1.0), (1 / 2, 2)),  # mostly the central fallback
        ((20, 100), (0.9, 1.0), (1 / 2, 2)),  # always
    ],
)
@pytest.mark.slow
def test_crop_boxes_follow_torchvisions_law(sides, scale, ratio):
    count = 10_000
    torch.manual_seed(1)
    ours = V.crop_boxes(count, sides, scale, ratio).double().numpy()
    image = torch.empty(1, 1, 1).expand(3, *sides)
    theirs = np.array(
        [T.RandomResizedCrop.get_params(image, scale, ratio) for _ in range(count)], dtype=float
    )
    assert (ours == ours.round()).all()
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= sides).all()
    for of in (
        lambda b: b[:, 2] * b[:, 3],  # area
        lambda b: b[:, 3] / b[:, 2],  # aspect
        lambda b: b[:, 0],  # top
        lambda b: b[:, 1],  # left
        lambda b: b[:, 0] / (sides[0] - b[:, 2] + 1),  # place among those possible
    ):
        assert stats.ks_2samp(of(ours), of(theirs)).pvalue > 1e-3


def test_crop_boxes_know_nothing_of_each_other():
    torch.manual_seed(0)
    top = V.crop_boxes(10_000, (64, 64), (0.08, 1), (0.75, 1.33))[:, 0]
    assert abs(float(torch.corrcoef(torch.stack([top[:-1], top[1:]]))[0, 1])) < 0.04


@pytest.mark.parametrize("size", [16, 50, (20, 44)])
@pytest.mark.parametrize("sides", [(32, 32), (30, 45), (70, 33)])
def test_resize_and_centre_crop_are_torchvisions(size, sides):
    images = pictures(4, *sides)
    wanted = TF.resize(V.to_float(images), size, antialias=True)
    close(V.Resize(size)(images), wanted, 1e-5)
    close(V.CenterCrop(size)(images), TF.center_crop(V.to_float(images), size))


@pytest.mark.parametrize(("mode", "wanted"), [("constant", "constant"), ("reflect", "reflect")])
def test_pad_crop_takes_every_window_of_the_padded_image_equally_often(mode, wanted):
    torch.manual_seed(0)
    image = pictures(1, 6, 5)
    padded = torch.nn.functional.pad(V.to_float(image), (2,) * 4, mode=wanted)
    windows = padded.unfold(2, 6, 1).unfold(3, 5, 1)[0].permute(1, 2, 0, 3, 4).flatten(0, 1)
    made = V.PadCrop(2, mode)(image.expand(5000, 3, 6, 5))
    same = (made[:, None] == windows).flatten(2).all(2)  # [5000, 25]
    assert (same.sum(1) == 1).all()
    assert stats.chisquare(same.sum(0).numpy()).pvalue > 1e-3


def test_half_of_the_images_are_mirrored_and_the_others_untouched():
    torch.manual_seed(0)
    images = pictures(1, 3, 4).expand(10_000, 3, 3, 4)
    for view in (V.HorizontalFlip(0.3), V.RandomResizedCrop((3, 4), (1, 1), (4 / 3, 4 / 3), 0.3)):
        made = view(images)
        turned = (made - V.to_float(images).flip(-1)).abs().amax((1, 2, 3)) < EPS
        kept = (made - V.to_float(images)).abs().amax((1, 2, 3)) < EPS
        assert (turned ^ kept).all()
        assert stats.binomtest(int(turned.sum()), 10_000, 0.3).pvalue > 1e-3


@pytest.mark.parametrize("size", [4, 5])
def test_cutout_fills_a_square_around_a_uniform_pixel(size):
    torch.manual_seed(0)
    images = torch.full((10_000, 3, 7, 9), 255, dtype=torch.uint8)
    made = V.Cutout(size, 0.25)(images)
    possible = torch.ones(7, 9, 7, 9)
    for y in range(7):
        for x in range(9):
            top, left = y - size // 2, x - size // 2
            possible[y, x, max(top, 0) : top + size, max(left, 0) : left + size] = 0.25
    assert set(made.unique().tolist()) == {0.25, 1.0}
    frequency = (made[:, 0] == 0.25).float().mean(0)
    wanted = (possible == 0.25).float().mean((0, 1))
    deviation = (frequency - wanted) / (wanted * (1 - wanted) / 10_000).sqrt()
    assert float(deviation.abs().max()) < 4.5
    known = {tuple(p.tolist()) for p in possible.view(63, -1)}
    assert {tuple(p.tolist()) for p in made[:500, 0].flatten(1)} <= known


@pytest.mark.slow
def test_a_drawn_cutout_has_scans_sides_and_the_colour_of_each_channel():
    torch.manual_seed(0)
    colour = (0.2, 0.5, 0.9)
    images = torch.zeros(20_000, 3, 32, 32)
    made = V.Cutout(16, colour, least=1)(images)
    hole = made[:, 0] > 0  # [B, H, W]
    for channel, value in enumerate(colour):
        assert torch.equal(made[:, channel], torch.where(hole, value, 0.0))
    sides = torch.stack([hole.any(2).sum(1), hole.any(1).sum(1)])  # [2, B]
    # an odd side loses a pixel; a centre less than half a side from the border loses more
    halves = torch.arange(1, 17) // 2
    centre = torch.arange(32)
    lengths = (centre + halves[:, None]).clamp(max=32) - (centre - halves[:, None]).clamp(min=0)
    wanted = lengths.flatten().bincount(minlength=17).numpy() / lengths.numel()
    for counts in (each.bincount(minlength=17).numpy() for each in sides):
        assert stats.chisquare(counts[wanted > 0], wanted[wanted > 0] * 20_000).pvalue > 1e-3
        assert counts[wanted == 0].sum() == 0
    assert float(hole.sum((1, 2)).float().mean()) == pytest.approx(71, abs=2)  # SCAN's code


# ---- colours -------------------------------------------------------------------------------

FACTORS = torch.tensor([0.0, 0.2, 0.7, 1.0, 1.3, 1.8])


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_a_colour_is_adjusted_as_by_torchvision(name):
    images = pictures()
    ours, theirs = getattr(V, f"adjust_{name}"), getattr(TF, f"adjust_{name}")
    exact = each(V.to_float(images), theirs, FACTORS.tolist())
    close(ours(images, FACTORS), exact)
    # on uint8 torchvision cuts off twice: the luma, and what it is blended to
    close(ours(images, FACTORS), each(images, theirs, FACTORS.tolist()), 1.8 * LEVEL + EPS)
    close(ours(images, 0.7), each(V.to_float(images), lambda x: theirs(x, 0.7)))


def test_hue_is_adjusted_as_by_torchvision():
    shifts = torch.tensor([-0.5, -0.2, 0.0, 0.1, 0.37, 0.5])
    images = pictures()
    images[0, :, :2, :6] = torch.tensor(  # corners of the cube, where sectors of the hue meet
        [[0, 0, 0], [255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 255, 255], [0, 0, 255]]
    ).T[:, None]
    close(V.adjust_hue(images, shifts), each(V.to_float(images), TF.adjust_hue, shifts.tolist()))


def test_jitter_is_torchvisions_functions_in_each_images_order():
    torch.manual_seed(0)
    images = V.to_float(pictures(48))
    factors = torch.rand(48, 4) * 1.8
    factors[:, 3] = torch.rand(48) - 0.5
    order = torch.rand(48, 4).argsort(1)
    acts = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue]

    def one(image, own, turn):
        for k in turn:
            image = acts[k](image, float(own[k]))
        return image

    wanted = each(images, one, factors, order.tolist())
    close(V.jitter(images, factors, order), wanted, 1e-5)
    rows = torch.tensor([5, 2, 40])
    made = V.jitter(images, factors, order, rows=rows)
    close(made[rows], wanted[rows], 1e-5)
    others = torch.ones(48, dtype=torch.bool)
    others[rows] = False
    assert torch.equal(made[others], images[others])


@pytest.mark.parametrize("strength", [(0.8, 0.8, 0.8, 0.2), (0.4, (0.5, 0.6), 0, 0.5)])
@pytest.mark.slow
def test_jittered_colours_are_distributed_as_torchvisions(strength):
    count = 10_000
    torch.manual_seed(0)
    image = V.to_float(pictures(1, 2, 2))
    image[0, :, 0, 0] = torch.tensor([0.9, 0.2, 0.1])
    theirs = T.ColorJitter(*strength)
    a = V.ColorJitter(*strength)(image.expand(count, 3, 2, 2))
    b = torch.stack([theirs(image[0]) for _ in range(count // 4)])
    for of in (
        *(lambda x, c=c: x[:, c].mean((1, 2)) for c in range(3)),
        *(lambda x, c=c: x[:, c, 0, 0] for c in range(3)),
        lambda x: x.amax(1).mean((1, 2)) - x.amin(1).mean((1, 2)),
        lambda x: x.flatten(1).std(1),
    ):
        assert stats.ks_2samp(of(a).numpy(), of(b).numpy()).pvalue > 1e-3
    for c in range(3):
        ours, wanted = a[:, c].mean((1, 2)), b[:, c].mean((1, 2))
        error = (ours.var() / len(ours) + wanted.var() / len(wanted)).sqrt()
        assert abs(float((ours.mean() - wanted.mean()) / error)) < 4
        assert float(ours.std() / wanted.std()) == pytest.approx(1, abs=0.06)


def test_jitter_reaches_the_share_of_images_it_should():
    torch.manual_seed(0)
    images = pictures(1, 4, 4).expand(10_000, 3, 4, 4)
    changed = (V.ColorJitter(0.5, p=0.8)(images) != V.to_float(images)).any(3).any(2).any(1)
    assert stats.binomtest(int(changed.sum()), 10_000, 0.8).pvalue > 1e-3


def test_greyscale_is_torchvisions():
    images = pictures()
    made = V.Grayscale()(images)
    close(made, TF.rgb_to_grayscale(V.to_float(images), 3))
    close(made, TF.rgb_to_grayscale(images, 3), LEVEL)


@pytest.mark.parametrize("threshold", [0, 1, 100, 128, 255])
def test_solarise_is_torchvisions(threshold):
    images = pictures()
    images[0, 0, 0, :3] = torch.tensor([99, 100, 128])
    close(V.Solarize(1.0, threshold / 255)(images), TF.solarize(images, threshold))


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterise_is_torchvisions(bits):
    close(V.Posterize(bits)(pictures()), TF.posterize(pictures(), bits))


def test_equalise_is_torchvisions_and_pils():
    images = torch.cat([pictures(), pictures(6).div(9, rounding_mode="floor")])
    images[0] = 7
    images[1, 0] = torch.tensor([3, 200]).repeat(16)
    images[2, :, 1:] = 0  # nearly constant: nothing to spread
    close(V.Equalize()(images), TF.equalize(images))
    pil = [TF.pil_to_tensor(TF.equalize(TF.to_pil_image(x))) for x in images]
    close(V.Equalize()(images), torch.stack(pil))


def test_autocontrast_is_torchvisions():
    images = pictures().div(3, rounding_mode="floor")
    images[0, 1] = 9
    close(V.AutoContrast()(images), TF.autocontrast(V.to_float(images)))
    close(V.AutoContrast()(images), TF.autocontrast(images), LEVEL)


@pytest.mark.parametrize("sides", [(32, 32), (3, 8), (2, 9)])
def test_sharpness_is_torchvisions(sides):
    images = pictures(6, *sides)
    wanted = each(V.to_float(images), TF.adjust_sharpness, FACTORS.tolist())
    close(V.adjust_sharpness(images, FACTORS), wanted)
    close(V.Sharpness(0.2)(images), TF.adjust_sharpness(V.to_float(images), 0.2))


@pytest.mark.parametrize(("kernel", "sides"), [(3, (32, 32)), (9, (20, 33)), (23, (70, 70))])
def test_blur_is_torchvisions(kernel, sides):
    images = pictures(6, *sides)
    sigma = torch.tensor([0.1, 0.3, 0.7, 1.0, 2.0, 5.0])
    act = lambda x, s: TF.gaussian_blur(x, [kernel, kernel], [s, s])  # noqa: E731
    close(V.blur(images, kernel, sigma), each(V.to_float(images), act, sigma.tolist()), 1e-5)
    close(V.blur(images, kernel, sigma), each(images, act, sigma.tolist()), LEVEL)


def test_the_blurs_width_is_uniform():
    torch.manual_seed(0)
    image = torch.zeros(1, 3, 5, 5, dtype=torch.uint8)
    image[..., 2, 2] = 255
    made = V.GaussianBlur(3, (0.5, 2.0))(image.expand(10_000, 3, 5, 5))[:, 0, 2]
    sigma = (-1 / (2 * (made[:, 1] / made[:, 2]).log())).sqrt()
    assert stats.kstest(sigma.numpy(), stats.uniform(0.5, 1.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize("luma", [False, True])
def test_sobel_is_the_two_gradients_of_the_mean_or_of_luma(luma):
    images = V.to_float(pictures())
    x = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    kernels = torch.stack([x, x.T])[:, None]
    weights = torch.tensor([0.299, 0.587, 0.114]) if luma else torch.ones(3) / 3
    grey = torch.einsum("c,bchw->bhw", weights, images)[:, None]
    wanted = torch.nn.functional.conv2d(grey, kernels, padding=1)
    close(V.Sobel(luma=luma)(images), wanted, 5e-4 if luma else EPS)  # torchvision's is .2989
    assert V.Sobel(luma=luma)(pictures(2, 1, 1)).shape == (2, 2, 1, 1)


# ---- affine maps and RandAugment -----------------------------------------------------------

MODES = [("nearest", InterpolationMode.NEAREST), ("bilinear", InterpolationMode.BILINEAR)]


def agree(got: Tensor, wanted: Tensor, mode: str) -> None:
    """Equal, but for nearest neighbours that are tied within float32."""
    off = (got - wanted).abs() > 1e-4
    assert float(off.float().mean()) <= (0.005 if mode == "nearest" else 0)


@pytest.mark.parametrize(("mode", "of_torchvision"), MODES)
@pytest.mark.parametrize("fill", [0.0, 0.5])
@pytest.mark.parametrize("sides", [(32, 32), (21, 34)])
def test_affine_maps_are_torchvisions(mode, of_torchvision, fill, sides):
    images = V.to_float(pictures(6, *sides))
    options = {"interpolation": of_torchvision}
    numbers = torch.tensor([-1.0, -0.61, -0.2, 0.1, 0.43, 0.9])

    def wanted(act, *numbers):
        # its own `fill` weighs what lies on the border twice when bilinear
        return each(images - fill, act, *[n.tolist() for n in numbers]) + fill

    def agrees(matrices, made):
        got = V.affine(images, matrices, interpolation=mode, fill=fill)
        agree(got, made, mode)

    def of_autoaugment(name):
        return lambda x, n: _apply_op(x, name, 0.4 * n, of_torchvision, None)

    turned = wanted(lambda x, n: TF.rotate(x, 40 * n, **options), numbers)
    agrees(V.rotate(40 * numbers), turned)
    agrees(V.shear_x(0.4 * numbers, sides[0]), wanted(of_autoaugment("ShearX"), numbers))
    agrees(V.shear_y(0.4 * numbers, sides[1]), wanted(of_autoaugment("ShearY"), numbers))
    right, down = (10 * numbers).round().int(), (-7 * numbers).round().int()
    moved = wanted(lambda x, r, d: TF.affine(x, 0.0, [r, d], 1.0, [0.0], **options), right, down)
    agrees(V.translate(right, down, 6), moved)


@pytest.mark.parametrize(
    ("view", "furthest"),
    [(V.ShearX(0.3), V.shear_x), (V.ShearY(0.3), V.shear_y)],
)
def test_a_drawn_shear_stays_within_its_limit_and_goes_both_ways(view, furthest):
    torch.manual_seed(0)
    images = torch.full((2000, 3, 20, 20), 255, dtype=torch.uint8)
    lost = (view(images) == 0).float().mean((1, 2, 3))
    most = (V.affine(images[:1], furthest(torch.tensor([0.3]), 20)) == 0).float().mean()
    assert 0.9 * float(most) <= float(lost.max()) <= float(most)
    left = (view(images)[:, 0, -1, 0] == 0) | (view(images)[:, 0, 0, -1] == 0)
    assert 0.2 < float(left.float().mean()) < 0.8


def test_drawn_rotations_and_translations_are_uniform():
    torch.manual_seed(0)
    ramp = torch.arange(21).repeat(21, 1)[None, None].expand(10_000, 3, 21, 21).to(torch.uint8)
    moved = V.Translate(3 / 21, 0.0)(ramp * 10)[:, 0, 10, 10].mul(25.5).round()
    counts = (10 - moved).long().add(3).bincount().numpy()
    # the outer two places are as wide as half of an inner one
    assert stats.chisquare(counts, np.array([0.5, 1, 1, 1, 1, 1, 0.5]) / 6 * 10_000).pvalue > 1e-3
    turned = V.Rotate(60, "bilinear")(ramp * 10)[:, 0]
    angle = torch.rad2deg(torch.asin((turned[:, 13, 10] - turned[:, 7, 10]) * 25.5 / 6))
    assert stats.kstest(angle.numpy(), stats.uniform(-60, 120).cdf).pvalue > 1e-3


@pytest.mark.parametrize("m", [0, 4, 9, 10, 17, 30])
def test_randaugments_operations_are_torchvisions(m):
    images = pictures(4, 24, 30)
    space = T.RandAugment(magnitude=m)._augmentation_space(31, (24, 30))
    acts = V.RandAugment(1, m).operations((24, 30))
    assert len(acts) == len(space)
    for act, (name, (strengths, signed)) in zip(acts, space.items(), strict=True):
        strength = float(strengths[m]) if strengths.ndim else 0.0
        for sign in (1.0, -1.0) if signed else (1.0,):
            got = act(V.to_float(images), torch.full((4,), sign))
            wanted = _apply_op(images, name, sign * strength, InterpolationMode.NEAREST, None)
            off = (got - wanted.float() / 255).abs() > 1.9 * LEVEL + EPS
            assert float(off.float().mean()) < 0.01, name  # ties of nearest neighbours


def test_randaugment_draws_torchvisions_operations_equally_often():
    torch.manual_seed(0)
    image = pictures(1, 18, 18) // 2 + 40  # room for autocontrast
    made = V.RandAugment(1, 12)(image.expand(10_000, 3, 18, 18))
    acts = V.RandAugment(1, 12).operations((18, 18))
    signed = range(1, 10)
    outcomes = [(act(V.to_float(image), torch.ones(1)), 0.5) for act in acts]
    outcomes = [(x, 0.5 if k in signed else 1.0) for k, (x, _) in enumerate(outcomes)]
    outcomes += [(acts[k](V.to_float(image), -torch.ones(1)), 0.5) for k in signed]
    same = torch.stack([(made - x).abs().amax((1, 2, 3)) < 1e-5 for x, _ in outcomes])
    assert (same.sum(0) == 1).all()
    wanted = np.array([share for _, share in outcomes]) / 14 * 10_000
    assert stats.chisquare(same.sum(1).numpy(), wanted).pvalue > 1e-3


def agree_with_torchvision(acts, wanted, numbers):
    """The acts at these numbers in [-1, 1] do what torchvision does by name and strength."""
    images = pictures(4, 32, 40)
    for act, (name, strength) in zip(acts, wanted, strict=True):
        got = act(V.to_float(images), torch.full((4,), numbers))
        made = _apply_op(images, name, strength, InterpolationMode.NEAREST, None)
        off = (got - made.float() / 255).abs() > 1.9 * LEVEL + EPS
        assert float(off.float().mean()) < 0.01, name  # ties of nearest neighbours


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize(
    ("level", "factor", "shear", "right", "down", "degrees", "threshold"),
    [(1, 0.109, 0.27, 10, 8, 41, 231), (7, 0.703, 0.09, 3, 2, 14, 77)],
)
def test_offset_operations_have_the_strengths_of_rucs_code(
    level, factor, shear, right, down, degrees, threshold, sign
):
    wanted = [
        ("Identity", 0), ("ShearX", sign * shear), ("ShearY", sign * shear),
        ("TranslateX", sign * right), ("TranslateY", sign * down), ("Rotate", sign * degrees),
        ("Brightness", factor - 1), ("Color", factor - 1), ("Contrast", factor - 1),
        ("Sharpness", factor - 1), ("Posterize", 8), ("Solarize", threshold),
        ("AutoContrast", 0), ("Equalize", 0),
    ]  # fmt: skip
    acts = V.RandAugment(2, 8, scale="offset").operations((32, 40), level)
    agree_with_torchvision(acts, wanted, sign)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize(
    ("level", "factor", "shear", "right", "down", "degrees", "bits", "threshold"),
    [
        (1, 0.28, 0.03, 1, 1, 3, 4, 231),
        (5, 1.0, 0.15, 6, 5, 15, 2, 128),
        (9, 1.72, 0.27, 11, 9, 27, 1, 26),
    ],
)
def test_levelled_operations_have_the_strengths_of_fixmatchs_code(
    level, factor, shear, right, down, degrees, bits, threshold, sign
):
    wanted = [
        ("Identity", 0), ("ShearX", sign * shear), ("ShearY", sign * shear),
        ("TranslateX", sign * right), ("TranslateY", sign * down), ("Rotate", sign * degrees),
        ("Brightness", factor - 1), ("Color", factor - 1), ("Contrast", factor - 1),
        ("Sharpness", factor - 1), ("Posterize", bits), ("Solarize", threshold),
        ("AutoContrast", 0), ("Equalize", 0),
    ]  # fmt: skip
    acts = V.RandAugment(2, 10, scale="levels").operations((32, 40), level)
    agree_with_torchvision(acts, wanted, sign)


def test_every_level_below_m_is_drawn_alike_and_half_of_the_operations_are_done():
    class Levels(V.RandAugment):
        def operations(self, side, level=None):
            return [lambda x, s: x] + 13 * [lambda x, s: x + float(level)]

    torch.manual_seed(0)
    found = Levels(1, 10, scale="levels", p=0.5)(torch.zeros(10_000, 3, 1, 1))[:, 0, 0, 0].long()
    counts = found.bincount(minlength=10)
    wanted = 10_000 * 13 / 14 / 2 / 9
    assert abs(counts[1:] - wanted).max() < 4.5 * wanted**0.5
    assert len(counts) == 10


def test_fixmatchs_views_move_by_an_eighth_and_cut_a_grey_square():
    x = V.to_float(pictures(200, 32, 32))
    torch.manual_seed(0)
    weak = V.shift_flip(32)(x)
    padded = torch.nn.functional.pad(x, (4,) * 4, mode="reflect")
    places = [
        torch.stack([p[..., i : i + 32, j : j + 32] for i in range(9) for j in range(9)], 1)
        for p in (padded, padded.flip(-1))
    ]  # each [B, 81, 3, H, W]
    same = (torch.cat(places, 1) == weak[:, None]).flatten(2).all(2)
    assert same.any(1).all()
    assert (same.any(0).view(2, 81).sum(1) > 40).all()
    hole = (V.strong(V.plain, 32, n=0)(x) == 0.5).all(1).sum((1, 2))
    assert 64 <= int(hole.min()) <= int(hole.max()) == 256
    assert torch.equal(V.strong(V.plain, 32, n=0, cutout=0)(x), x)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_drawn_operations_have_the_ranges_of_scans_code(share):
    both = 2 * share - 1
    factor = 0.05 + 0.9 * share
    wanted = [
        ("Identity", 0), ("ShearX", 0.1 * both), ("ShearY", 0.1 * both),
        ("TranslateX", 4 * both), ("TranslateY", 3.2 * both), ("Rotate", 30 * both),
        ("Brightness", factor - 1), ("Color", factor - 1), ("Contrast", factor - 1),
        ("Sharpness", factor - 1), ("Posterize", int(4 + 4 * share)), ("Solarize", 256 * share),
        ("AutoContrast", 0), ("Equalize", 0),
    ]  # fmt: skip
    acts = V.RandAugment(4, scale="drawn").operations((32, 40))
    moved = ("TranslateX", "TranslateY")  # torchvision's are whole pixels
    kept = [k for k, (name, _) in enumerate(wanted) if name not in moved]
    agree_with_torchvision([acts[k] for k in kept], [wanted[k] for k in kept], both)
    for k, right, down in ((3, 4 * both, 0.0), (4, 0.0, 3.2 * both)):
        x = V.to_float(pictures(1, 32, 40))
        same = V.affine(x, V.translate(torch.tensor([right]), torch.tensor([down]), 1))
        close(acts[k](x, torch.tensor([both])), same)


class Marked(V.RandAugment):
    """Each operation but the first, which does nothing, leaves a bit of its own."""

    def operations(self, side, level=None):
        return [lambda x, s, k=k: x + 2.0**k * (k > 0) for k in range(14)]


@pytest.mark.parametrize("p", [1.0, 0.5])
def test_distinct_operations_are_drawn_once_and_each_done_with_its_chance(p):
    torch.manual_seed(0)
    images = torch.zeros(10_000, 3, 1, 1)
    marks = Marked(2, p=p, distinct=True)(images)[:, 0, 0, 0].long()
    bits = (marks[:, None] >> torch.arange(14)) & 1  # [B, 14]
    assert torch.equal(bits @ 2 ** torch.arange(14), marks)  # nothing was done twice
    wanted = np.full(13, 2 / 14 * p * 10_000)
    counts = bits[:, 1:].sum(0).numpy()
    assert abs(counts - wanted).max() < 4.5 * np.sqrt(wanted.max())
    pairs = (bits.sum(1) == 2).float().mean()
    assert float(pairs) == pytest.approx(p**2 * 12 / 14, abs=0.02)
    every = Marked(14, distinct=True)(images[:5])[:, 0, 0, 0]
    assert (every == 2**14 - 2).all()


# ---- composition ---------------------------------------------------------------------------


def test_views_are_independent_and_come_as_a_list():
    torch.manual_seed(0)
    a, b = V.Views(V.crop_flip(16), 2)(pictures())
    assert a.shape == b.shape == (6, 3, 16, 16)
    assert not torch.equal(a, b)
    made = V.Views((V.crop_flip(16), V.plain))(pictures())
    assert [len(x[0, 0]) for x in made] == [16, 32]


def test_multi_crop_gives_every_crop_in_turn():
    view = V.MultiCrop(((V.contrastive(32), 2), (V.crop_flip(12, (0.05, 0.14)), 6)))
    made = view(pictures())
    assert [x.shape[-1] for x in made] == [32] * 2 + [12] * 6
    assert len({x.sum().item() for x in made}) == 8
    assert eval(repr(view), vars(V)) == view


def test_a_chain_is_its_parts_in_order():
    torch.manual_seed(0)
    made = V.Chain(V.RandomResizedCrop(16), V.Grayscale())(pictures())
    torch.manual_seed(0)
    assert torch.equal(made, V.grayscale(V.RandomResizedCrop(16)(pictures())))


def test_the_ready_made_views_leave_out_what_has_no_chance():
    assert V.contrastive(32) == V.Chain(
        V.RandomResizedCrop(32, (0.08, 1.0), flip=0.5),
        V.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        V.Grayscale(0.2),
        V.GaussianBlur(3, p=0.5),
    )
    assert len(V.contrastive(32, blur=0, grey=0, jitter_p=0, solarise=0.2).ops) == 2
    assert len(V.contrastive(16).ops) == 3  # a tenth of the side is less than a pixel each way
    assert [V.blur_kernel(side) for side in (28, 32, 96, 224)] == [3, 3, 9, 23]
    assert V.shift_flip(32) == V.Chain(V.HorizontalFlip(0.5), V.PadCrop(4, "reflect"))
    assert V.shift_flip(8, 1.0, 0.0) == V.Chain(V.HorizontalFlip(0.0), V.PadCrop(7, "reflect"))


def test_any_torchvision_transform_runs_image_by_image():
    transform = T.Compose([T.RandomResizedCrop(16), T.RandomHorizontalFlip(), T.ToTensor()])
    images = pictures()
    torch.manual_seed(0)
    made = V.PerImage(transform)(images)
    torch.manual_seed(0)
    torch.randint(2**31, ())  # what seeds `random` and numpy
    close(made, torch.stack([transform(TF.to_pil_image(x)) for x in images]))
    close(V.PerImage(T.CenterCrop(8))(V.to_float(images)), TF.center_crop(images, 8))
    close(V.PerImage(T.Grayscale())(images), TF.rgb_to_grayscale(images, 3), LEVEL + EPS)
    tensors = V.PerImage(T.RandomHorizontalFlip(1.0), pil=False)(images)
    close(tensors, images.flip(-1))


def test_a_transform_of_several_views_gives_a_list():
    made = V.PerImage(lambda x: [x.resize((8, 8)), x.resize((4, 6))])(pictures())
    assert [tuple(x.shape) for x in made] == [(6, 3, 8, 8), (6, 3, 6, 4)]


def test_transforms_that_draw_from_python_or_numpy_follow_torchs_seed():
    def rotated(image: Image.Image) -> Image.Image:
        return image.rotate(random.uniform(-90, 90) + np.random.uniform(-9, 9))

    view = V.PerImage(rotated)
    random.seed(5)
    state = random.getstate()
    torch.manual_seed(0)
    first = view(pictures())
    torch.manual_seed(0)
    assert torch.equal(view(pictures()), first)
    assert not torch.equal(view(pictures()), first)
    assert random.getstate() == state
    assert " at 0x" not in repr(view)
    assert "rotated" in repr(view)


def test_a_transform_that_makes_images_of_several_sizes_is_refused():
    sizes = iter([(4, 4), (5, 5)])
    with pytest.raises(ValueError, match="images of one size"):
        V.PerImage(lambda x: x.resize(next(sizes)))(pictures(2))


@pytest.mark.parametrize(
    ("size", "asked", "patch", "expected"),
    [
        (224, 0, 1, 96),
        (224, 0, 16, 96),
        (32, 0, 1, 14),
        (32, 0, 8, 16),
        (32, 20, 1, 20),
        (4, 0, 4, 4),
    ],
)
def test_small_crops_are_three_sevenths_of_the_image_in_whole_patches(size, asked, patch, expected):
    assert V.small_side(size, asked, patch=patch) == expected


def test_small_crops_larger_than_the_image_are_refused():
    with pytest.raises(
        ValueError, match="small crops of 33 pixels are larger than the images of 32"
    ):
        V.small_side(32, 33)


def test_the_two_views_of_byol_are_not_drawn_alike():
    first, second = V.asymmetric(32, jitter=0.5, solarise=(0.0, 1.0)).view
    jitter = V.ColorJitter(0.2, 0.2, 0.1, 0.05, p=0.8)
    assert first.ops[1] == second.ops[1] == jitter
    assert [op.p for op in first.ops if isinstance(op, V.GaussianBlur)] == [1.0]
    assert [op.p for op in second.ops if isinstance(op, V.GaussianBlur)] == [0.1]
    assert [op.p for op in second.ops if isinstance(op, V.Solarize)] == [1.0]
    assert not any(isinstance(op, V.Solarize) for op in first.ops)
    assert [v.shape for v in V.asymmetric(32)(pictures())] == [(6, 3, 32, 32)] * 2
