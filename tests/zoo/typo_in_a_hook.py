"""One hook is misspelt; the other is sound."""

from sslbench import hookimpl

SSLBENCH_API = (1, 0)


@hookimpl
def metods():
    return {"never-seen": len}


@hookimpl
def evaluators():
    return {"beside-a-typo": len}
