"""Says what the best epoch on test would have claimed, beside what the last epoch has.

    sslbench --plugin benchmarks/best_on_test.py run --suite few-labels --watch on-test:1
    python benchmarks/best_on_test.py sslbench-store/

`--watch` measures on the held-out tenth, so that nobody sees test before the end. The evaluator of
this file steps around that, to show what it would do: after each epoch it asks the method for the
classes of the images of test, and the curves of the cell's record keep the answers. The table has
means over seeds of the last epoch's accuracy, of the best epoch's, and of their difference: what a
table gains that reports the best epoch on test.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

from sslbench.api import Evaluator, Judged, Judgement, Metric, Subject
from sslbench.errors import Unsuited
from sslbench.hookspecs import hookimpl
from sslbench.scores import accuracies
from sslbench.store import Store

SSLBENCH_API = (1, 2)
CURVE = "watch.file:best_on_test/on-test-1.top1"


class OnTest(Evaluator):
    """The accuracy of the method's own answers on test, while it trains.

    Measured: the share of the images of test whose class the method names.
    Chosen: nothing.
    Source: Oliver et al., arXiv 1804.09170, who ask for held-out labels instead.
    Traps: it is for `--watch` alone, which lends it the held-out tenth; test is behind that.
    """

    metrics = (Metric("top1", summary="accuracy on test"),)

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        behind = getattr(subject, "subject", None)
        if behind is None:
            raise Unsuited("on-test is for --watch; `classifier` judges what is trained")
        logits, test = behind.predict("test"), behind.data.test
        if behind.told == "none" or logits is None:
            raise Unsuited("the method answers no classes")
        return Judgement({"top1": accuracies(logits, test.labels)["top1"]})


@hookimpl
def evaluators() -> dict[str, type[Evaluator]]:
    return {"on-test": OnTest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    gains: dict[str, list[tuple[float, float]]] = {}
    for folder in Store(parser.parse_args().store).cells():
        trained = folder.trained()
        if trained and (curve := trained.curves.get(CURVE)):
            values = [100 * value for _, value in curve]
            gains.setdefault(str(trained.method), []).append((values[-1], max(values)))
    print("| method | seeds | last epoch | best epoch on test | gain |\n|---|---:|---:|---:|---:|")
    for method, pairs in sorted(gains.items()):
        last, best = mean(p[0] for p in pairs), mean(p[1] for p in pairs)
        print(f"| {method} | {len(pairs)} | {last:.1f} | {best:.1f} | {best - last:+.1f} |")


if __name__ == "__main__":
    main()
