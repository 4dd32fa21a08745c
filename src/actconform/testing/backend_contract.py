"""The contract of a backend as tests of pytest, which a plugin's tests subclass."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import pytest

from actconform.contract.check import Checked, check_contract
from actconform.contract.clauses import PROMISES
from actconform.contract.evidence import Setting


class BackendContract:
    """The contract of an installed backend, a test for each clause.

    A clause that is broken fails with every breach and what to do. One that does not apply is skipped, and so are all where the
    framework is not installed, with what to install: a skip is no pass.

        class TestContract(BackendContract):
            backend = "mine"

    `subjects` are globs of kernels and models; all that are installed are checked by default, models in small sizes.
    """

    backend: ClassVar[str]
    subjects: ClassVar[tuple[str, ...]] = ("*",)

    @pytest.mark.parametrize("name", PROMISES)
    def test_clause(self, name: str) -> None:
        """The backend keeps this clause."""
        if not isinstance(getattr(self, "backend", None), str):
            pytest.fail(f'{type(self).__name__} names no backend: set backend = "NAME"', pytrace=False)
        contract = _checked(self.backend, self.subjects)
        if contract.unavailable:
            pytest.skip(f"UNAVAILABLE: {contract.unavailable}")
        clause = next(clause for clause in contract.clauses if clause.name == name)
        if clause.state == "not applicable":
            pytest.skip(f"not applicable: {clause.message}")
        if clause.state == "broken":
            pytest.fail("\n".join([*clause.broken, f"What to do: {clause.fix}"]), pytrace=False)


@cache
def _checked(backend: str, subjects: tuple[str, ...]) -> Checked:
    """Return the outcome of the contract, checked once for all clauses."""
    return check_contract(backend, Setting(subjects=subjects))
