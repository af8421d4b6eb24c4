"""The folder of results: which run a build made, and what it has found so far.

The run writes `<run id>/results.json` at each change of a stage. A file is read again only when it has changed.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from pytest_coopcloud.naming import RUN_ID
from pytest_coopcloud.results import RESULTS_FILE, BrokenResultError, RunResult, read_result

__all__ = ["Runs"]

SLACK = 300.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Read:
    stamp: tuple[int, int]
    result: RunResult | None


class Runs:
    """The folder `path`, or None where this machine sees no results."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._read: dict[str, _Read] = {}

    @property
    def seen_here(self) -> bool:
        """Whether results are to be expected at all."""
        return self._path is not None

    def of_build(self, *, build: int, comment: int, recipe: str, since: float, run_id: str = "") -> RunResult | None:
        """Return what the run of a build has found so far.

        Args:
            build: Drone's number.
            comment: The comment that asked for it, for a run that does not know its build.
            recipe: The recipe; a run id begins with its first letters.
            since: No run that ended before this is looked at, seconds since the epoch by this machine's clock.
            run_id: The run, where it is known already.
        """
        if self._path is None:
            return None
        if run_id:
            result = self._load(run_id)
            return result if result is not None and _belongs(result, build, comment) else None
        head = f"{recipe[:4].replace('_', '-')}-"
        try:
            with os.scandir(self._path) as entries:
                names = [
                    entry.name
                    for entry in entries
                    if entry.name.startswith(head)
                    and RUN_ID.fullmatch(entry.name)
                    and entry.stat(follow_symlinks=False).st_mtime >= since - SLACK
                ]
        except OSError:
            return None
        found = [result for name in names if (result := self._load(name)) is not None]
        mine = [result for result in found if _belongs(result, build, comment)]
        return max(mine, key=lambda result: result.started_at, default=None)

    def forget(self, keep: set[str]) -> None:
        """Forget what was read of all runs but `keep`."""
        for name in set(self._read) - keep:
            del self._read[name]

    def _load(self, name: str) -> RunResult | None:
        assert self._path is not None
        path = self._path / name / RESULTS_FILE
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
            known = self._read.get(name)
            if known is not None and known.stamp == stamp:
                return known.result
            result = read_result(path)
        except OSError:
            return None
        except BrokenResultError as error:
            _log.warning("results cannot be read", extra={"run": name, "reason": str(error)[:300]})
            self._read[name] = _Read(stamp, None)
            return None
        self._read[name] = _Read(stamp, result)
        return result


def _belongs(result: RunResult, build: int, comment: int) -> bool:
    return result.build == build or (result.build is None and result.comment == str(comment))
