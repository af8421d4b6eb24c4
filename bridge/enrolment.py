"""Which repositories are enrolled: named ones, those in a file, and those of an organisation that carry a topic."""

from __future__ import annotations

import logging
from pathlib import Path

from bridge.api import ApiError
from bridge.clock import Clock
from bridge.comments import REPOSITORY
from bridge.gitea import Gitea

__all__ = ["Enrolment"]

_log = logging.getLogger(__name__)


class Enrolment:
    """The enrolled repositories, as far as is known. A list that cannot be had leaves the last one in force.

    Args:
        file: Names, one a line; read again when it changes.
        interval: Seconds between two looks at the organisations.
    """

    def __init__(
        self,
        gitea: Gitea,
        clock: Clock,
        *,
        repos: tuple[str, ...],
        file: Path | None,
        orgs: tuple[str, ...],
        topic: str,
        interval: float,
    ) -> None:
        self._gitea = gitea
        self._clock = clock
        self._repos = repos
        self._file = file
        self._orgs = orgs
        self._topic = topic
        self._interval = interval
        self._listed: dict[str, list[str]] = {}
        self._due: dict[str, float] = {}
        self._in_file: list[str] = []
        self._stamp: tuple[int, int] | None = None
        self._said: set[str] = set()

    @property
    def complete(self) -> bool:
        """Whether every organisation has been listed at least once."""
        return all(org in self._listed for org in self._orgs)

    def repositories(self) -> dict[str, str]:
        """Return the enrolled repositories: the name in lower case (the forge knows no difference) -> as it was given."""
        self._read_file()
        listed = [name for names in self._listed.values() for name in names]
        return {name.lower(): name for name in [*self._repos, *self._in_file, *listed]}

    def has(self, repo: str) -> bool:
        """Say whether a repository is enrolled."""
        return repo.lower() in self.repositories()

    async def refresh(self) -> None:
        """List the organisations whose list is due.

        Raises:
            ApiError: The forge did not answer; what was known stays.
        """
        for org in self._orgs:
            if self._due.get(org, 0.0) > self._clock.monotonic():
                continue
            try:
                names = await self._gitea.repositories(org, self._topic)
            except ApiError as error:
                _log.warning("cannot list an organisation", extra={"org": org, "reason": error.message})
                raise
            self._listed[org] = [name for name in names if self._is_usable(name)]
            self._due[org] = self._clock.monotonic() + self._interval

    def _read_file(self) -> None:
        if self._file is None:
            return
        try:
            stat = self._file.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp == self._stamp:
                return
            lines = self._file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            if str(error) not in self._said:
                self._said.add(str(error))
                _log.warning("cannot read the list of repositories", extra={"reason": str(error)})
            return
        names = [line.partition("#")[0].strip() for line in lines]
        self._in_file = [name for name in names if name and self._is_usable(name)]
        self._stamp = stamp

    def _is_usable(self, name: str) -> bool:
        if REPOSITORY.fullmatch(name):
            return True
        if name not in self._said and len(self._said) < 1000:
            self._said.add(name)
            _log.warning("left out what is no repository", extra={"repo": name[:80]})
        return False
