"""Which trainings a study has."""

from __future__ import annotations

import pytest

from actconform.plugin.loader import load_plugins
from actconform.study.plan import study_plan
from actconform.study.request import StudyRequest


@pytest.fixture(scope="module")
def planned():
    catalog = load_plugins(judging=False)

    def planning(*experiments):
        plan = study_plan(catalog, StudyRequest(experiments, kernels=("relu",), seeds=1, epochs=0))
        return {experiment.name for experiment in plan.experiments}

    return planning


def test_published_sizes_are_studied_only_where_a_glob_means_them(planned):
    small = {"noise-softmax", "noise-relu", "noise-sigmoid", "noise-dead-relu"}
    assert planned("noise-*") == small
    assert planned("noise-*", "noise-relu@published") == small | {"noise-relu@published"}
    assert planned("noise-*@published") == {"noise-relu@published", "noise-softmax@published"}
    assert "signals-relu@published" in planned("*published")
    assert "signals-relu@published" not in planned("*")
