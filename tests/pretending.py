"""The one reason not to run a test on a pretended GPU: it has no compiler. `.ci/run` allows it none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from sslbench.testing.pretend_cuda import CannotPretend


@contextlib.contextmanager
def where_it_works() -> Iterator[None]:
    """Skips the test, with the reason, where no GPU can be pretended."""
    try:
        yield
    except CannotPretend as error:
        pytest.skip(str(error))
