"""`python -m sslbench_emoji DIR`: makes the folder of the dataset."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sslbench.errors import UserError

from .packages import PACKAGES, make


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m sslbench_emoji",
        description="Makes DIR/emoji from two packages of npm, which are fetched from its registry.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="what --data of sslbench gets")
    parser.add_argument(
        "--packages",
        metavar="DIR",
        type=Path,
        help=f"a folder with {' and '.join(p.file for p in PACKAGES.values())}, as `npm pack` "
        "leaves them; nothing is then fetched",
    )
    given = parser.parse_args(arguments)
    try:
        made = make(given.folder, packages=given.packages)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"made {made}; try: sslbench run --datasets emoji --data {given.folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
