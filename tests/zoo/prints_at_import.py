"""Talks while it is imported."""

from sslbench import hookimpl

SSLBENCH_API = (1, 0)

print("Welcome!")  # noqa: T201 - it is the bad example


@hookimpl
def methods():
    return {"chatty": chatty}


def chatty(backbone, data):
    """Is what it is given."""
    return backbone
