"""Drone: ask for a build, follow it, cancel it.

What is easily got wrong about it:

* Only the query string becomes parameters, and any name does: `BuildRequest` sends five or six, each checked.
* `200` may be `null` (no pipeline matched) or a build with the status `error` and no parameters (broken YAML).
* There is no way to ask twice and get one build: after a lost answer the list is searched for our comment's id.
* A cancelled build is `killed`, and so is one that ran into the timeout; words unknown to us are not final.
* A restart makes a new number with the old parameters.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Any

from bridge.api import Api, AwayError, Params
from bridge.comments import REPOSITORY, SHA
from pytest_coopcloud.errors import BadInputError, BadNameError
from pytest_coopcloud.naming import check_recipe_name
from pytest_coopcloud.results import Stage

__all__ = ["Build", "BuildRequest", "BuildStatus", "Drone", "Step"]

PER_PAGE = 100
PAGES = 50

_NUMBER = re.compile(r"[1-9][0-9]{0,11}")


class BuildStatus(enum.Enum):
    """Drone's word for how far a build, stage or step is. `UNKNOWN` stands for all words that are not here."""

    SKIPPED = "skipped"
    BLOCKED = "blocked"
    DECLINED = "declined"
    WAITING = "waiting_on_dependencies"
    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    KILLED = "killed"
    ERROR = "error"
    UNKNOWN = "unknown"

    @property
    def is_final(self) -> bool:
        """Whether it stays so."""
        return self in _FINAL

    @property
    def is_queued(self) -> bool:
        """Whether it waits for its turn."""
        return self in (BuildStatus.PENDING, BuildStatus.WAITING, BuildStatus.BLOCKED)


_FINAL = {
    BuildStatus.SKIPPED,
    BuildStatus.DECLINED,
    BuildStatus.SUCCESS,
    BuildStatus.FAILURE,
    BuildStatus.KILLED,
    BuildStatus.ERROR,
}


@dataclass(frozen=True)
class BuildRequest:
    """The parameters of a build, and no others: each becomes a variable in the environment of the test.

    Raises:
        BadInputError: One of them is not what it should be.
    """

    recipe: str
    ref: str
    pr: int
    src: str
    comment: int
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        check_recipe_name(self.recipe)
        if not SHA.fullmatch(self.ref):
            raise BadInputError(f"{self.ref[:80]!r} is no commit", hint="a commit has 40 or 64 hex digits")
        if not REPOSITORY.fullmatch(self.src):
            raise BadNameError(f"{self.src[:80]!r} is no repository", hint="a repository is `owner/name`")
        for number in (self.pr, self.comment):
            if not _NUMBER.fullmatch(str(number)):
                raise BadInputError(f"{str(number)[:80]!r} is no number of a pull request or comment")

    @property
    def params(self) -> dict[str, str]:
        """Name and value, as Drone gets them."""
        params = {
            "RECIPE": self.recipe,
            "REF": self.ref,
            "PR": str(self.pr),
            "SRC": self.src,
            "COMMENT": str(self.comment),
        }
        if self.stages:
            params["STAGES"] = ",".join(stage.value for stage in self.stages)
        return params


@dataclass(frozen=True)
class Step:
    """A step of a build, by Drone's name for it (outside text)."""

    name: str
    status: BuildStatus


@dataclass(frozen=True)
class Build:
    """A build.

    Attributes:
        number: Its number in the CI repository.
        params: Its parameters; empty where its YAML was broken.
        created, started, finished: Drone's time; 0 where that has not happened.
        error: What was wrong, for `BuildStatus.ERROR`. Outside text.
        parent: The build that it restarts; 0 for none.
        steps: Filled only where the build was asked for by itself.
    """

    number: int
    status: BuildStatus
    params: dict[str, str] = field(default_factory=dict)
    created: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    error: str = ""
    parent: int = 0
    steps: tuple[Step, ...] = ()

    @property
    def comment(self) -> int | None:
        """The comment that asked for it."""
        text = self.params.get("COMMENT", "")
        return int(text) if _NUMBER.fullmatch(text) else None

    @property
    def duration(self) -> float | None:
        """Seconds that it ran; None where it did not, or still does."""
        return self.finished - self.started if self.started and self.finished >= self.started else None


class Drone:
    """The API of Drone, for one CI repository."""

    def __init__(self, api: Api, *, repo: str, branch: str = "") -> None:
        self.api = api
        self._path = f"/repos/{repo}"
        self._branch = branch

    async def create(self, request: BuildRequest) -> Build | None:
        """Ask for a build; None where no pipeline of the CI repository matched."""
        params: Params = {"branch": self._branch} if self._branch else {}
        answer = await self.api.ask("POST", f"{self._path}/builds", params={**params, **request.params})
        return None if answer.data is None else _build(answer.data)

    async def builds(self, page: int = 1) -> list[Build]:
        """Return a page of the builds, the newest first."""
        answer = await self.api.ask("GET", f"{self._path}/builds", params={"page": page, "per_page": PER_PAGE})
        rows = answer.data if answer.data is not None else []
        if not isinstance(rows, list):
            raise AwayError("drone: the list of builds is no list")
        return [_build(row) for row in rows]

    async def find(self, comment: int, *, newer_than: int) -> Build | None:
        """Return the first build with a number over `newer_than` that carries our comment's id."""
        found: Build | None = None
        for page in range(1, PAGES + 1):
            rows = await self.builds(page)
            for build in rows:
                if build.number <= newer_than:
                    return found
                if build.comment == comment:
                    found = build
            if len(rows) < PER_PAGE:
                return found
        return found

    async def build(self, number: int) -> Build | None:
        """Return a build with its steps, or None where it was deleted."""
        answer = await self.api.ask("GET", f"{self._path}/builds/{number}", expect=(200, 404))
        return _build(answer.data) if answer.status == 200 else None

    async def cancel(self, number: int) -> None:
        """Cancel a build; one that has ended stays as it is."""
        await self.api.ask("DELETE", f"{self._path}/builds/{number}", expect=(200, 204, 404))

    async def timeout(self) -> float:
        """Return after how many seconds Drone kills a build."""
        answer = await self.api.ask("GET", self._path)
        return float(answer.data.get("timeout") or 60) * 60 if isinstance(answer.data, dict) else 3600.0


def _status(word: object) -> BuildStatus:
    try:
        return BuildStatus(word)
    except ValueError:
        return BuildStatus.UNKNOWN


def _build(data: Any) -> Build:
    try:
        params = data.get("params") or {}
        return Build(
            number=int(data["number"]),
            status=_status(data.get("status")),
            params={str(name): str(value) for name, value in params.items()},
            created=float(data.get("created") or 0),
            started=float(data.get("started") or 0),
            finished=float(data.get("finished") or 0),
            error=str(data.get("error") or data.get("message_error") or ""),
            parent=int(data.get("parent") or 0),
            steps=tuple(
                Step(str(step.get("name", "")), _status(step.get("status")))
                for stage in data.get("stages") or []
                for step in stage.get("steps") or []
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AwayError(f"drone: no build: {error!r}", doubtful=True) from None
