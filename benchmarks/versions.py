"""Compares the speed of another checkout with this one: training steps, views and judges.

    git worktree add /tmp/before COMMIT
    python benchmarks/versions.py /tmp/before [--what views,simclr,moco,linear] [--rounds 40]

Each version runs in a process of its own on one thread, and they take turns: one step here, one
there, so that a busy machine slows both. Counted is processor time. It prints old / new, as the
median over pairs; the bar is 0.97. Methods train on digits with the kit's small network, where
whatever the harness adds shows most.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

BAR = 0.97
HERE = Path(__file__).resolve().parents[1]
JUDGES = ("linear", "knn", "clustering")
WHAT = ("views", "simclr", "moco", "byol", "swav", "dino", *JUDGES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="a checkout of the version before")
    parser.add_argument("--what", default=",".join(WHAT), help="views, methods and judges")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve)
    if not (asked.other / "sslbench").is_dir():
        parser.error(f"{asked.other} is no checkout of sslbench")
    slow = []
    for what in asked.what.split(","):
        ratio, old, new = compared(asked.other, what, asked.rounds)
        print(
            f"{what:12} old / new {ratio:.3f}  ({old * 1e3:.1f} and {new * 1e3:.1f} ms)", flush=True
        )
        slow += [what] if ratio < BAR else []
    print(f"slower than {BAR}: {', '.join(slow)}" if slow else "nothing is slower")
    return bool(slow)


def compared(other: Path, what: str, rounds: int) -> tuple[float, float, float]:
    """Old / new as the median over pairs, and the median seconds of each."""
    both = [started(tree, what) for tree in (other, HERE)]
    try:
        for process in both:
            answer(process)  # it is ready
        times: tuple[list[float], list[float]] = ([], [])
        for i in range(rounds if what not in JUDGES else max(3, rounds // 8)):
            for which in ((0, 1), (1, 0))[i % 2]:
                print(file=both[which].stdin, flush=True)
                times[which].append(answer(both[which]))
    finally:
        for process in both:
            process.kill()
    ratios = [old / new for old, new in zip(*times, strict=True)]
    return statistics.median(ratios), *map(statistics.median, times)  # type: ignore[return-value]


def started(tree: Path, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, str(tree), "--serve", what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
    )


def answer(process: subprocess.Popen[str]) -> float:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("#"):
            return float(line[1:])
    raise SystemExit("one version stopped; what it printed is above")


# ---- in a process of one version -----------------------------------------------------------


def serve(what: str) -> None:
    """Does it once for each line of stdin, and prints the seconds that it took."""
    import torch

    torch.set_num_threads(1)
    if what == "views":
        repeat(views())
    elif what in JUDGES:
        repeat(judge(what))
    else:
        train(what)


def tell(seconds: float) -> None:
    print("#", seconds, flush=True)


def timed(work: Callable[[], object]) -> None:
    if not sys.stdin.readline():
        sys.exit()
    begun = time.process_time()
    work()
    tell(time.process_time() - begun)


def repeat(work: Callable[[], object]) -> None:
    work()
    tell(0)
    while True:
        timed(work)


def views() -> Callable[[], object]:
    import torch

    from sslbench.views import contrastive

    small = torch.rand(256, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(small, 32).mul(255).to(torch.uint8)
    view = contrastive(32, blur=0.5)

    def work() -> object:
        torch.manual_seed(1)
        return view(images)

    return work


def judge(name: str) -> Callable[[], object]:
    import torch

    from sslbench.cells.protocol import resolve_judge
    from sslbench.plugins import registry
    from sslbench.testing.made_up import MadeUp, a_tenth

    generator = torch.Generator().manual_seed(0)
    truth = {"train": torch.arange(6000) % 10, "test": torch.arange(2000) % 10}
    means = torch.randn(10, 256, generator=generator)
    train, test = (
        means[y] * 0.3 + torch.randn(len(y), 256, generator=generator) for y in truth.values()
    )
    world = MadeUp(train, test, truth, 10, a_tenth(6000))
    _, judged_by = resolve_judge(name, registry(installed=False))
    return lambda: world.judged_by(judged_by, 0)


def train(method: str) -> None:
    from sslbench.plugins import registry
    from sslbench.testing.trial import Trial
    from sslbench.train.loop import Loop

    folder = Path(tempfile.mkdtemp())
    data = "digits[test=20,train=960]"
    trial = Trial(registry(installed=False), method, folder, dataset=data)
    step, warm = Loop._train_step, []

    def one(self: Loop, *given: object) -> None:
        if warm:
            timed(lambda: step(self, *given))  # type: ignore[arg-type]
        else:
            step(self, *given)  # type: ignore[arg-type]
            warm.append(True)
            tell(0)

    with mock.patch.object(Loop, "_train_step", one):
        trial.bench("versions").do(trial.cell(epochs=1000), [])


if __name__ == "__main__":
    sys.exit(main())
