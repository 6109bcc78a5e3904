"""Each hook returns something that none may return."""

from sslbench import hookimpl

SSLBENCH_API = (1, 0)


@hookimpl
def methods():
    return ["moco"]


@hookimpl
def backbones():
    return {"nothing": None}


@hookimpl
def datasets():
    return {"three": "a:b:c"}


@hookimpl
def suites():
    return {"seven": 7}


@hookimpl
def evaluators():
    return {"a-word": str, "no-judge": "json:dumps"}


@hookimpl
def commands():
    return {"no-command": print}
