"""What a judge predicted for each image: one small compressed file beside its record.

The file is an .npz that numpy.load reads, with two arrays of one integer a labelled image, in the
order of the split: `predicted` and `truth`. The record has the digest of what is in them.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from ..api import Predictions


class Answers(NamedTuple):
    """Predicted and true classes of the images that were scored, int64 [N]."""

    predicted: np.ndarray
    truth: np.ndarray

    def digest(self) -> str:
        """sha256 of the content, whatever the compression: both arrays as little-endian int32."""
        total = hashlib.sha256()
        for array in self:
            total.update(array.astype("<i4").tobytes())
        return total.hexdigest()


def answers(predictions: Predictions) -> Answers:
    """ValueError where there is not one prediction for each truth."""
    predicted, truth = (
        part.cpu().numpy().astype("<i8") for part in (predictions.predicted, predictions.truth)
    )
    if predicted.ndim != 1 or predicted.shape != truth.shape:
        raise ValueError(
            f"predictions of shape {predicted.shape} came with labels of shape {truth.shape}; an "
            "evaluator gives one class for each labelled image"
        )
    return Answers(predicted, truth)


def packed(found: Answers) -> bytes:
    """The content of the file, in the smallest integers that hold it."""
    import numpy as np

    def small(array: np.ndarray) -> np.ndarray:
        return array.astype(np.min_scalar_type(int(array.max(initial=0))))

    file = io.BytesIO()
    np.savez_compressed(file, predicted=small(found.predicted), truth=small(found.truth))
    return file.getvalue()


def unpacked(content: bytes, digest: str) -> Answers:
    """The answers in a file. ValueError where it is not one, or not that of the record."""
    import numpy as np

    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            found = Answers(*(file[name].astype("<i8") for name in Answers._fields))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"not a file of predictions: {error}") from error
    if found.digest() != digest:
        raise ValueError("it holds other predictions than its record's")
    return found
