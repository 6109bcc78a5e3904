"""What a judge predicted for each image: one small compressed file beside its record.

The file is an .npz that numpy.load reads, with two arrays of one integer a labelled image, in the
order of the split: `predicted` and `truth`. The record has the digest of what is in them. Others'
files are read too, so that nothing in one is believed: sizes, types and names are checked first.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..disk import opened

if TYPE_CHECKING:
    import numpy as np

    from ..api import Predictions

IMAGES = 2**21  # at most
CLASSES = 2**31  # at most, for the digest is of int32
LARGEST = 2**25  # bytes of a file; so many images take half of it uncompressed
HEADER = 2**7  # bytes before the numbers of an array
ARRAY = re.compile(
    rb"\x93NUMPY\x01\x00v\x00"
    rb"\{'descr': '(\|u1|<u2|<u4)', 'fortran_order': False, 'shape': \((\d{1,7}),\), \} *\n"
)


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

    def confusion(self) -> np.ndarray:
        """How many images of each class were taken for which: int64 [K, K], a row for each truth."""
        import numpy as np

        classes = int(max(self.truth.max(initial=-1), self.predicted.max(initial=-1))) + 1
        found = np.zeros((classes, classes), dtype="<i8")
        np.add.at(found, (self.truth, self.predicted), 1)
        return found


def answers(predictions: Predictions) -> Answers:
    """ValueError where it is not one class for each truth."""
    found = Answers(*(part.cpu().numpy() for part in (predictions.predicted, predictions.truth)))
    _check(found)
    return Answers(*(part.astype("<i8") for part in found))


def _check(found: Answers) -> None:
    predicted, truth = found
    if predicted.ndim != 1 or predicted.shape != truth.shape:
        raise ValueError(
            f"predictions of shape {predicted.shape} came with labels of shape {truth.shape}; an "
            "evaluator gives one class for each labelled image"
        )
    for name, part in found._asdict().items():
        low, high = part.min(initial=0), part.max(initial=0)
        if part.dtype.kind not in "iu" or low < 0 or high >= CLASSES:
            raise ValueError(
                f"`{name}` has {part.dtype} from {low} to {high}; classes are whole numbers from 0"
            )
    if len(truth) > IMAGES:
        raise ValueError(
            f"predictions of {len(truth):,} images cannot be kept, only of {IMAGES:,}; "
            "--no-predictions judges without keeping any"
        )


def packed(found: Answers) -> bytes:
    """The content of the file, in the smallest integers that hold it."""
    import numpy as np

    def small(array: np.ndarray) -> np.ndarray:
        return array.astype(np.min_scalar_type(int(array.max(initial=0))))

    file = io.BytesIO()
    np.savez_compressed(file, predicted=small(found.predicted), truth=small(found.truth))
    return file.getvalue()


def read_predictions(path: Path, digest: str) -> Answers:
    """The answers in a file. ValueError where it is not one, or not that of the record."""
    with opened(path) as held:
        given = held.read(LARGEST + 1)
    if len(given) > LARGEST:
        raise ValueError(f"it has over {LARGEST:,} bytes, more than any predictions")
    try:
        with zipfile.ZipFile(io.BytesIO(given)) as file:
            if file.namelist() != [f"{name}.npy" for name in Answers._fields]:
                raise ValueError(f"its arrays are not {' and '.join(Answers._fields)}")
            found = Answers(*(_array(file, info) for info in file.infolist()))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"not a file of predictions: {error}") from error
    _check(found)
    if found.digest() != digest:
        raise ValueError("it holds other predictions than its record's")
    return found


def _array(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array [N], read as plain numbers: its header is never evaluated."""
    import numpy as np

    if info.file_size > HEADER + 4 * IMAGES:
        raise ValueError(f"{info.filename} claims {info.file_size:,} bytes")
    content = file.read(info)
    head = ARRAY.match(content)
    if head is None or head.end() != HEADER:
        raise ValueError(f"{info.filename} is not an array of small whole numbers")
    array = np.frombuffer(content, head[1].decode(), offset=HEADER)
    if len(array) != int(head[2]):
        raise ValueError(f"{info.filename} has {len(array)} numbers, and says {int(head[2])}")
    return array.astype("<i8")
