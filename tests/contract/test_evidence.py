"""Which cases a contract asks: values and gradients, and no trainings, which take minutes."""

from __future__ import annotations

import pytest

from actconform.contract.evidence import Setting, gather_evidence
from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins


def test_a_contract_of_an_experiment_alone_has_no_case(torch_catalog):
    with pytest.raises(UsageError, match="no kernel or model is called noise-relu"):
        gather_evidence("torch", torch_catalog, Setting(subjects=("noise-relu",)))


@pytest.fixture
def torch_catalog():
    catalog = load_plugins(judging=False)
    if "torch" not in catalog.backends:
        pytest.skip("needs the plugin of torch: make install")
    assert "noise-relu" in catalog.experiments
    return catalog
