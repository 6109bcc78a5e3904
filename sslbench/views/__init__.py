"""Batched augmentations: uint8 [B, 3, H, W] on the device -> float32 in [0, 1].

A view is a small frozen dataclass with `__call__`; every image draws its own random numbers. Beside
it a function applies the operation with given numbers (`resample`, `adjust_hue` ...). Between
operations images stay float, where PIL rounds to 8 bits after each.

Numbers are drawn on the host, alike for every device. On a GPU the steps of a chain then run in fixed
shapes (`phases`); `compiled` and `captured` make one program of them. Masks of patches come beside the
images of a view (`Masked`).
"""

from .affine import Rotate, ShearX, ShearY, Translate, affine, rotate, shear_x, shear_y, translate
from .batch import ToFloat, plain, to_bytes, to_float
from .colour import (
    AutoContrast,
    ColorJitter,
    Equalize,
    Grayscale,
    Posterize,
    Solarize,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    autocontrast,
    equalize,
    grayscale,
    posterize,
    solarize,
)
from .compose import (
    Chain,
    MultiCrop,
    PerImage,
    Views,
    asymmetric,
    blur_kernel,
    contrastive,
    crop_flip,
    shift_flip,
    small_side,
    strong,
)
from .crops import (
    CenterCrop,
    Cutout,
    HorizontalFlip,
    PadCrop,
    RandomResizedCrop,
    Resize,
    crop_boxes,
    cut,
    shift_crop,
)
from .filters import GaussianBlur, Sharpness, Sobel, adjust_sharpness, blur
from .graphs import captured, compiled
from .jitter import jitter
from .lab import distances, from_lab, gamut, lightness, quantised, signed_lightness, to_lab
from .masks import Blockwise, ContextAndTargets, Masked, RandomOrder, boxes
from .orders import far_apart
from .randaugment import RandAugment
from .resample import resample
from .tiles import Coarsen, DropChannels, ShiftChannels, Tiles, coarsened, tile_side, windows

__all__ = [
    "AutoContrast",
    "Blockwise",
    "CenterCrop",
    "Chain",
    "Coarsen",
    "ColorJitter",
    "ContextAndTargets",
    "Cutout",
    "DropChannels",
    "Equalize",
    "GaussianBlur",
    "Grayscale",
    "HorizontalFlip",
    "Masked",
    "MultiCrop",
    "PadCrop",
    "PerImage",
    "Posterize",
    "RandAugment",
    "RandomOrder",
    "RandomResizedCrop",
    "Resize",
    "Rotate",
    "Sharpness",
    "ShearX",
    "ShearY",
    "ShiftChannels",
    "Sobel",
    "Solarize",
    "Tiles",
    "ToFloat",
    "Translate",
    "Views",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "adjust_sharpness",
    "affine",
    "asymmetric",
    "autocontrast",
    "blur",
    "blur_kernel",
    "boxes",
    "captured",
    "coarsened",
    "compiled",
    "contrastive",
    "crop_boxes",
    "crop_flip",
    "cut",
    "distances",
    "equalize",
    "far_apart",
    "from_lab",
    "gamut",
    "grayscale",
    "jitter",
    "lightness",
    "plain",
    "posterize",
    "quantised",
    "resample",
    "rotate",
    "shear_x",
    "shear_y",
    "shift_crop",
    "shift_flip",
    "signed_lightness",
    "small_side",
    "solarize",
    "strong",
    "tile_side",
    "to_bytes",
    "to_float",
    "to_lab",
    "translate",
    "windows",
]
