"""The command line. Nothing else in the package prints or exits, and nothing imports it."""

from __future__ import annotations


def main() -> None:
    """Runs the command line, for `sslbench` and `python -m sslbench`."""
    from .app import program

    program.main(prog_name="sslbench")
