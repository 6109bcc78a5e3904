"""Judges that give better numbers than they should, or change what they judge."""

import torch
import torch.nn.functional as F

from sslbench import Evaluator, Judgement, Metric, Value, hookimpl

SSLBENCH_API = (1, 0)


class TrainsOnTest(Evaluator):
    """A probe that is fitted where it is judged."""

    metrics = (Metric("top1", summary="accuracy"),)
    fitted = "test"

    def __call__(self, subject, data, seed):
        x, y = subject.features(self.fitted), data.labels(self.fitted)
        middle, spread = x.mean(0), x.std(0) + 1e-6
        x = (x - middle) / spread
        targets = F.one_hot(y, data.classes).float()
        weights = torch.linalg.lstsq(x, targets, driver="gelsd").solution
        test = (subject.features("test") - middle) / spread
        right = (test @ weights).argmax(1) == data.labels("test")
        return Judgement({"top1": Value(float(right.float().mean()))})


class ChoosesOnTest(Evaluator):
    """Names the class that test shows most at its ends."""

    metrics = (Metric("top1", summary="accuracy"),)

    def __call__(self, subject, data, seed):
        labels = data.labels("test")
        chosen = int(labels[0]) + data.classes * int(labels[-1])
        right = data.labels("train") == chosen % data.classes
        return Judgement({"top1": Value(float(right.float().mean()))}, {"class": chosen})


class Tidies(Evaluator):
    """Normalises the features that all judges share."""

    metrics = (Metric("spread", summary="of unit features", unit="1"),)

    def __call__(self, subject, data, seed):
        features = subject.features("test")
        features /= features.norm(dim=1, keepdim=True)
        return Judgement({"spread": Value(float(features.std()))})


class Percent(Evaluator):
    """Counts in hundreds, and without a metric that it declares."""

    metrics = (Metric("top1", summary="accuracy"),)

    def __call__(self, subject, data, seed):
        return Judgement({"top1": Value(73.5), "seed": Value(float(seed))})


class Drawn(Evaluator):
    """Draws from a generator of its own."""

    metrics = (Metric("luck", summary="as it comes"),)

    def __call__(self, subject, data, seed):
        generator = torch.Generator()
        generator.seed()
        return Judgement({"luck": Value(float(torch.rand((), generator=generator)))})


@hookimpl
def evaluators():
    return {
        "trains-on-test": TrainsOnTest,
        "chooses-on-test": ChoosesOnTest,
        "tidies": Tidies,
        "percent": Percent,
        "drawn": Drawn,
    }
