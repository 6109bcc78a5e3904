"""Datasets, and what they are made of.

Letters in shape comments: N images  M some of them  C channels  H W sides
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Card:
    """Facts about a dataset for the reader of a table."""

    summary: str
    classes: int | None  # None: it depends on the folder
    train: int | None  # images
    test: int | None
    licence: str
    citation: str
    source: str  # where the bytes come from
    unlabelled: int | None = None


class Split(NamedTuple):
    images: Tensor  # uint8 [N, 3, H, W], RGB, in memory or memory-mapped
    labels: Tensor  # int64 [N], -1 where there is none
    # int64 [N]: which sequence each is a frame of, in order; None: they are no frames
    clips: Tensor | None = None
    # int64 [N]: 0 of the source, 1 of the target, of whose labels a budget is; None: of one domain
    domains: Tensor | None = None


@dataclass(frozen=True)
class Images:
    """The splits of a loaded dataset, its classes and its fingerprint."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    fingerprint: str  # sha256 over the bytes that matter: images, labels, and how they were made
    unlabelled: Split | None = None
    skipped: tuple[str, ...] = ()  # broken files left out with --skip-broken
    notes: tuple[str, ...] = ()  # what whoever reads a number of it must know; no paths


@dataclass(frozen=True)
class Place:
    """Where a dataset may look for its files, and whether it may download them."""

    roots: tuple[Path, ...] = ()  # folders to look in, first match wins
    download: bool = False
    skip_broken: bool = False
    scratch: Path | None = None  # where arrays too large for memory are written


class Dataset(ABC):
    """Images with labels. The bracket of its name sets keyword-only constructor arguments."""

    card: ClassVar[Card]
    version: ClassVar[int] = 1

    @abstractmethod
    def load(self, place: Place) -> Images:
        """Loads every split.

        MissingData says which file is missing, where it was looked for, and how to get it.
        """

    def corrupted(self, place: Place, labels: Tensor) -> Corrupted | None:
        """The published corruptions of its test split; None where nobody published any.

        Their labels must equal `labels` [N], in order. MissingData as for `load`.
        """
        return None


class Corrupted(ABC):
    """Corrupted copies of a test split, by corruption and severity."""

    name: str  # of the set: cifar10-c
    fingerprint: str  # sha256 over the bytes that matter

    @abstractmethod
    def block(self, corruption: str, severity: int, rows: Tensor | None = None) -> Tensor:
        """Corrupted uint8 [M, 3, H, W] of these rows of the test split, or of all.

        Severity goes from 1 to 5.
        """
