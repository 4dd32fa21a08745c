"""What is kept of runs, as data: the report of one, and what the reports of several tell of a case."""

from __future__ import annotations

from typing import Annotated

import msgspec

from actconform.types import Result, Verdict  # noqa: TC001  msgspec reads annotations

SCHEMA = 1
When = Annotated[str, msgspec.Meta(pattern=r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)?$")]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was done with: the version of actconform, a digest of the goldens' manifest, and facts by backend."""

    actconform: str = ""
    goldens: str = ""
    backends: dict[str, dict[str, str]] = {}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run: one result for every case that came in, in the order of the cases.

    `problems` says why the run does not conform, and is empty where it does. `timings` are seconds by stage over all cases;
    "total" is the clock on the wall. `summary` counts cases by verdict. `when` is the time of its end in UTC,
    "2026-11-21T15:48:03Z", or "" where it is not known. In the file numbers that are not finite are "nan", "inf" and "-inf".
    """

    schema: int
    facts: Facts
    conforms: bool
    problems: tuple[str, ...]
    timings: dict[str, float]
    summary: dict[str, int]
    results: tuple[Result, ...]
    when: When = ""


class Point(msgspec.Struct, frozen=True):
    """One case in one run: `share` is its worst error as a share of the limit, None where nothing was measured."""

    when: str
    share: float | None
    verdict: Verdict


class Change(msgspec.Struct, frozen=True):
    """A fact that is another one now; "" where it was not known."""

    backend: str
    fact: str
    before: str
    after: str


class Since(msgspec.Struct, frozen=True, rename={"class_": "class"}):
    """A finding that the newest run has: `when` it was first there without a gap, after the run `before` that had it not.

    `before` is "" where all runs of the case have it. `changed` are the facts of the case's route, of goldens and of actconform
    that came in between the two.
    """

    class_: str
    tensor: str
    regime: str
    when: str
    before: str = ""
    changed: tuple[Change, ...] = ()


class Trend(msgspec.Struct, frozen=True):
    """The line of one case, oldest run first, the newest last, and since when each of its findings is there."""

    case: str
    points: tuple[Point, ...]
    since: tuple[Since, ...] = ()
