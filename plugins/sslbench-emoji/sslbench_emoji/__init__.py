"""Emoji in two styles, as a dataset of sslbench."""

from sslbench import hookimpl

SSLBENCH_API = (1, 0)  # what this plugin was written for


@hookimpl
def datasets():
    return {"emoji": "sslbench_emoji.dataset:Emoji"}
