"""Types of hyperparameters, of views, and of what a method may see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NewType

from annotated_types import Ge, Gt, Le
from torch import Tensor

# uint8 [B, 3, H, W] on the device -> float tensor(s) in [0, 1], [B, ...]; masks of patches beside
# them are bool, positions of patches int64
View = Callable[[Tensor], Any]
Pretext = NewType("Pretext", str)  # a hyperparameter that names another method
Weights = NewType("Weights", str)  # a hyperparameter that is the sha256 of weights from outside
Labels = Literal["none", "budget", "all"]

# Types of hyperparameters that state a range; values outside it are refused before anything runs.
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]
# strengths of colour jitter: brightness, contrast, saturation, hue
Strengths = tuple[NonNegative, NonNegative, NonNegative, NonNegative]
