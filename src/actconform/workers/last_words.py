"""What a command said last, for the driver that ends a worker in the midst of a call: SIGUSR1 writes it to standard error."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_running: list[Callable[[], list[str]]] = []


@contextmanager
def speaking(last_lines: Callable[[], list[str]]) -> Iterator[None]:
    """While the body runs, `last_lines` says what a command said last."""
    _running.append(last_lines)
    try:
        yield
    finally:
        _running.remove(last_lines)


def tell_last_words() -> None:
    """From now on a driver that asks where this process hangs gets a command's last lines, where one runs, in place of the stack."""
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, _tell)


def _tell(_number: int, _frame: FrameType | None) -> None:
    lines = [line for last_lines in _running[-1:] for line in last_lines()]
    if not _running:
        faulthandler.dump_traceback(all_threads=False)
    os.write(2, "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))
