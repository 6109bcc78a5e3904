"""The command line; the only place that prints or exits."""

from __future__ import annotations


def main() -> None:
    """`sslbench`, and `python -m sslbench`."""
    from .app import program

    program.main(prog_name="sslbench")
