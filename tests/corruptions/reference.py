"""The published corruptions, one image at a time, in NumPy, SciPy, scikit-image, OpenCV and PIL.

Parameters and algorithms are those of the script that made CIFAR-10-C; nothing here is shared with
the package. A function takes a picture, uint8 [H, W, 3], the parameters of a severity and what
is drawn, and returns floats in [0, 255], or bytes, not truncated.
"""

from __future__ import annotations

import math
from io import BytesIO

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage, stats
from skimage import color, filters, util

PARAMETERS = {
    "gaussian_noise": [0.04, 0.06, 0.08, 0.09, 0.10],
    "shot_noise": [500, 250, 100, 75, 50],
    "impulse_noise": [0.01, 0.02, 0.03, 0.05, 0.07],
    "defocus_blur": [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
    "glass_blur": [(0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2)],
    "motion_blur": [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
    "zoom_blur": [1.06, 1.11, 1.16, 1.21, 1.26],
    "snow": [
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ],
    "frost": [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
    "fog": [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
    "brightness": [0.05, 0.1, 0.15, 0.2, 0.3],
    "contrast": [0.75, 0.5, 0.4, 0.3, 0.15],
    "elastic_transform": [
        (32 * 0, 32 * 0, 32 * 0.08),
        (32 * 0.05, 32 * 0.2, 32 * 0.07),
        (32 * 0.08, 32 * 0.06, 32 * 0.06),
        (32 * 0.1, 32 * 0.04, 32 * 0.05),
        (32 * 0.1, 32 * 0.03, 32 * 0.03),
    ],
    "pixelate": [0.95, 0.9, 0.85, 0.75, 0.65],
    "jpeg_compression": [80, 65, 58, 50, 40],
    "speckle_noise": [0.06, 0.1, 0.12, 0.16, 0.2],
    "gaussian_blur": [0.4, 0.6, 0.7, 0.8, 1],
    "spatter": [
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ],
    "saturate": [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
}


def gaussian_noise(x, sigma, normal):
    return np.clip(x / 255.0 + sigma * normal, 0, 1) * 255


def shot_noise(x, photons, uniform):
    return np.clip(stats.poisson.ppf(uniform, x / 255.0 * photons) / photons, 0, 1) * 255


def impulse_noise(x, amount, uniform):
    out = x.copy()
    out[uniform < amount] = 0
    out[uniform < amount / 2] = 255
    return out


def speckle_noise(x, sigma, normal):
    x = x / 255.0
    return np.clip(x + x * (sigma * normal), 0, 1) * 255


def gaussian_blur(x, sigma):
    return np.clip(filters.gaussian(x / 255.0, sigma=sigma, channel_axis=-1), 0, 1) * 255


def defocus_blur(x, levels):
    radius, softness = levels
    across, down = np.meshgrid(np.arange(-8, 9), np.arange(-8, 9))
    disk = np.array(across**2 + down**2 <= radius**2, dtype=np.float32)
    disk = cv2.GaussianBlur(disk / disk.sum(), ksize=(3, 3), sigmaX=softness)
    channels = [cv2.filter2D(np.ascontiguousarray(x[..., c] / 255.0), -1, disk) for c in range(3)]
    return np.clip(np.stack(channels, -1), 0, 1) * 255


def glass_blur(x, levels, up, left):
    """`up`, `left`: [rounds, H, W] of 0 and 1."""
    sigma, rounds = levels
    x = np.uint8(filters.gaussian(x / 255.0, sigma=sigma, channel_axis=-1) * 255)
    for turn in range(rounds):
        for h in range(x.shape[0] - 1, 1, -1):
            for w in range(x.shape[1] - 1, 1, -1):
                there = h - up[turn, h, w], w - left[turn, h, w]
                x[h, w], x[there] = x[there], x[h, w]  # of views: the second copies back
    return np.clip(filters.gaussian(x / 255.0, sigma=sigma, channel_axis=-1), 0, 1) * 255


def motion(x, radius, sigma, degrees):
    """ImageMagick's, on [H, W, ...] bytes; returns bytes."""
    kernel = np.array([math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)])
    kernel /= kernel.sum()
    y, x_place = np.mgrid[: x.shape[0], : x.shape[1]]
    out = np.zeros(x.shape)
    for i, weight in enumerate(kernel):
        right = math.ceil(i * math.cos(math.radians(degrees)) - 0.5)
        down = math.ceil(i * math.sin(math.radians(degrees)) - 0.5)
        rows = np.minimum(np.maximum(y + down, 0), x.shape[0] - 1)
        columns = np.minimum(np.maximum(x_place + right, 0), x.shape[1] - 1)
        out += weight * x[rows, columns]
    return np.floor(out + 1e-9).astype(np.uint8)


def motion_blur(x, levels, degrees):
    return motion(x, *levels, degrees)


def clipped_zoom(x, zoom):
    side = x.shape[0]
    crop = int(np.ceil(side / zoom))
    top = (side - crop) // 2
    x = ndimage.zoom(x[top : top + crop, top : top + crop], (zoom, zoom, 1), order=1)
    trim = (x.shape[0] - side) // 2
    return x[trim : trim + side, trim : trim + side]


def zoom_blur(x, end):
    x = (x / 255.0).astype(np.float32)
    zooms = np.arange(1, end, 0.01)
    out = np.zeros_like(x)
    for zoom in zooms:
        out += clipped_zoom(x, zoom)
    return np.clip((x + out) / (len(zooms) + 1), 0, 1) * 255


def snow(x, levels, normal, degrees):
    mean, sigma, zoom, threshold, radius, streak, mix = levels
    x = x.astype(np.float32) / 255
    layer = clipped_zoom((mean + sigma * normal)[..., None], zoom)
    layer[layer < threshold] = 0
    layer = (np.clip(layer.squeeze(), 0, 1) * 255).astype(np.uint8)
    layer = (motion(layer, radius, streak, degrees) / 255.0)[..., None]
    grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None]
    x = mix * x + (1 - mix) * np.maximum(x, grey * 1.5 + 0.5)
    return np.clip(x + layer + np.rot90(layer, k=2), 0, 1) * 255


def frost(x, levels, texture, top, left):
    """`texture`: uint8 [h, w, 3]."""
    ice = texture[top : top + x.shape[0], left : left + x.shape[1]]
    return np.clip(levels[0] * x.astype(float) + levels[1] * ice, 0, 255)


def plasma(side, decay, numbers):
    """Point by point, each with the next of `numbers` in [0, 1]."""
    field = np.zeros((side, side))
    numbers = iter(numbers)
    step, wibble = side, 100.0

    def settle(rows, columns, neighbours):
        new = {}
        for y in rows:
            for x in columns:
                near = [field[(y + i) % side, (x + j) % side] for i, j in neighbours]
                swing = -wibble + 2 * wibble * next(numbers)
                new[y, x] = sum(near) / 4 + wibble * swing
        for place, value in new.items():
            field[place] = value

    while step >= 2:
        half = step // 2
        even, odd = range(0, side, step), range(half, side, step)
        settle(odd, odd, [(i * half, j * half) for i in (-1, 1) for j in (-1, 1)])
        cross = [(half, 0), (-half, 0), (0, half), (0, -half)]
        settle(even, odd, cross)
        settle(odd, even, cross)
        step, wibble = half, wibble / decay
    field -= field.min()
    return field / field.max()


def fog(x, levels, numbers):
    side = 2 ** math.ceil(math.log2(max(x.shape[:2])))
    cloud = plasma(side, levels[1], numbers)[: x.shape[0], : x.shape[1], None]
    x = x / 255.0
    most = x.max()
    return np.clip((x + levels[0] * cloud) * most / (most + levels[0]), 0, 1) * 255


def brightness(x, more):
    hsv = color.rgb2hsv(x / 255.0)
    hsv[..., 2] = np.clip(hsv[..., 2] + more, 0, 1)
    return np.clip(color.hsv2rgb(hsv), 0, 1) * 255


def saturate(x, levels):
    hsv = color.rgb2hsv(x / 255.0)
    hsv[..., 1] = np.clip(hsv[..., 1] * levels[0] + levels[1], 0, 1)
    return np.clip(color.hsv2rgb(hsv), 0, 1) * 255


def contrast(x, share):
    x = x / 255.0
    mean = x.mean((0, 1), keepdims=True)
    return np.clip((x - mean) * share + mean, 0, 1) * 255


def elastic_transform(x, levels, points, across, down):
    """`points` [3, 2] and the two fields [H, W], all in [-1, 1]."""
    alpha, sigma, jitter = levels
    x = x.astype(np.float32) / 255
    middle = np.float32(x.shape[:2]) // 2
    square = min(x.shape[:2]) // 3
    before = np.float32(
        [middle + square, [middle[0] + square, middle[1] - square], middle - square]
    )
    matrix = cv2.getAffineTransform(before, before + (jitter * points).astype(np.float32))
    x = cv2.warpAffine(x, matrix, x.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101)
    if sigma:
        across, down = (
            filters.gaussian(field, sigma, mode="reflect", truncate=3) for field in (across, down)
        )
    rows, columns = np.mgrid[: x.shape[0], : x.shape[1]]
    places = [rows + alpha * down, columns + alpha * across]
    channels = [
        ndimage.map_coordinates(x[..., c], places, order=1, mode="reflect") for c in range(3)
    ]
    return np.clip(np.stack(channels, -1), 0, 1) * 255


def pixelate(x, share):
    side = x.shape[0]
    small = Image.fromarray(x).resize((int(side * share),) * 2, Image.Resampling.BOX)
    return np.asarray(small.resize((side, side), Image.Resampling.BOX))


def jpeg_compression(x, quality):
    buffer = BytesIO()
    Image.fromarray(x).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def spatter(x, levels, normal):
    mean, sigma, softness, threshold, strength, muddy = levels
    x = x.astype(np.float32) / 255
    layer = filters.gaussian(mean + sigma * normal, sigma=softness)
    layer[layer < threshold] = 0
    if muddy:
        m = np.where(layer > threshold, 1, 0).astype(np.float32)
        m = filters.gaussian(m, sigma=strength)
        m[m < 0.8] = 0
        m = m[..., None]
        return np.clip(x * (1 - m) + m * np.array([63, 42, 20]) / 255, 0, 1) * 255
    layer = (layer * 255).astype(np.uint8)
    m = layer * relief(layer).astype(np.float32)
    if m.max() == 0:
        return x * 255.0
    m = (m / m.max() * strength)[..., None]
    return np.clip(x + m * np.array([175, 238, 238]) / 255, 0, 1) * 255


def relief(layer):
    """By OpenCV, uint8 [H, W]."""
    distance = cv2.distanceTransform(255 - cv2.Canny(layer, 50, 150), cv2.DIST_L2, 5)
    _, distance = cv2.threshold(distance, 20, 20, cv2.THRESH_TRUNC)
    distance = cv2.equalizeHist(cv2.blur(distance, (3, 3)).astype(np.uint8))
    kernel = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], dtype=np.float32)
    return cv2.blur(cv2.filter2D(distance, cv2.CV_8U, kernel), (3, 3))


def salt_and_pepper(x, amount, rng):
    """scikit-image's own, which draws for itself."""
    return util.random_noise(x / 255.0, mode="s&p", amount=amount, rng=rng) * 255


RENDER = {name: globals()[name] for name in PARAMETERS}
