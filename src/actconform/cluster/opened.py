"""A run that is open on all workers of a cluster, those that come later among them, until it ends."""

from __future__ import annotations

import uuid
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from actconform.cluster.installation import installation
from actconform.cluster.tasks import OpenRun, PortablePlan
from actconform.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actconform.cluster.connection import Cluster
    from actconform.settings import Config
    from actconform.types.cause import Register


@contextmanager
def opened_on(cluster: Cluster, config: Config, register: Register, plugins: Sequence[str] = ()) -> Iterator[str]:
    """Yield the name under which tasks find the run; at the end the workers end its processes, at once where one computes.

    Raises UsageError where the scheduler goes in the meantime.
    """
    # The register has the files of the settings already; what is named relative to the settings is found beside them.
    config = msgspec.structs.replace(config, deviations=(), path=str(Path(config.path).resolve()))
    portable = PortablePlan(config, register, tuple(plugins), installation().versions)
    client, name = cluster.client, f"actconform-{uuid.uuid4().hex}"
    try:
        client.register_plugin(OpenRun(portable), name=name)
        yield name
    except CancelledError:
        raise UsageError(
            f"--cluster {cluster.address}: the scheduler is gone, or dropped this run; what came until then is kept: start it and run "
            "again with --resume"
        ) from None
    finally:
        if client.status == "running":
            with suppress(OSError, TimeoutError, CancelledError):
                client.unregister_worker_plugin(name)
