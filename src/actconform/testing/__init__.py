"""What tests call: `assert_conforms` for a model of one's own, `BackendContract`, which needs pytest, for a plugin."""

from typing import TYPE_CHECKING, Any

from actconform.testing.conforming_model import assert_conforms

if TYPE_CHECKING:
    from actconform.testing.backend_contract import BackendContract

__all__ = ["BackendContract", "assert_conforms"]


def __getattr__(name: str) -> Any:
    if name == "BackendContract":
        from actconform.testing.backend_contract import BackendContract

        return BackendContract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
