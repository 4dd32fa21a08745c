"""What is stated of libraries after measuring them, on one machine or several: merged, as a table, as text of a register."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from packaging.version import InvalidVersion, Version

from actconform.accuracy.measure import MOST_ULP
from actconform.accuracy.points import DTYPES
from actconform.accuracy.primitives import PRIMITIVES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from actconform.accuracy.library import MeasuredLibrary
    from actconform.accuracy.measure import Accuracy, Fate

ARITHMETIC = ("exp", "sqrt", "reciprocal", "division")  # their subnormals tell what becomes of those of all operations


def merged(measured: Iterable[MeasuredLibrary]) -> list[MeasuredLibrary]:
    """Return one for each library, with the larger of all figures: what holds on every machine that was measured."""
    libraries: dict[str, MeasuredLibrary] = {}
    for new in measured:
        old = libraries.get(new.library)
        libraries[new.library] = new if old is None else _both(old, new)
    return list(libraries.values())


def _both(old: MeasuredLibrary, new: MeasuredLibrary) -> MeasuredLibrary:
    rows = {(row.primitive, row.dtype): row for row in old.accuracies}
    for row in new.accuracies:
        key = row.primitive, row.dtype
        rows[key] = _worse(rows[key], row) if key in rows else row
    facts = old.facts + tuple(facts for facts in new.facts if facts not in old.facts)
    measured = {f"{primitive}/{dtype}" for primitive, dtype in rows}
    unsupported = {key: reason for key, reason in (old.unsupported | new.unsupported).items() if key not in measured}
    order = sorted(rows, key=lambda key: (list(DTYPES).index(key[1]), list(PRIMITIVES).index(key[0])))
    accuracies = tuple(rows[key] for key in order)
    return msgspec.structs.replace(old, facts=facts, accuracies=accuracies, unsupported=unsupported)


def _worse(old: Accuracy, new: Accuracy) -> Accuracy:
    ulp, unit, most = (max(old, new, key=key) for key in (lambda row: row.ulp, lambda row: row.unit, _points))
    largest = ("stated_ulp", "stated_absolute", "absolute", "high_ulp", "underflow_steps", "subnormal_error")
    early = max(old, new, key=lambda row: row.early_count)
    return msgspec.structs.replace(
        most,
        **{name: max(getattr(old, name), getattr(new, name)) for name in largest},
        ulp=ulp.ulp,
        ulp_at=ulp.ulp_at,
        unit=unit.unit,
        unit_at=unit.unit_at,
        flush=_shared([old.flush, new.flush]),
        early_overflow=early.early_overflow,
        early_count=early.early_count,
        wrong=new.wrong | old.wrong,
    )


def _points(row: Accuracy) -> int:
    return row.points


def _shared(fates: Iterable[Fate]) -> Fate:
    """Return the fate that all share, "may" where they differ; those of nothing ("") do not count."""
    kinds = sorted({fate for fate in fates if fate})
    return "" if not kinds else kinds[0] if len(kinds) == 1 else "may"


def flush_of(measured: MeasuredLibrary) -> Fate:
    """Return what becomes of subnormal numbers in plain arithmetic; "kept" where none was measured."""
    return (
        _shared(row.flush for row in measured.accuracies if row.primitive in ARITHMETIC and row.dtype == "f32")
        or "kept"
    )


def toml(measured: MeasuredLibrary) -> str:
    """Return the `[[library]]` table of a register, below comments: the facts measured under, and what its keys do not hold."""
    rows, flush = measured.accuracies, flush_of(measured)
    lines = [", ".join(f"{name} {value}" for name, value in facts.items()) for facts in measured.facts]
    dtypes = dict.fromkeys(row.dtype for row in rows)
    lines.append("; ".join(f"{dtype}: {_range_of_points(rows, dtype)} inputs of each" for dtype in dtypes))
    lines += [remark for row in rows for remark in remarks(row)]
    other_fates = [f'{_key(row)} "{row.flush}"' for row in rows if row.dtype == "f32" and row.flush not in ("", flush)]
    lines += [f"below normal: {', '.join(other_fates)}"] if other_fates else []
    when = {name: _allowed([facts[name] for facts in measured.facts]) for name in measured.when}
    ulp = {_key(row): str(row.stated_ulp) for row in rows if row.dtype == "f32" or row.stated_ulp > 1}
    absolute = {_key(row): str(row.stated_absolute) for row in rows if row.stated_absolute}
    table = ["[[library]]", f'name = "{measured.library}"', f"when = {_inline(when)}", f"ulp = {_inline(ulp)}"]
    table += [f"absolute = {_inline(absolute)}", f'flush = "{flush}"', ""]
    return "\n".join([*(f"# {line}" for line in lines), *table])


def table(measured: MeasuredLibrary) -> str:
    """Return a table for the screen: what is stated, what was measured, and below it what figures do not say."""
    rows = measured.accuracies
    width = max([len(row.ulp_at) for row in rows] + [len(row.unit_at) for row in rows] + [2])
    head = f"{'':11}{'':5}{'stated':>12}{'ULP':>11} {'at':{width}}{'u':>9} {'at':{width}}  {'below normal':13}{'inputs':>14}"
    lines = [measured.library, *(" · ".join(f"{k} {v}" for k, v in facts.items()) for facts in measured.facts), head]
    for row in rows:
        stated = f"{row.stated_ulp}" + (f" + {row.stated_absolute} u" if row.stated_absolute else "")
        errors = f"{row.ulp:>11.4g} {row.ulp_at:{width}}{row.unit:>9.4g} {row.unit_at:{width}}"
        lines.append(f"{row.primitive:11}{row.dtype:5}{stated:>12}{errors}  {row.flush:13}{row.points:>14,}")
    lines += [remark for row in rows for remark in remarks(row)]
    reasons: dict[str, list[str]] = {}
    for name, reason in measured.unsupported.items():
        reasons.setdefault(reason, []).append(name)
    return "\n".join(
        [*lines, *(f"not measured: {', '.join(names)}: {reason}" for reason, names in reasons.items()), ""]
    )


def remarks(row: Accuracy) -> list[str]:
    """Return in words what of a primitive is not in the keys of a library."""
    name, words = _key(row), []
    tighter = row.stated_absolute > 0 or 2 * row.high_ulp < row.stated_ulp
    if row.underflow_steps and row.high_ulp <= MOST_ULP and tighter:
        words.append(
            f"{name}: {row.high_ulp} ULP and {row.underflow_steps} steps of the smallest subnormal number also hold"
        )
    if row.stated_absolute:
        words.append(f"{name}: {row.absolute:.2g} u beside {row.stated_ulp} ULP; {row.ulp:.2g} ULP at {row.ulp_at}")
    if row.early_count:
        words.append(f"{name}: infinite although the result is a number, from {row.early_overflow} on")
    return [*words, *(f"{name}: {kind} at {at}" for kind, at in row.wrong.items())]


def _key(row: Accuracy) -> str:
    return row.primitive if row.dtype == "f32" else f"{row.primitive}/{row.dtype}"


def _range_of_points(rows: Sequence[Accuracy], dtype: str) -> str:
    points = sorted({row.points for row in rows if row.dtype == dtype})
    return f"{points[0]:,}" + (f" to {points[-1]:,}" if len(points) > 1 else "")


def _inline(pairs: dict[str, str]) -> str:
    keys = {name: f'"{name}"' if "/" in name else name for name in pairs}
    return "{ " + ", ".join(f"{keys[name]} = {value}" for name, value in pairs.items()) + " }" if pairs else "{}"


def _allowed(values: Sequence[str]) -> str:
    """Return the minor versions that were measured as a specifier; other facts as a list of values."""
    try:
        releases = sorted((*Version(value).release, 0)[:2] for value in values)
    except InvalidVersion:
        return "[" + ", ".join(f'"{value}"' for value in sorted(set(values))) + "]"
    (major, minor), (last, last_minor) = releases[0], releases[-1]
    return f'">={major}.{minor},<{last}.{last_minor + 1}"'
