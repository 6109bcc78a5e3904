"""Fixtures of the methods' tests."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sslbench.api import Batch
from sslbench.testing import Trial

from .helpers import REGISTRY, declared


@pytest.fixture(scope="package", autouse=True)
def hub(tmp_path_factory):
    """A cache with published weights of one network, and no connection."""
    import timm
    from huggingface_hub import constants
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("hub")
    folder = root / "models--timm--test_resnet.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    torch.manual_seed(7)
    weights = timm.create_model("test_resnet").state_dict()
    path = folder / "snapshots" / "abc" / "model.safetensors"
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        patch.setattr(constants, "HF_HUB_CACHE", str(root))
        yield weights


@pytest.fixture(scope="package")
def trial_of(tmp_path_factory):
    """The trial of an entry, with its fits, for all tests of the folder."""
    known: dict[str, Trial] = {}

    def get(method: str) -> Trial:
        if method not in known:
            folder = tmp_path_factory.mktemp("stores")
            needed = {
                key: declared(method, f"{key.upper()}S").get(method, "")
                for key in ("backbone", "dataset")
            }
            known[method] = Trial(REGISTRY, method, folder, declared(method, "SMALL"), **needed)
        return known[method]

    return get


@pytest.fixture
def made(trial_of):
    """A method as built, in training, with hyperparameters of the test."""

    def get(method: str, **settings) -> nn.Module:
        trial = trial_of(method)
        dotted = {f"{method}.{key}": value for key, value in settings.items()}
        return trial.bench("built").builder.build(trial.cell(**dotted))[0].train()

    return get


@pytest.fixture
def batch_of(trial_of):
    """The first images of the data, as this method sees them."""

    def get(method, size: int = 8, *, epoch: int = 0, label=None, seed: int = 0) -> Batch:
        torch.manual_seed(seed)
        images = trial_of("untrained").data.train.images[:size]
        label = torch.full((size,), -1) if label is None else label
        return Batch(method.views()(images), torch.arange(size), label, epoch, 0.0)

    return get


@pytest.fixture
def some_batch(trial_of):
    """A batch of images without labels beside one of images with them, as this method sees them."""
    images = trial_of("untrained").data.train.images

    def get(method, *, progress: float = 0.0) -> Batch:
        torch.manual_seed(0)
        views = method.views()
        named = views if isinstance(views, dict) else {"main": views}
        hidden = torch.full((12,), -1)
        shown = torch.arange(8) % 10
        given = Batch(named.get("labelled", named["main"])(images[:8]), shown, shown, 0, progress)
        others = named["main"](images[8:20])
        return Batch(others, torch.arange(8, 20), hidden, 0, progress, {"labelled": given})

    get.images = images
    return get


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
