"""Building blocks that three or more methods share."""

from .averages import copy_frozen, cosine, ema, risen, warm
from .heads import PooledMaps, decoder, mlp
from .inputs import Standardise, by_size, check_side, deepest, sincos, taken
from .labels import mixup, semi_supervised, sharpen
from .losses import full_precision, normalised, sinkhorn
from .norms import BATCH_NORM, in_parts, replace_batch_norms, unrecorded

__all__ = [
    "BATCH_NORM",
    "PooledMaps",
    "Standardise",
    "by_size",
    "check_side",
    "copy_frozen",
    "cosine",
    "decoder",
    "deepest",
    "ema",
    "full_precision",
    "in_parts",
    "mixup",
    "mlp",
    "normalised",
    "replace_batch_norms",
    "risen",
    "semi_supervised",
    "sharpen",
    "sincos",
    "sinkhorn",
    "taken",
    "unrecorded",
    "warm",
]
