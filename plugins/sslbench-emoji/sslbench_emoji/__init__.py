"""Emoji in two styles, as a dataset of sslbench, and suites on it."""

from sslbench import hookimpl

SSLBENCH_API = (1, 0)  # what this plugin was written for


@hookimpl
def datasets():
    return {"emoji": "sslbench_emoji.dataset:Emoji"}


@hookimpl
def suites():
    return {name: f"sslbench_emoji:{name}.yaml" for name in ("emoji", "emoji-domains")}
