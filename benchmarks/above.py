"""Says of each method of a leaderboard whether it is above `untrained`, by all rows together.

    python benchmarks/above.py leaderboards/emoji

The test is that of a blocked design: what is left of a score after the mean of its method and that
of its seed is noise, whose variance all rows estimate together. Differences from `untrained` are
held against it by Student's t with (methods - 1) (seeds - 1) degrees of freedom, and Holm corrects
for the number of methods. Rows that lack a seed, and those that no seed moves, are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import stats

from sslbench.leaderboard.folder import folder as folders
from sslbench.leaderboard.statistics import holm

FLOOR = "untrained"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("board", type=Path)
    found: dict[str, dict[str, dict[int, float]]] = {}
    for record in folders.read(parser.parse_args().board).records:
        if record.kind == "evaluation" and record.status == "ok" and record.protocol:
            scores = found.setdefault(record.protocol, {}).setdefault(record.method, {})
            scores[record.seed] = record.metrics[0].value
    for protocol, rows in sorted(found.items()):
        seeds = sorted({seed for scores in rows.values() for seed in scores})
        whole = {m: [by[s] for s in seeds] for m, by in rows.items() if len(by) == len(seeds)}
        whole = {m: scores for m, scores in whole.items() if len(set(scores)) > 1}
        if len(seeds) > 1 and FLOOR in whole and len(whole) > 1:
            print(f"{protocol}, seeds {', '.join(map(str, seeds))}")
            told(whole)


def told(rows: dict[str, list[float]]) -> None:
    """Prints the methods by their distance from the floor, each with its p after Holm's correction."""
    scores = 100 * np.array([*rows.values()])  # [methods, seeds], points
    means = scores.mean(1)
    noise = scores - means[:, None] - scores.mean(0) + scores.mean()
    freedom = (scores.shape[0] - 1) * (scores.shape[1] - 1)
    spread = np.sqrt((noise**2).sum() / freedom)
    error = spread * np.sqrt(2 / scores.shape[1])
    print(f"  noise {spread:.2f} points, {freedom} degrees of freedom")
    above = {m: mean - means[[*rows].index(FLOOR)] for m, mean in zip(rows, means, strict=True)}
    order = sorted((m for m in above if m != FLOOR), key=lambda m: -above[m])
    ps = holm([2 * float(stats.t.sf(abs(above[method]) / error, freedom)) for method in order])
    for method, p in zip(order, ps, strict=True):
        print(f"  {method:24} {above[method]:+6.1f}  p {p:.2g}")


if __name__ == "__main__":
    main()
