"""What can go wrong while a service is brought up: what happened, then what to do."""

from __future__ import annotations

__all__ = [
    "CommandError",
    "EngineStateError",
    "NotConvergedError",
    "PredecessorError",
    "ReconcileError",
    "SettingError",
]


class ReconcileError(Exception):
    """The service is not as wished. `hint` says what to do next."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}\n\nhint: {hint}" if hint else message)
        self.reason = message


class SettingError(ReconcileError):
    """A `RECONCILE_*` variable is missing or wrong."""


class CommandError(ReconcileError):
    """A command ended with an error."""


class EngineStateError(ReconcileError):
    """The engine is in a state that we do not change by ourselves."""


class PredecessorError(ReconcileError):
    """The service before this one in the chain is not well."""


class NotConvergedError(ReconcileError):
    """The service was deployed and did not become healthy."""
