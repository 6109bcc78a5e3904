"""Offers one name twice."""

from sslbench import hookimpl

SSLBENCH_API = (1, 0)


@hookimpl
def methods():
    return {"twice": first}


@hookimpl(specname="methods")
def more_methods():
    return {"twice": second}


def first(backbone, data):
    """The first."""
    return backbone


def second(backbone, data):
    """The second."""
    return backbone
