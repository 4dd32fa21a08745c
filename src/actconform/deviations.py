"""The register of known causes: read, matched against facts, cases and findings. Nothing is excused that is not in it."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from math import isnan
from typing import TYPE_CHECKING

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from actconform.compare.ulp import from_hex
from actconform.formats import DTYPES
from actconform.types import Case, Deviation, Finding  # noqa: TC001  msgspec reads annotations

if TYPE_CHECKING:
    from collections.abc import Mapping


class DeviationError(Exception):
    """A register that cannot be read: says where, what was wrong and what is expected."""


class _Register(msgspec.Struct, forbid_unknown_fields=True):
    deviation: tuple[Deviation, ...] = ()


def read_deviations(text: str, where: str) -> tuple[Deviation, ...]:
    """Return the deviations of a TOML text of `[[deviation]]` tables.

    Raises DeviationError, naming `where` and the field, on bad TOML, an unknown or missing field, a repeated id, a bad version
    range, or an `until` without a version range in `when`, whose fact it is read against.
    """
    try:
        register = msgspec.convert(tomllib.loads(text), _Register)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise DeviationError(f"{where}: {error}") from error
    seen: set[str] = set()
    for deviation in register.deviation:
        if deviation.id in seen:
            raise DeviationError(f"{where}: two deviations have the id {deviation.id!r}; ids are unique")
        seen.add(deviation.id)
        _check_specifiers(deviation, where)
    return register.deviation


def _check_specifiers(deviation: Deviation, where: str) -> None:
    wanted = {fact: value for fact, value in deviation.when.items() if isinstance(value, str)}
    if deviation.until:
        if not wanted:
            raise DeviationError(
                f"{where}: deviation {deviation.id!r}: until needs a version range in when to be read against"
            )
        wanted["until"] = deviation.until
    for fact, value in wanted.items():
        try:
            SpecifierSet(value)
        except InvalidSpecifier as error:
            message = f'{where}: deviation {deviation.id!r}: {fact} = "{value}" is no version range such as ">=2.13,<3"'
            raise DeviationError(message) from error


def concerns(deviation: Deviation, case: Case) -> bool:
    """Tell whether the deviation is registered for this case: aspect, kernel, dtype and route."""
    return (
        deviation.aspect == case.aspect
        and _matches(case.subject, deviation.kernels)
        and _matches(case.dtype, deviation.dtypes)
        and _matches(case.route, deviation.routes)
    )


def holds(deviation: Deviation, facts: Mapping[str, str]) -> bool:
    """Tell whether the deviation's `when` holds under the facts of the route, and its `until` has not come.

    A fact that is not known does not hold. `until` is read against the version of the fact that `when` names first.
    """
    for fact, wanted in deviation.when.items():
        value = facts.get(fact)
        if value is None:
            return False
        if isinstance(wanted, str):
            if not _version_in(value, wanted):
                return False
        elif value not in wanted:
            return False
    versions = (facts[fact] for fact, wanted in deviation.when.items() if isinstance(wanted, str))
    return not (deviation.until and _version_in(next(versions, ""), deviation.until))


def covers(deviation: Deviation, finding: Finding, dtype: str) -> bool:
    """Tell whether the finding is of the deviation's class, regime and tensor, inside its inputs and within its bound."""
    return (
        deviation.class_ == finding.class_
        and _matches(finding.regime, deviation.regimes)
        and _matches(finding.tensor, deviation.tensors)
        and finding.magnitude <= deviation.bound
        and _inside(deviation, finding, dtype)
    )


def _inside(deviation: Deviation, finding: Finding, dtype: str) -> bool:
    if not deviation.inputs:
        return True
    if not finding.interval[0]:
        return False
    low, high = (from_hex(end, DTYPES[dtype]) for end in finding.interval)
    for allowed in deviation.inputs:
        if allowed == "nan":
            if isnan(low) and isnan(high):
                return True
        elif allowed[0] <= low and high <= allowed[1]:
            return True
    return False


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _version_in(value: str, wanted: str) -> bool:
    try:
        return Version(value.partition("+")[0]) in SpecifierSet(wanted, prereleases=True)
    except InvalidVersion:
        return False
