"""The Pi model: its loss; what it shares with the mean teacher is tested there."""

from __future__ import annotations

from sslbench.methods.pi_model import apart

from . import test_mean_teacher as teacher

PLAIN = {"pi-model": {"unlabelled": 0.0}}  # which rises with the fit
CASES = {"apart": teacher.CASES["apart"]._replace(loss=apart)}
