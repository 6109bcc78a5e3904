"""What a cell is: what changes its id, what does not, and how settings are checked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest

from sslbench.api import Evaluator, Judgement, Metric, Pretext
from sslbench.cells.cell import derive
from sslbench.cells.identity import Identity
from sslbench.cells.parameters import anatomy, checked
from sslbench.cells.protocol import resolve_judge
from sslbench.cells.rebuilt import cell_from
from sslbench.cells.settings import Context, Settings, check_settings, resolve
from sslbench.errors import UnknownName, UserError
from sslbench.plugins import Entry, registry

REG = registry(installed=False)
HERE = Context("test_resnet", "digits", "f" * 64, 32, 0)


def cell(method="moco", here=HERE, for_all=None, **dotted):
    return resolve(method, REG, here, Settings(((for_all or {}, dotted),)))


def test_a_value_equal_to_the_default_is_the_same_cell():
    assert cell().id == cell(**{"moco.temperature": 0.2}).id
    assert cell().id != cell(**{"moco.temperature": 0.1}).id


def test_a_whole_number_and_the_same_float_are_one_cell():
    assert cell("simclr", **{"simclr.warmup": 10.0}).id == cell("simclr").id
    assert cell("simclr", **{"simclr.blur": 1}).id == cell("simclr", **{"simclr.blur": 1.0}).id


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("backbone", "resnet18"),
        ("fingerprint", "0" * 64),
        ("seed", 1),
        ("precision", "bf16"),
        ("size", 28),
    ],
)
def test_what_changes_the_number_changes_the_id(field, value):
    assert cell(here=dataclasses.replace(HERE, **{field: value})).id != cell().id


TYPED = {"scan": {"scan.agree.lr": 0.5}, "swav": {"swav.crops": [2, 1]}}


@pytest.mark.parametrize("method", [e for e in REG.names("methods") if e != "external"])
def test_a_cell_becomes_its_identity_and_its_identity_the_cell(method):
    made = cell(
        method, dataclasses.replace(HERE, budget=40), {"epochs": 3}, **TYPED.get(method, {})
    )
    read = Identity(json.loads(json.dumps(made.identity())))
    assert read.sound
    again = cell_from(read, REG)
    assert (again.id, again.identity()) == (made.id, made.identity())
    assert (again.hyperparameters, again.recipe) == (made.hyperparameters, made.recipe)
    assert {name: p.id for name, p in again.pretexts.items()} == {
        name: p.id for name, p in made.pretexts.items()
    }
    own = (read.method, read.backbone, read.dataset, read.fingerprint, read.size, read.seed)
    assert own == (method, "test_resnet", "digits", "f" * 64, 32, 0)
    assert (read.precision, read.labels) == ("fp32", made.labels)
    assert read.budget == (40 if made.labels == "budget" else None)
    assert (read.trained, read.adopted) == (made.trained, False)


def test_a_version_that_is_not_here_is_a_sentence():
    other = {**cell().identity()}
    other["method"] = {**other["method"], "version": 99}
    with pytest.raises(UserError, match="install the one it was made with"):
        cell_from(Identity(other), REG)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"method": "moco"},
        {"method": {"name": 3}},
        {"method": {"name": "moco", "stages": {"a": 1}}},
        {"dataset": []},
        {"labels": 7},
    ],
)
def test_an_identity_from_anybody_is_read_without_a_fault_and_known_as_unsound(broken):
    read = Identity({**cell().identity(), **broken} if broken else {})
    assert not read.sound
    for of in (read.title, read.settings(), read.without_seed(), read.stages, read.recipe):
        assert of is not None


def test_where_a_folder_lies_changes_nothing():
    a = dataclasses.replace(HERE, dataset="folder:/a/photos")
    b = dataclasses.replace(HERE, dataset="folder:/elsewhere")
    assert cell(here=a).id == cell(here=b).id


def test_the_last_layer_of_settings_wins_and_stages_get_what_is_for_all():
    layers = Settings((({"epochs": 5}, {"moco.lr": 1}), ({}, {"moco.lr": 0.5})))
    found = resolve("moco", REG, HERE, layers)
    assert (found.recipe.epochs, found.recipe.lr) == (5, 0.5)
    assert resolve("scan", REG, HERE, layers).stages["agree"][1].epochs == 5


def test_a_stage_has_settings_of_its_own():
    found = cell("scan", **{"scan.agree.lr": 0.7})
    assert found.stages["agree"][1].lr == 0.7
    assert found.recipe.lr != 0.7


def test_a_pretext_is_the_cell_it_would_be_by_itself():
    settings = {"simclr.temperature": 0.3, "moco.lr": 0.5}
    assert cell("scan", **settings).pretexts["simclr"].id == cell("simclr", **settings).id
    other = cell("scan", **settings, **{"scan.pretext": "moco"})
    assert other.pretexts["moco"].id == cell("moco", **settings).id
    assert cell("scan", **settings).id != cell("scan").id, "its pretext changed"


def test_a_pretext_may_see_no_more_labels_than_its_method():
    with pytest.raises(UserError, match="sees: all"):
        cell("scan", **{"scan.pretext": "supervised"})


def test_a_pretext_cannot_ask_for_itself():
    with pytest.raises(UserError, match="scan -> scan"):
        cell("scan", **{"scan.pretext": "scan"})


def test_a_partial_carries_hyperparameters_and_recipe_fields():
    found = cell("moco-v1")
    assert found.hyperparameters["hidden"] == 0
    assert found.recipe.schedule == "step"


def test_what_weight_decay_acts_on_is_part_of_the_identity_only_where_it_is_all():
    at_default = cell("byol").identity()
    assert "decay" not in at_default["method"]["recipe"]
    assert cell("byol", **{"byol.decay": "weights"}).id == cell("byol").id
    other = cell("byol", **{"byol.decay": "all"})
    assert other.identity()["method"]["recipe"] == {
        **at_default["method"]["recipe"],
        "decay": "all",
    }
    assert cell_from(Identity(other.identity()), REG).recipe.decay == "all"
    assert cell_from(Identity(at_default), REG).recipe.decay == "weights"
    with pytest.raises(UserError, match="decay"):
        cell("byol", **{"byol.decay": "norms"})


# Cells that people have: they are found again as long as the version of their method stays. A method
# whose version is raised leaves the list.
IDS = {
    "barlow-twins-imagenet": "1c02c3ba40b703eb92ac6a1021dfc1fb50478aa45b4d831cba0f464b5c6f6a4f",
    "byol": "d57f4b0d542bac295c98cdba47cc037d14f46dd3f0119ad09571a55e040ca431",
    "moco-v3": "aedc33483426e86a318ae1d340ff08126f29d4afefc7f7daab2db15deb8a7ac1",
    "supervised": "502c470b7b3e9022484a299651b5a68cfe60a11ff4b2590cffdd4e8874baf4ad",
    "untrained": "abd6779b95699a2dae4c9667b0bace3ed4e768dbb61850e84a21831d98bb6e19",
    "vicreg": "39a142273f8b795dadffb46cec449910c868b68864246fbc4bdf6d4766d5285f",
}


@pytest.mark.parametrize("method", IDS)
def test_a_cell_keeps_its_id(method):
    assert cell(method).id == IDS[method]


def test_a_hyperparameter_added_later_keeps_old_ids():
    parts = anatomy(REG.find("methods", "moco"))
    old = cell()
    parts.target.added = {"splits": 8}
    try:
        assert "splits" not in cell().identity()["method"]["hyperparameters"]
        assert "splits" in cell(**{"moco.splits": 2}).identity()["method"]["hyperparameters"]
    finally:
        del parts.target.added
    assert cell().id == old.id


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (0.1, float, 0.1),
        (1, float, 1.0),
        (3, int, 3),
        (1e1, int, 10),
        (True, bool, True),
        ("none", str, "none"),
        ("5", str, "5"),
        (None, float | None, None),
        ([2, 6], tuple[int, int], (2, 6)),
        ({"head": {"lr": 2}}, Mapping[str, Mapping[str, Any]], {"head": {"lr": 2}}),
        ("simclr", Pretext, "simclr"),
    ],
)
def test_values_are_read_by_their_type(value, kind, expected):
    assert checked(value, kind, what="x") == expected


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        ("warm", float, "expects a number, got 'warm'"),
        (0.5, int, "expects an integer"),
        (True, int, "expects an integer, got true"),
        ("maybe", bool, "expects true or false"),
        ("yes", bool, "expects true or false, got 'yes'"),
        ("true", bool, "got 'true'; write true without quotes"),
        ("0x10", int, "got '0x10'; write 0x10 without quotes"),
        (["1", 2], tuple[int, int], "expects a list of an integer, an integer"),
        (5, str, "expects text, got 5; write '5' in quotes"),
    ],
)
def test_a_wrong_type_says_what_was_expected(value, kind, words):
    with pytest.raises(UserError, match=words):
        checked(value, kind, what="moco.x")


def test_an_unknown_setting_gets_a_suggestion():
    with pytest.raises(UserError, match="did you mean 'temperature'"):
        cell(**{"moco.temprature": 0.1})
    with pytest.raises(UnknownName, match="did you mean 'moco'"):
        check_settings(REG, Settings((({}, {"moca.lr": 1}),)), {"moco"})
    with pytest.raises(UserError, match=r"no stage 'agre'.*'agree'"):
        check_settings(REG, Settings((({}, {"scan.agre.lr": 1}),)), {"scan"})


def test_seeds_depend_on_every_part_and_on_their_order():
    seeds = {derive("a", 1, 2), derive("a", 2, 1), derive("a", 12), derive("b", 1, 2)}
    assert len(seeds) == 4
    assert derive("a", 1, 2) == derive("a", 1, 2) < 2**63


def test_a_protocol_names_what_is_not_the_default():
    assert resolve_judge("knn", REG)[0].protocol == "knn-1"
    for text in ("knn[k=5]", "knn[k=05]", "knn[k=0x5]", "knn[k=5e0]"):
        assert resolve_judge(text, REG)[0].protocol == "knn-1[k=5]"
    with pytest.raises(UserError, match="no parameter 'kk'"):
        resolve_judge("knn[kk=5]", REG)


def test_no_parameter_of_an_evaluator_may_lack_a_default():
    class Bad(Evaluator):
        metrics = (Metric("x"),)

        def __init__(self, *, needed: int):
            self.needed = needed

        def __call__(self, subject, data, seed):
            return Judgement({})

    class One:
        def find(self, kind, name):
            return Entry("evaluators", "bad", Bad, "p", "dist", "1")

    with pytest.raises(UserError, match="needs a default"):
        resolve_judge("bad", One())


def test_a_partial_may_set_the_recipe_of_a_stage():
    name = "scan-imagenet"
    assert (cell(name).stages["agree"][1].lr, cell(name).recipe.lr) == (5.0, 0.03)
    assert cell(name, **{f"{name}.agree.lr": 0.5}).stages["agree"][1].lr == 0.5
    assert cell("scan").stages["agree"][1].lr == 1e-4


def test_variants_of_a_judge_draw_the_same_numbers() -> None:
    found = registry(installed=False)
    plain, more = (
        resolve_judge(name, found)[0] for name in ("clustering", "clustering[over=true]")
    )
    assert more.protocol == "clustering-1[over=true]"
    assert more.family == plain.family == "clustering-1"
    tent = resolve_judge("tent[severities=5]", found, held_out=True)[0]
    assert tent.family == "tent-1(linear-2)@held-out"


def test_a_later_parameter_at_its_default_leaves_old_records_valid() -> None:
    found = registry(installed=False)
    assert resolve_judge("linear", found)[0].identity() == {
        "name": "linear",
        "version": 2,
        "params": {"l2": None},
    }
    assert resolve_judge("clustering", found)[0].identity()["params"] == {"restarts": 10}


def test_a_borrowed_probe_is_part_of_what_a_judge_is() -> None:
    tent = resolve_judge("tent", registry(installed=False))[0]
    assert tent.protocol == "tent-1(linear-2)"
    assert [used["name"] for used in tent.identity()["uses"]] == ["linear"]
