"""The connection to a Dask cluster, refused where its processes are not what a run can be spread over."""

from __future__ import annotations

import logging
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

from actconform.cluster.installation import Installation, installation, named_difference
from actconform.errors import UsageError
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Self

ANSWER_SECONDS = 10.0
HERE = "this process"


class Cluster:
    """The Dask cluster whose scheduler is at `address`, "tcp://HOST:PORT"; to be used as a context.

    Raises UsageError where distributed is not installed, no scheduler answers in `seconds` or it has no worker in that time, and where
    the scheduler or a worker has other versions, code or goldens than this process.
    """

    def __init__(self, address: str, seconds: float = ANSWER_SECONDS) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise UsageError('--cluster needs Dask: pip install "actconform[cluster]"') from None
        logging.getLogger("distributed").setLevel(
            logging.CRITICAL
        )  # what it tells of lost connections is told once, by us
        self.address = address
        try:
            if not address.strip():  # Dask would start a cluster of its own
                raise ValueError("it is empty")
            self.client = Client(address, timeout=seconds, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise self._refused(
                f"no Dask scheduler answers there within {seconds:g} s ({one_line(str(error), 120)}); wanted tcp://HOST:PORT, as "
                "`dask scheduler` prints it"
            ) from None
        try:
            self._installations = self._workers(seconds)
            self._resources = {
                worker: {name for name, amount in about["resources"].items() if amount >= 1}
                for worker, about in self.client.scheduler_info(n_workers=-1)["workers"].items()
            }
        except BaseException:
            self.close()
            raise

    def resources(self, name: str, *backends: str) -> dict[str, float]:
        """Return the resources of what needs these backends on one worker: their names, as far as any worker offers them. `name` is for messages.

        Raises UsageError where no worker offers them together, and where the workers that do are machines of different kinds.
        """
        offered = set().union(*self._resources.values())
        needed = offered.intersection(backends)
        able = [worker for worker in self._installations if needed <= self._resources.get(worker, set())]
        if not able:
            both = " and ".join(sorted(needed))
            raise self._refused(
                f"no worker offers {both} together, as {name} needs: start one with "
                f'--resources "{" ".join(f"{each}=1" for each in sorted(needed))}"'
            )
        self._refuse_unlike(name, backends[0], able)
        return dict.fromkeys(sorted(needed), 1.0)

    def threads(self, *, wait: bool) -> dict[str, int]:
        """Return how many threads each worker has, once there is a worker where `wait`; CancelledError where the scheduler is gone."""
        try:
            if wait:
                self.client.wait_for_workers(1)
            threads: dict[str, int] = self.client.nthreads()
        except OSError as error:
            raise CancelledError from error
        return threads

    def refuse_other_facts(
        self, name: str, facts: Mapping[str, dict[str, str]], first: Mapping[str, dict[str, str]]
    ) -> None:
        """Raise UsageError where a worker has other facts of backends than those that started them first. `name` is for messages."""
        for backend, now in facts.items():
            if unlike := named_difference(f"one worker of {backend}", now, "the first", first.get(backend, {})):
                raise self._unlike(name, backend, unlike)

    def close(self) -> None:
        """End the connection; the cluster goes on."""
        self.client.close(timeout=ANSWER_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _workers(self, seconds: float) -> dict[str, Installation]:
        """Return the installation of each worker, all with the versions of this process."""
        here = installation()
        self._refuse_unequal("the scheduler", self._asked_of_scheduler(), here)
        try:
            self.client.wait_for_workers(1, timeout=seconds)
        except TimeoutError:
            raise self._refused(
                f"it had no worker within {seconds:g} s; start one with `dask worker {self.address}`"
            ) from None
        workers: dict[str, Installation | Exception] = self.client.run(installation, on_error="return")
        return {worker: self._refuse_unequal(f"the worker {worker}", there, here) for worker, there in workers.items()}

    def _asked_of_scheduler(self) -> Installation | Exception:
        try:
            asked: Installation = self.client.run_on_scheduler(installation)
        except Exception as error:  # noqa: BLE001  what another process raises may be anything
            return error
        return asked

    def _refuse_unequal(self, where: str, there: Installation | Exception, here: Installation) -> Installation:
        if isinstance(there, Exception):
            reason = one_line(f"{type(there).__name__}: {there}", 200)
            raise self._refused(f"{where} has no actconform as here ({reason}): install the same packages there")
        if unequal := named_difference(where, there.versions, HERE, here.versions):
            raise self._refused(f"{unequal}: install the same on both")
        return there

    def _refuse_unlike(self, name: str, backend: str, workers: Iterable[str]) -> None:
        first, *others = workers
        for worker in others:
            machines = self._installations[worker].machine, self._installations[first].machine
            if unlike := named_difference(f"the worker {worker}", machines[0], f"the worker {first}", machines[1]):
                raise self._unlike(name, backend, unlike)

    def _unlike(self, name: str, backend: str, unlike: str) -> UsageError:
        return self._refused(
            f"results of {name} would depend on who computed them: {unlike}; start the workers of one kind of machine "
            f'with --resources "{backend}=1", and only they get these cases'
        )

    def _refused(self, reason: str) -> UsageError:
        return UsageError(f"--cluster {self.address}: {reason}")
