"""The document of known deviations, made from the registers: why they are there, by which formula, how that is proven."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.text import number_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from actconform.types.cause import Cause, Cover, LibraryAccuracy, Register

HEAD = """# Known deviations

All registered causes: where frameworks, exporters and runtimes are known to differ from the definition, and by which formula. Search this page for the id that a
report names after "known". `make docs` writes it from the `causes.toml` of the plugins and `golden/observed.json`; do not edit it.

A case is XFAIL only if every element of every finding lies within a formula here, or its finding has a class that is listed here. [causes.md](causes.md) explains the
formulas. "Explained" counts the elements in all recorded runs, and states the largest share of the formula's bound that one of them took.
"""


def document(register: Register, evidence: Mapping[str, tuple[int, float]]) -> str:
    """Return the Markdown document of a register in its own order; `evidence` holds elements explained and share used by cause."""
    lines = [HEAD, *_libraries(register.libraries)]
    for cause in register.causes:
        lines += _cause(cause, evidence.get(cause.id))
    return "\n".join(lines).rstrip("\n") + "\n"


def _libraries(libraries: tuple[LibraryAccuracy, ...]) -> Iterator[str]:
    yield "## Libraries\n"
    yield "The largest errors of primitives in f32, in ULP of the result, plus units u of 2^-24; in 16 bits 1 ULP unless stated.\n"
    yield "| library | holds for | primitives | subnormal numbers |"
    yield "|---|---|---|---|"
    for library in libraries:
        names = sorted({*library.ulp, *library.absolute})
        stated = (
            f"{name} {library.ulp.get(name, 0):g}"
            + (f" + {library.absolute[name]:g} u" if name in library.absolute else "")
            for name in names
        )
        flush = library.flush or "by the fact `subnormals`"
        yield _row([library.name, _when(library.when) or "any", ", ".join(stated), flush])
    yield ""


def _cause(cause: Cause, proof: tuple[int, float] | None) -> Iterator[str]:
    yield f"## {cause.id}\n"
    link = f"[reported]({cause.link})" if cause.link.startswith("http") else cause.link
    yield f"{' '.join(cause.reason.split())} ({link}; since {cause.since})\n"
    words = [f"Routes: {', '.join(f'`{route}`' for route in cause.routes)}."]
    if cause.library:
        words.append(f"Library: {cause.library}.")
    if cause.when:
        words.append(f"Where {_when(cause.when)}.")
    if proof:
        count, used = proof
        words.append(
            f"Explained: {number_of(count, 'element')}" + (f", at most {used:.2g} of the bound." if used else ".")
        )
    yield " ".join(words) + "\n"
    if cause.graph:
        yield "The graph is the formula, provided that computed exactly it is the definition.\n"
    if cause.rewrite:
        yield f"For `actconform check` on a user's model: the graph rewritten by `{cause.rewrite}` is the formula.\n"
    rows = [[f"{kernel}", "value", _texts(texts)] for kernel, texts in cause.value.items()]
    rows += [[f"{kernel}", "gradient", _texts(texts)] for kernel, texts in cause.gradient.items()]
    rows += [[kernel, "both", f"as {name}"] for kernel, name in cause.same_as.items()]
    rows += [[", ".join(cover.kernels), cover.aspect, _cover(cover)] for cover in cause.covers]
    if rows:
        yield "| kernel | aspect | formula, or what is covered |"
        yield "|---|---|---|"
        yield from (_row(row) for row in rows)
        yield ""


def _texts(texts: str | tuple[str, ...]) -> str:
    return " or ".join(f"`{' '.join(text.split())}`" for text in ((texts,) if isinstance(texts, str) else texts))


def _cover(cover: Cover) -> str:
    words = [str(cover.class_)]
    words += [
        f"{name} {', '.join(globs)}"
        for name, globs in (("dtypes", cover.dtypes), ("tensors", cover.tensors), ("regimes", cover.regimes))
        if globs != ("*",)
    ]
    if cover.bound != float("inf"):
        words.append(f"at most {cover.bound:g}")
    return "; ".join(words)


def _when(when: Mapping[str, str | tuple[str, ...]]) -> str:
    return "; ".join(
        f"{fact} {wanted if isinstance(wanted, str) else ' or '.join(wanted)}" for fact, wanted in when.items()
    )


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
