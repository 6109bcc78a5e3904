"""Datasets whose fingerprint says nothing, whose bytes change, whose splits are one."""

import hashlib
import random
import time

import torch

from sslbench import Card, Dataset, Images, Split, hookimpl

SSLBENCH_API = (1, 0)
WORDS = ("bright", "dark")


class Sound(Dataset):
    """Noise with two classes."""

    card = Card("Noise", 2, 40, 20, "CC0", "nobody", "drawn here")
    overlap = False

    def images(self):
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8, generator=generator)

    def load(self, place):
        x, y = self.images(), torch.arange(60) % 2
        test = Split(x[:20] if self.overlap else x[40:], y[40:])
        return Images(Split(x[:40], y[:40]), test, WORDS, self.fingerprint())

    def fingerprint(self):
        return "a" * 64


class Timed(Sound):
    """Its fingerprint is the time of day."""

    def fingerprint(self):
        return hashlib.sha256(str(time.perf_counter_ns()).encode()).hexdigest()


class Hashed(Sound):
    """Its fingerprint is of Python's own hashes, which every process draws anew."""

    def fingerprint(self):
        return hashlib.sha256(str(hash("noise")).encode()).hexdigest()


class Drawn(Sound):
    """Its images are others each time, under one fingerprint."""

    def images(self):
        return torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8)


class Seeding(Sound):
    """Seeds everybody's generator."""

    def images(self):
        random.seed(0)
        return super().images()


class Overlapping(Sound):
    """Test is a part of train."""

    overlap = True


class Boasting(Sound):
    """Its card promises more."""

    card = Card("Noise", 2, 60_000, 20, "", "nobody", "drawn here")


class Floating(Sound):
    """Its images are numbers from 0 to 1."""

    def images(self):
        return super().images().float() / 255


KINDS = [Sound, Timed, Hashed, Drawn, Seeding, Overlapping, Boasting, Floating]


class AtPath(Sound):
    """Wants a path."""

    def __init__(self, *, path):
        self.path = path


@hookimpl
def datasets():
    found = {f"zoo-{kind.__name__.lower()}": kind for kind in KINDS}
    return {**found, "zoo-at": AtPath}
