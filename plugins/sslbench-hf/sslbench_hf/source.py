"""Where a dataset lies, and how it is opened without the network unless that is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sslbench.api import Place
from sslbench.errors import MissingData

HUB = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)  # NAME or ORG/NAME


def opened(name: str, config: str, place: Place) -> Mapping[str, Any]:
    """Splits by name: of a folder, of the local cache, or with `place.download` of the hub.

    Raises:
        MissingData: it is not to be had; the sentence says where it was looked for.
    """
    folder = _folder(name, place)
    if folder is not None:
        with _network(allowed=False):
            return _attempt(f"hf:{name}", lambda: _of_folder(folder, config))
    if not HUB.fullmatch(name):
        raise MissingData(
            f"hf:{name}: there is no such folder, and no dataset ORG/NAME has this name"
        )
    with _network(allowed=place.download):
        if place.download:
            return _attempt(f"hf:{name}", lambda: _loaded(name, config))
        try:
            return _of_cache(name, config)
        except Exception as fault:
            raise MissingData(_absence(name, config, fault)) from fault


def _folder(name: str, place: Place) -> Path | None:
    own = Path(name).expanduser()
    roots = [] if own.is_absolute() else [root / name for root in place.roots]
    return next((path for path in (*roots, own) if path.is_dir()), None)


def _of_folder(folder: Path, config: str) -> Mapping[str, Any]:
    """What `save_to_disk` wrote, or a dataset's files as they lie on the hub."""
    import datasets

    saved = [(folder / name).is_file() for name in ("dataset_dict.json", "state.json")]
    if not any(saved):
        return _loaded(str(folder), config)
    found = datasets.load_from_disk(str(folder))
    return found if saved[0] else {str(found.split or "train"): found}


def _of_cache(name: str, config: str) -> Mapping[str, Any]:
    """As `load_dataset` left it, or else as `hf download` did."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _loaded(name, config)
    except (OSError, ValueError) as fault:  # not there at all, or not in that configuration
        try:
            folder = snapshot_download(name, repo_type="dataset", local_files_only=True)
        except LocalEntryNotFoundError:
            raise fault from None
        return _loaded(folder, config)


def _loaded(name: str, config: str) -> Mapping[str, Any]:
    from datasets import load_dataset

    return load_dataset(name, config or None)


def _attempt(name: str, load: Any) -> Mapping[str, Any]:
    try:
        return load()
    except Exception as fault:  # the library's, pyarrow's, the network's: of many kinds
        raise MissingData(f"{name} cannot be opened: {_said(fault)}") from fault


def _absence(name: str, config: str, fault: Exception) -> str:
    import datasets
    from huggingface_hub import constants

    looked = f"{datasets.config.HF_DATASETS_CACHE} and {constants.HF_HUB_CACHE}"
    again = f"hf:{name}{config and f'[config={config}]'}"
    return (
        f"{again} is not to be had from the local cache (looked in {looked}: {_said(fault)}); get "
        f"it with --download, or with `hf download --repo-type dataset {name}`, or give the folder "
        f"of a copy as hf:PATH"
    )


def _said(fault: BaseException) -> str:
    return " ".join(str(fault).split())[:400] or type(fault).__name__


@contextmanager
def _network(*, allowed: bool) -> Iterator[None]:
    """Both libraries read HF_HUB_OFFLINE at import, which may be long past: so the switches
    themselves. Where the environment says offline, that stays."""
    import datasets
    from huggingface_hub import constants

    bars = datasets.are_progress_bars_disabled()
    before = (datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE)
    if not allowed:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
        if not bars:
            datasets.enable_progress_bars()
