"""Checks the contract of one installed backend, and returns the outcome as one value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.contract.clauses import Clause, clauses
from actconform.contract.evidence import Setting, gather_evidence
from actconform.errors import UsageError, WorkerError, near
from actconform.plugin.loader import load_plugins

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.plugin.loader import Catalog
    from actconform.types import Case


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the contract of a backend: no case was run where `unavailable` says why it cannot run here.

    `cases` were run, of which `answered` have outputs. `refused` lists the backend's reasons for what it does not do, with how often each was given.
    """

    backend: str
    kind: str
    plugin: str
    facts: dict[str, str]
    unavailable: str = ""
    clauses: tuple[Clause, ...] = ()
    cases: int = msgspec.field(default=0, name="asked")
    answered: int = 0
    refused: tuple[tuple[str, int], ...] = ()
    seconds: float = 0.0

    @property
    def conforms(self) -> bool:
        """Whether the backend could run, and no clause is broken."""
        return bool(self.clauses) and not any(clause.state == "broken" for clause in self.clauses)


def check_contract(
    name: str,
    setting: Setting | None = None,
    catalog: Catalog | None = None,
    on_case: Callable[[Case], None] = lambda _: None,
) -> Checked:
    """Return how the backend `name` of the catalog, by default of what is installed, keeps the contract.

    `on_case` is called with each case before it is run. Raises UsageError where there is no such backend, or it cannot be started
    at all.
    """
    catalog = catalog or load_plugins()
    if name not in catalog.backends:
        raise UsageError(_unknown(name, catalog))
    try:
        evidence = gather_evidence(name, catalog, setting or Setting(), on_case)
    except WorkerError as error:
        raise UsageError(f"backend {name} cannot be started: {error}") from error
    unavailable = evidence.hello.unavailable
    return Checked(
        backend=name,
        kind=evidence.backend.kind,
        plugin=catalog.backend_plugin[name],
        facts=evidence.hello.facts,
        unavailable=unavailable,
        clauses=() if unavailable else tuple(clauses(evidence)),
        cases=len(evidence.records),
        answered=len(evidence.answered),
        refused=tuple(evidence.reasons()),
        seconds=evidence.seconds,
    )


def _unknown(name: str, catalog: Catalog) -> str:
    broken = "".join(
        f"\nplugin {plugin.name} ({plugin.distribution}) is broken: {plugin.reason}" for plugin in catalog.broken
    )
    return f"no installed plugin gives a backend {name!r}{near(name, catalog.backend_names())}{broken}"
