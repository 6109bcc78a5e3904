"""Tests of the methods: test_promises.py and test_losses.py for all, a file of its own for each."""

import pytest

pytest.register_assert_rewrite("methods.helpers")
