"""Was written for a later sslbench."""

SSLBENCH_API = (9, 0)

from sslbench import NotYetThere  # noqa: E402, F401 - nor is it ever
