"""Rotation prediction as a plugin of sslbench."""

from sslbench import hookimpl

SSLBENCH_API = (1, 0)  # what this plugin was written for


@hookimpl
def methods():
    return {"rotnet": "sslbench_rotnet.method:RotNet"}
