"""The conformance kit: checks that what a plugin provides keeps its promises.

    test_conformance = conformance("sslbench-mine")     # a test file of one line
    sslbench plugins check sslbench-mine                # the same, and notes the pass in a store

Or run checks one by one:

    @pytest.mark.parametrize("check", METHOD_CHECKS)
    def test_it_keeps_its_promises(check, tmp_path):
        check(Trial(registry(), "my-method", tmp_path))

The docstring of a check is the promise. A check raises AssertionError with a sentence, or returns
None or a remark.
"""

from __future__ import annotations

from . import made_up
from .backbones import BACKBONE_CHECKS, BackboneTrial
from .datasets import DATASET_CHECKS, DatasetTrial
from .evaluators import EVALUATOR_CHECKS, JudgeTrial, judges_alike_on_a_gpu
from .gpu import keeps_a_gpu_busy
from .kit import Check, Kit, Result, open_kit
from .methods import (
    ENCODER_CHECKS,
    METHOD_CHECKS,
    asks_no_gradient_of_targets,
    builds_from_backbone_and_data_alone,
    checks,
    encodes_each_image_alone,
    learns,
    repeats_itself,
    resumes_exactly,
    says_what_it_is,
    seeds_nothing,
    sees_no_hidden_label,
    takes_the_smallest_batch,
    trains_all_it_has,
    trains_in_bf16,
    views_serve_any_batch,
)
from .pytest_plugin import conformance
from .trackers import TRACKER_CHECKS, TrackerTrial
from .trial import Fit, Trial
from .whole import COMMAND_CHECKS, PLUGIN_CHECKS, SUITE_CHECKS, NameTrial, PluginTrial

__all__ = [
    "BACKBONE_CHECKS",
    "COMMAND_CHECKS",
    "DATASET_CHECKS",
    "ENCODER_CHECKS",
    "EVALUATOR_CHECKS",
    "METHOD_CHECKS",
    "PLUGIN_CHECKS",
    "SUITE_CHECKS",
    "TRACKER_CHECKS",
    "BackboneTrial",
    "Check",
    "DatasetTrial",
    "Fit",
    "JudgeTrial",
    "Kit",
    "NameTrial",
    "PluginTrial",
    "Result",
    "TrackerTrial",
    "Trial",
    "asks_no_gradient_of_targets",
    "builds_from_backbone_and_data_alone",
    "checks",
    "conformance",
    "encodes_each_image_alone",
    "judges_alike_on_a_gpu",
    "keeps_a_gpu_busy",
    "learns",
    "made_up",
    "open_kit",
    "repeats_itself",
    "resumes_exactly",
    "says_what_it_is",
    "seeds_nothing",
    "sees_no_hidden_label",
    "takes_the_smallest_batch",
    "trains_all_it_has",
    "trains_in_bf16",
    "views_serve_any_batch",
]
