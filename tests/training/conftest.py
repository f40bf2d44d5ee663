"""Trainings whose figures nobody looks at; tests/evaluation and tests/pages look at figures."""

import pytest


@pytest.fixture(autouse=True)
def _blank(blank_figures):
    pass
