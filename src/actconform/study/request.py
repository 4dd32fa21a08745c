"""What a user asks of a study."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple


class StudyRequest(NamedTuple):
    """The options of `actconform study`; no experiments, kernels or roles are the usual experiments, all kernels, both roles.

    `experiments` and `kernels` are globs. `epochs` is the most of a training; 0: the experiment's own. `reach` is the stated loss, as a share of
    that of the best constant answer.
    """

    experiments: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    seeds: int = 5
    epochs: int = 20
    reach: float = 0.5
    backend: str = "torch"
    out: Path = Path("study-out")
    resume: bool = False

    @property
    def command_line(self) -> str:
        """The command that asks for the same, options that are as by default, and --resume, left out."""
        words = ["actconform", "study", *self.experiments]
        words += [word for kernel in self.kernels for word in ("--kernel", kernel)]
        words += [word for role in self.roles for word in ("--role", role)]
        for name in ("seeds", "epochs", "reach", "backend", "out"):
            value = getattr(self, name)
            if value != getattr(USUAL_REQUEST, name):
                words += [f"--{name}", f"{value}"]
        return shlex.join(words)


USUAL_REQUEST = StudyRequest()
