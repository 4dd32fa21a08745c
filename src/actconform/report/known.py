"""The document of known deviations, made from the registers: what differs, where, by how much, why, and whose it is."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.types import Deviation

HEAD = """# Known deviations

Made by `make docs` from the `deviations.toml` of the plugins; do not edit. A case is XFAIL only when every one of its findings
is covered here, inside the inputs and within the bound; anything else fails the run, and so does an entry that no longer shows.
Bounds are in ULP for `tail` and `range`, in units of the limit's scale for `scaled-error`, `kink` and `bias`; they carry a margin
over what was seen. Classes without a magnitude have none.
"""


def document(register: Sequence[Deviation]) -> str:
    """Return the Markdown document of a register, grouped by route, in a stable order."""
    by_route: dict[str, list[Deviation]] = defaultdict(list)
    for deviation in register:
        by_route[", ".join(deviation.routes)].append(deviation)
    parts = [HEAD]
    for route in sorted(by_route):
        parts.append(f"## {route}\n")
        parts.append("| id | class | aspect | kernels | dtypes | inputs | bound | when | why |")
        parts.append("|---|---|---|---|---|---|---|---|---|")
        parts += [_row(deviation) for deviation in sorted(by_route[route], key=lambda deviation: deviation.id)]
        parts.append("")
    return "\n".join(parts)


def _row(deviation: Deviation) -> str:
    inputs = (
        ", ".join(part if isinstance(part, str) else f"[{part[0]:g}, {part[1]:g}]" for part in deviation.inputs)
        or "any"
    )
    when = "; ".join(
        f"{fact} {wanted if isinstance(wanted, str) else ' or '.join(wanted)}"
        for fact, wanted in deviation.when.items()
    )
    link = f"[link]({deviation.link})" if deviation.link.startswith("http") else deviation.link
    why = f"{deviation.reason} ({'; '.join(filter(None, (deviation.blame, link)))})"
    cells = [
        f"`{deviation.id}`",
        deviation.class_,
        deviation.aspect,
        ", ".join(deviation.kernels),
        ", ".join(deviation.dtypes),
        inputs,
        f"{deviation.bound:g}" if deviation.bound else "",
        when,
        why,
    ]
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
