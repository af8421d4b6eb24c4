"""What the last run of each service came to, and the lock that lets one run happen at a time."""

from __future__ import annotations

import contextlib
import enum
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["Outcome", "Record", "one_at_a_time", "read_record", "write_record"]


class Outcome(enum.Enum):
    """How a run ended."""

    CONVERGED = "converged"
    FAILED = "failed"


@dataclass(frozen=True)
class Record:
    """One run of one service.

    Attributes:
        outcome: How it ended.
        reason: Why it failed; empty else.
        wished: A fingerprint of what was asked for.
        stack: The stack it deployed, or empty.
        network: The id of the shared network at that time.
        services: A fingerprint of each service's spec as the engine held it after the deploy.
        changed: Whether something was deployed.
        time: When it ended, seconds since 1970.
    """

    outcome: Outcome
    reason: str = ""
    wished: str = ""
    stack: str = ""
    network: str = ""
    services: dict[str, str] = field(default_factory=dict)
    changed: bool = False
    time: float = field(default_factory=time.time)


def read_record(state_dir: Path, name: str) -> Record | None:
    """Return the last record of a service; None where there is none or it cannot be read."""
    try:
        data = json.loads((state_dir / f"{name}.json").read_text(encoding="utf-8"))
        data["outcome"] = Outcome(data["outcome"])
        return Record(**data)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_record(state_dir: Path, name: str, record: Record) -> None:
    """Write a record in one step."""
    fresh = state_dir / f"{name}.json.new"
    data = asdict(record) | {"outcome": record.outcome.value}
    fresh.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    fresh.replace(state_dir / f"{name}.json")


@contextlib.contextmanager
def one_at_a_time(state_dir: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of all reconcile runs of this host; who comes second waits, and says so."""
    state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    fd = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run holds the lock, waiting for it")
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
