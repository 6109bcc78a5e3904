"""Building blocks that three or more methods share."""

from .averages import copy_frozen, cosine, ema, follow, risen, warm
from .distillation import PrototypeHead, distilled, stepped, without_drop_path
from .domains import by_domain, of_one_domain, reversed_gradient
from .heads import PooledMaps, decoder, mlp
from .inputs import Standardise, by_size, check_side, deepest, sincos, taken
from .labels import (
    aligned,
    balanced,
    interleaved,
    labelled,
    mixup,
    one_class,
    semi_supervised,
    sharpen,
    weighed_entropy,
)
from .losses import full_precision, normalised, sinkhorn
from .norms import BATCH_NORM, in_parts, replace_batch_norms, unrecorded

__all__ = [
    "BATCH_NORM",
    "PooledMaps",
    "PrototypeHead",
    "Standardise",
    "aligned",
    "balanced",
    "by_domain",
    "by_size",
    "check_side",
    "copy_frozen",
    "cosine",
    "decoder",
    "deepest",
    "distilled",
    "ema",
    "follow",
    "full_precision",
    "in_parts",
    "interleaved",
    "labelled",
    "mixup",
    "mlp",
    "normalised",
    "of_one_domain",
    "one_class",
    "replace_batch_norms",
    "reversed_gradient",
    "risen",
    "semi_supervised",
    "sharpen",
    "sincos",
    "sinkhorn",
    "stepped",
    "taken",
    "unrecorded",
    "warm",
    "weighed_entropy",
    "without_drop_path",
]
