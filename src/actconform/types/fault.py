"""An injected fault as data: what it does to which cases, and what the detector must report."""

from __future__ import annotations

import msgspec


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault that a plugin injects into a healthy backend or exporter, and what must be found.

    `name` is the variant, "faulty-torch@nan-lost"; `cases` are ids of cases on routes that hold it, the few that concern it.
    At least one of them must have an unregistered finding of a class among `findings` with a blame among `blames`, at `tensor`
    where that is named; or, where `findings` is empty, end with the verdict `verdict`.
    """

    name: str
    family: str
    what: str
    cases: tuple[str, ...]
    findings: tuple[str, ...] = ()
    blames: tuple[str, ...] = ()
    tensor: str = ""
    verdict: str = "FAIL"
