"""What every entry of the registry promises; a method that is added is tested without a line here."""

from __future__ import annotations

import pytest

from sslbench import testing
from sslbench.api import DataInfo
from sslbench.cells.parameters import anatomy
from sslbench.testing import ENCODER_CHECKS, METHOD_CHECKS, checks

from .helpers import FOLDER, FULL, METHODS, TRAINED, declared

DEFAULTS = (testing.says_what_it_is, testing.builds_from_backbone_and_data_alone)


def concerns(name):
    """An entry that only differs by arguments from one before it is not trained again."""
    if name not in FULL:
        return DEFAULTS
    return METHOD_CHECKS if name in TRAINED else ENCODER_CHECKS


EACH = [
    pytest.param(name, check, id=f"{name}-{check.__name__}", marks=pytest.mark.xdist_group(name))
    for name in METHODS
    for check in concerns(name)
]
GOLDEN = [name for name in TRAINED if name in FULL]


@pytest.mark.parametrize(("name", "check"), EACH)
def test_it_keeps_its_promises(name, check, trial_of):
    trial = trial_of(name)
    assert check in checks(trial)
    plain = declared(name, "PLAIN").get(name, {}) if check is testing.learns else {}
    check(trial, **{f"{name}.{key}": value for key, value in plain.items()})


def cautious(trial):
    """Everything at a tenth of its rate: at its own, rounding grows to a percent in five steps."""
    kinds = {f"{trial.name}.{stage}": kind for stage, kind in trial.parts.target.stages.items()}
    recipes = {name: kind.recipe for name, kind in kinds.items()}
    for name in (trial.name, *trial.cell().pretexts):
        recipes[name] = anatomy(METHODS[name]).recipe
    return trial.cell(**{f"{name}.lr": recipe.lr / 10 for name, recipe in recipes.items()})


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in GOLDEN]
)
def test_first_losses_are_those_of_the_golden_file(name, trial_of, request, one_thread):
    path = FOLDER / "golden" / f"{name}.txt"
    fit = trial_of(name).fit("golden", cautious(trial_of(name)))
    kinds = dict.fromkeys(kind for kind, _ in fit.losses)
    found = [each for kind in kinds for each in [e for e in fit.losses if e[0] == kind][:5]]
    if request.config.getoption("--regold"):
        path.write_text("".join(f"{kind} {loss:.9g}\n" for kind, loss in found))
    golden = [line.split() for line in path.read_text().splitlines()]
    assert [kind for kind, _ in found] == [kind for kind, _ in golden]
    expected = pytest.approx([float(loss) for _, loss in golden], rel=1e-4)
    assert [loss for _, loss in found] == expected, "`pytest --regold`, if that is meant"


def test_every_golden_file_is_of_a_method():
    assert {path.stem for path in (FOLDER / "golden").glob("*")} == set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_built_in_method_takes_any_backbone_or_says_in_a_sentence_why_not(name, made):
    target, backbone = anatomy(METHODS[name]).target, made("untrained")
    sentence = target.needs(backbone, DataInfo("few", size=8, length=1, classes=1))
    assert sentence is None or " " in sentence
