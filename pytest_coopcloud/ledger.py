"""What a run owns, on disk before it exists, and the lock that says the run lives.

`$COOPCLOUD_CI_STATE/runs/<run id>/` holds `ledger.json` and `lock`. The lock is a kernel lock on an open file: it is held
by the run, and by its reaper, which inherits the same open file; so it passes from one to the other without a gap and is
free the moment both are dead. The file itself is never removed while the folder stands: a waiter could hold the old one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pytest_coopcloud.errors import BadInputError, CoopCloudError
from pytest_coopcloud.naming import RunName
from pytest_coopcloud.results import CauseClass

__all__ = ["Ledger", "Lock", "LockedError", "StateError", "lock_slot", "state_folder"]

LEDGER_FILE = "ledger.json"
LOCK_FILE = "lock"
#: Given back when the state directory fills up in the middle of a run, so that its end can still be written.
RESERVE_FILE = "reserve"
RESERVE_BYTES = 512 * 1024


class StateError(BadInputError):
    """The state directory cannot be used."""

    default_cause = CauseClass.INFRASTRUCTURE


class LockedError(CoopCloudError):
    """Somebody else holds the lock."""


def state_folder() -> Path:
    """Return `$COOPCLOUD_CI_STATE`, else `coopcloud-ci` below `$XDG_STATE_HOME`."""
    given = os.environ.get("COOPCLOUD_CI_STATE")
    if given:
        return Path(given).absolute()
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "coopcloud-ci"


class Lock:
    """A kernel lock (`flock`) on a file. It is free when every process that has this open file is dead or has let go.

    Attributes:
        fd: The descriptor, to hand on to a child.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    @classmethod
    def inherited(cls, fd: int, path: Path) -> Lock:
        """Take over an open lock file from the parent process."""
        made = cls.__new__(cls)
        made.path, made.fd = path, fd
        os.set_inheritable(fd, False)
        return made

    def try_exclusive(self) -> bool:
        """Take the lock for one holder alone, if that is possible at once. A shared lock of ours is given up for it."""
        return self._flock(fcntl.LOCK_EX | fcntl.LOCK_NB)

    def exclusive(self) -> None:
        """Wait for the lock."""
        self._flock(fcntl.LOCK_EX)

    def shared(self) -> None:
        """Wait for a lock that several may hold."""
        self._flock(fcntl.LOCK_SH)

    def release(self) -> None:
        """Let go. Somebody who inherited the open file loses it too."""
        self._flock(fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file; the lock goes with the last one that has it open."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _flock(self, operation: int) -> bool:
        try:
            fcntl.flock(self.fd, operation)
        except BlockingIOError:
            return False
        return True

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lock_slot(folder: Path, slots: int, *, timeout: float, waiting: Callable[[str], None]) -> Lock:
    """Take one of the host's places for a run, waiting for one that is free.

    Args:
        folder: Where the lock files are, one a place.
        slots: How many runs the host may have at once.
        timeout: Seconds to wait.
        waiting: Called once with a sentence, when there is something to wait for.

    Raises:
        LockedError: No place became free in time.
    """
    locks = [Lock(folder / str(number)) for number in range(slots)]
    for lock in locks:
        if lock.try_exclusive():
            for other in locks:
                if other is not lock:
                    other.close()
            return lock
    holders = ", ".join(sorted(_holder(lock) for lock in locks))
    waiting(f"waiting for {holders} to end ({slots} at once on this host), at most {timeout:g} s")
    # The kernel wakes whoever waits in flock; one thread a place, and the first that gets one wins.
    won: list[Lock] = []
    guard, over = threading.Condition(), False

    def wait_for(lock: Lock) -> None:
        with contextlib.suppress(OSError):
            lock.exclusive()
        with guard:
            if won or over:
                lock.close()
            else:
                won.append(lock)
                guard.notify_all()

    for lock in locks:
        threading.Thread(target=wait_for, args=(lock,), name=f"slot-{lock.path.name}", daemon=True).start()
    with guard:
        guard.wait_for(lambda: won, timeout)
        over = True
    if not won:
        raise LockedError(
            f"waited {timeout:g} s for {holders} to end",
            hint="raise `--max-runs`, or see `coopcloud-ci janitor --dry-run` for what is running",
        )
    return won[0]


def _holder(lock: Lock) -> str:
    with contextlib.suppress(OSError):
        return f"run {lock.path.read_text().strip()}" if lock.path.stat().st_size else "another run"
    return "another run"


@dataclass
class Ledger:
    """What a run owns.

    Every change is on disk, synced, before the caller goes on: first `own`, then create.

    Attributes:
        run_id: The run.
        base_domain: What makes its names with it (`RunName`).
        recipe: The recipe's name.
        pid: The process of the run.
        created_at: Seconds since the epoch.
        owned: `<kind> <name>` of each thing, in the order of creation.
        stage: The stage that is running.
        stage_deadline: When it must have ended, seconds of the monotonic clock; 0 for never.
        run_deadline: Likewise for the run.
        kept: Whether the app stays on purpose (`--keep-app`).
        clean: Whether it has been taken down and nothing was left.
    """

    folder: Path
    run_id: str
    base_domain: str
    recipe: str
    pid: int = 0
    created_at: float = 0.0
    owned: list[str] = field(default_factory=list)
    stage: str = ""
    stage_deadline: float = 0.0
    run_deadline: float = 0.0
    kept: bool = False
    clean: bool = False

    @property
    def name(self) -> RunName:
        """The run's names."""
        return RunName(self.run_id, self.base_domain)

    @classmethod
    def open(cls, state: Path, name: RunName, recipe: str) -> tuple[Ledger, Lock]:
        """Make the folder, the lock and the ledger of a new run.

        Raises:
            StateError: The state directory cannot be written, or is full. Nothing is left of the attempt.
        """
        folder = state / "runs" / name.run_id
        try:
            folder.mkdir(parents=True)
            lock = Lock(folder / LOCK_FILE)
            lock.exclusive()
            with (folder / RESERVE_FILE).open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, RESERVE_BYTES)
            ledger = cls(
                folder=folder,
                run_id=name.run_id,
                base_domain=name.base_domain,
                recipe=recipe,
                pid=os.getpid(),
                created_at=time.time(),
            )
            ledger.save()
        except OSError as error:
            with contextlib.suppress(OSError):
                for file in folder.iterdir():
                    file.unlink()
                folder.rmdir()
            raise StateError(
                f"the state directory {state} cannot be used: {error.strerror}",
                hint="free some space there, or name another one with COOPCLOUD_CI_STATE",
            ) from error
        return ledger, lock

    @classmethod
    def read(cls, folder: Path) -> Ledger:
        """Read the ledger of a run.

        Raises:
            StateError: There is none, or it is broken.
        """
        try:
            raw = json.loads((folder / LEDGER_FILE).read_text(encoding="utf-8"))
            known = {key: raw[key] for key in raw if key in cls.__dataclass_fields__ and key != "folder"}
            return cls(folder=folder, **known)
        except (OSError, ValueError, TypeError) as error:
            raise StateError(f"the ledger in {folder} cannot be read: {error}") from error

    def own(self, things: Iterable[str]) -> None:
        """Write down what is about to be created, as `<kind> <name>`."""
        fresh = [thing for thing in dict.fromkeys(things) if thing not in self.owned]
        if fresh:
            self.owned += fresh
            self.save()

    def save(self) -> None:
        """Write the ledger and sync it. Where the disk is full, the reserve is given back and it is tried once more."""
        text = json.dumps({key: value for key, value in asdict(self).items() if key != "folder"}, indent=1)
        try:
            self._write(text)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self.free_reserve():
                raise
            self._write(text)

    def free_reserve(self) -> bool:
        """Give the reserved space back; False where that was done before."""
        try:
            (self.folder / RESERVE_FILE).unlink()
        except OSError:
            return False
        return True

    def _write(self, text: str) -> None:
        temporary = self.folder / f".{LEDGER_FILE}.{os.getpid()}"
        try:
            with temporary.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self.folder / LEDGER_FILE)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def ledgers(state: Path) -> Iterator[Path]:
    """Yield the folder of each run that has a ledger."""
    with contextlib.suppress(OSError):
        for folder in sorted((state / "runs").iterdir()):
            if (folder / LEDGER_FILE).exists():
                yield folder
