"""One hook never returns; the other is sound."""

from sslbench import hookimpl

SSLBENCH_API = (1, 0)


@hookimpl
def datasets():
    while True:
        pass


@hookimpl
def methods():
    return {"beside-a-loop": beside}


def beside(backbone, data):
    """Is what it is given."""
    return backbone
