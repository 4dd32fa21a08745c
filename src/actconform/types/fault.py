"""An injected fault as data: what it does to which cases, and what the detector must report."""

from __future__ import annotations

import msgspec


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault that a plugin injects into a healthy backend or exporter, and what must be found.

    `name` is the variant, "faulty-torch@nan-lost"; `cases` are ids of cases on routes that hold it, the few that concern it.
    At least one of them must have an unregistered finding of a class among `findings` with a blame among `blames`, at `tensor`
    where that is named; or, where `findings` is empty, end with the verdict `verdict`. With the verdict PASS it is no fault: it
    computes otherwise, and well, and none of its cases may have an unregistered finding.
    """

    name: str
    family: str
    what: str
    cases: tuple[str, ...]
    findings: tuple[str, ...] = ()
    blames: tuple[str, ...] = ()
    tensor: str = ""
    verdict: str = "FAIL"

    @property
    def healthy(self) -> bool:
        """Whether it must be left alone."""
        return self.verdict == "PASS"
