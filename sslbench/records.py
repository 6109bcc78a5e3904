"""The schema of records. A record is immutable JSON about one training or one evaluation of a cell.

It says what was measured, or how it failed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

SCHEMA = "1.0"  # a reader refuses newer ones
ADDED = (
    "health",
    "labels",
    "predictions",
    "sheet",
    "weights",
)  # fields that older records lack: an empty one is left out of the hash
HEALTH = (  # codes of the warnings that judge a fit
    "collapsed",
    "collapsed-embedding",
    "low-rank",
    "low-rank-embedding",
    "not-finite",
    "loss-at-chance",
    "empty-clusters",
    "large-cluster",
    "early-queue",
    "stale-queue",
    "repeated-queue",
    "no-gradient",
    "dead-target",
)
Status = Literal["ok", "failed", "timeout", "skipped", "interrupted"]


class NewerSchema(ValueError):
    """The record was written by a later sslbench."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


POINTS = 10_000  # of a curve; a record of more could not be sent around
LARGEST = 1e150  # of a measurement: the squares of some, added up, can be written too


def _measurable(value: float) -> float:
    if abs(value) > LARGEST:
        raise ValueError(f"{value:g} is larger than any measurement")
    return value


Number = Annotated[float, AfterValidator(_measurable)]


class MetricValue(_Part):
    name: str
    value: Number  # a fraction, or in `unit`, at full precision
    higher_is_better: bool = True
    split: str = "test"
    n: int | None = None
    stderr: Number | None = None  # over items
    unit: str = ""  # "": a fraction

    @model_serializer(mode="wrap")
    def _without_default_unit(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out an empty unit, as older records did, so that their hashes still match."""
        plain: dict[str, Any] = handler(self)
        if not self.unit:
            plain.pop("unit", None)
        return plain


class Shown(_Part):
    """The labels that a method of few labels was shown."""

    count: int
    digest: str  # sha256 of the rows of train


class Stage(_Part):
    name: str
    seconds: Number
    images_seen: int
    reused: bool = False  # this cell loaded it and did not train it


class Costs(_Part):
    """What a cell cost, with every stage and pretext, loaded or not."""

    seconds: Number
    images_seen: int = 0
    images_per_second: Number | None = None
    parameters: int | None = None  # of the encoder
    flops: Number | None = None  # of the encoder, one image forward
    peak_memory_bytes: int | None = None
    stages: tuple[Stage, ...] = ()


class Warned(_Part):
    code: str
    message: str


class Failure(_Part):
    kind: str  # oom nan killed other
    type: str
    message: str
    traceback: str = ""
    stage: str | None = None
    epoch: int | None = None
    step: int | None = None


class Record(_Part):
    schema_version: str = SCHEMA
    record_id: str = ""
    kind: Literal["train", "evaluation"]
    cell_id: str
    identity: dict[str, Any]
    status: Status
    sentence: str = ""  # why skipped or failed, for the table
    method: str
    backbone: str
    dataset: str
    seed: int
    evaluator: str | None = None
    protocol: str | None = None
    suite: str = ""  # under which it was made
    metrics: tuple[MetricValue, ...] = ()
    chosen: dict[str, Any] = Field(default_factory=dict)
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    components: dict[str, dict[str, Any]] = Field(default_factory=dict)
    labels: Shown | None = None
    costs: Costs | None = None
    curves: dict[str, list[tuple[float, float]]] = Field(default_factory=dict)
    health: dict[str, float] = Field(
        default_factory=dict
    )  # what was measured of the trained network, by name
    environment: dict[str, Any] = Field(default_factory=dict)
    warnings: tuple[Warned, ...] = ()
    error: Failure | None = None
    weights: dict[str, str] = Field(
        default_factory=dict
    )  # digests of the tensors that were saved of a training, by the file's name
    predictions: str = ""  # digest of what was predicted for each image, in the file beside
    sheet: str = ""  # sha256 of the PNG beside, which shows what was judged
    attempt: int = 1
    started: str = ""
    finished: str = ""

    def metric(self, name: str | None = None) -> MetricValue | None:
        """The metric of this name, or the first one, which ranks."""
        for each in self.metrics:
            if name is None or each.name == name:
                return each
        return None

    def sealed(self) -> Record:
        """The same record with its id: the sha256 of everything else."""
        return self.model_copy(update={"record_id": self._digest()})

    def intact(self) -> bool:
        return self.record_id == self._digest()

    def _digest(self) -> str:
        return digest(self._plain(exclude={"record_id"}))

    def _plain(self, exclude: set[str] | None = None) -> dict[str, Any]:
        late = {name for name in ADDED if not getattr(self, name)}
        return self.model_dump(mode="json", exclude=late | (exclude or set()))

    def dumps(self) -> str:
        return json.dumps(self._plain(), indent=1, sort_keys=True, allow_nan=False)


def canonical(plain: Any) -> str:
    """Writes canonical JSON: sorted keys, no spaces, no NaN."""
    return _CANONICAL.encode(plain)


_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
)


def digest(plain: Any) -> str:
    return hashlib.sha256(canonical(plain).encode("utf-8", "backslashreplace")).hexdigest()


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields path, old and new value of each leaf in which two trees of plain data differ.

    A value is None where its tree lacks the leaf.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            below = f"{path}.{key}" if path else str(key)
            yield from differences(old.get(key), new.get(key), below)
    elif canonical(old) != canonical(new):
        yield path, old, new


def loads(text: str) -> Record:
    """Parses and checks a record. NewerSchema, or ValueError when it is damaged."""
    try:
        plain = _READER.decode(text)
        version = str(plain["schema_version"])
        newer = _numbers(version) > _numbers(SCHEMA)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a record: {_missing(error)}") from error
    if newer:
        raise NewerSchema(
            f"written with schema {version}, this sslbench reads {SCHEMA}; upgrade sslbench"
        )
    try:
        record = _validated(text, plain)
    except ValidationError as error:
        raise ValueError(f"not a record: {wrong_field(error)}") from error
    # what was read is what was hashed: an older record lacks the same fields in both
    if plain.pop("record_id", None) != digest(plain):
        raise ValueError("its content does not match its record_id")
    return record


def _validated(text: str, plain: Any) -> Record:
    try:
        # strict in JSON's way: Python's lists are not tuples
        return Record.model_validate_json(text, strict=True)
    except ValidationError as error:
        if error.errors()[0]["type"] != "json_invalid":
            raise
        return Record.model_validate(plain)  # half a surrogate pair, which a message may have


def _no_number(text: str) -> float:
    raise ValueError(f"it has {text} where a number belongs")


_READER = json.JSONDecoder(parse_constant=_no_number)  # made once: there may be 100,000 records


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _missing(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)


class Document(BaseModel):
    """What a JSON file of ours must hold; a subclass names the fields. More may be there."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    format: int  # raised when what is in it changes
    sslbench: str = ""  # the version that wrote it, where it says so


DocumentT = TypeVar("DocumentT", bound=Document)


def parsed(kind: type[DocumentT], text: str | bytes, *, newest: int) -> DocumentT:
    """The document in a JSON text.

    Raises:
        NewerSchema: its format is above `newest`.
        ValueError: a field is wrong, or lacking; the sentence names it.
    """
    try:
        head = Document.model_validate_json(text)
        if head.format > newest:
            by = f", written by sslbench {head.sslbench}" if head.sslbench else ""
            raise NewerSchema(
                f"has format {head.format}{by}, this sslbench knows {newest}; upgrade sslbench"
            )
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(wrong_field(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def wrong_field(error: ValidationError) -> str:
    """Names the first wrong field, and counts the others."""
    first, *more = error.errors()
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" + (f" (and {len(more)} more)" if more else "")


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A curve of at most POINTS points, evenly taken from it, with the first and the last."""
    if len(points) <= POINTS:
        return list(points)
    return [points[i * (len(points) - 1) // (POINTS - 1)] for i in range(POINTS)]


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
