"""The forge: read what was asked under pull requests, keep one comment and one commit status current.

Written for Gitea 1.26 and Forgejo. What is easily got wrong about them:

* `since` means *updated since*, is inclusive and knows whole seconds; lists have `X-Total-Count` and no `Link` header, and
  no more than 50 entries a page. The comments of *one issue* come all at once, whatever page is asked for.
* Membership is 204 or 404 only for a bot that is a member itself; anything else is no answer.
* `head.sha` moves with the fork's branch at once; the timeline tells of the push a moment later.
* A comment whose author was deleted answers 500 by itself, and is in the list with the author -1.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from bridge.api import Answer, Api, AwayError, Params, RefusedError, TooLargeError
from bridge.comments import REPOSITORY, Comment, check_sha, read_comment, read_time

__all__ = ["CommitState", "Found", "Gitea", "Pull", "PullChange"]

PAGE_SIZES = (50, 10, 1)
TIMELINE_PAGES = 40
EMPTY_PAGES = 5

_log = logging.getLogger(__name__)


class CommitState(enum.Enum):
    """What a commit status says."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"


@dataclass(frozen=True)
class Pull:
    """A pull request.

    Attributes:
        repo: The repository it is opened against.
        sha: Its head at this moment.
        open: Whether it is open: neither closed nor merged.
        review_comments: How many comments its reviews hold, where the forge says so.
    """

    repo: str
    number: int
    sha: str
    open: bool
    review_comments: int


@dataclass(frozen=True)
class PullChange:
    """A pull request that the search found: where, and when it changed."""

    repo: str
    updated_at: float


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        pulls: The pull requests.
        date: The forge's time when it began.
        whole: False where entries came or went between two pages, so that one may have slipped through.
    """

    pulls: list[PullChange]
    date: float
    whole: bool


class Gitea:
    """The forge's API. `read` and `write` may carry different tokens of the same bot."""

    def __init__(self, read: Api, write: Api) -> None:
        self.read = read
        self.write = write
        self._me: int | None = None

    async def date(self) -> float:
        """Return the forge's own time."""
        return _dated(await self.read.ask("GET", "/version"))

    async def me(self) -> int:
        """Return the bot's number."""
        if self._me is None:
            self._me = int(_object(await self.write.ask("GET", "/user"))["id"])
        return self._me

    async def changed_pulls(self, owner: str, since: float) -> Found:
        """Find the open pull requests in all repositories of `owner` that changed since `since`."""
        pulls: list[PullChange] = []
        date: float | None = None
        total: int | None = None
        whole = True
        params: Params = {"type": "pulls", "state": "open", "owner": owner, "since": _time(since)}
        page, seen = 1, 0
        while True:
            answer = await self.read.ask(
                "GET", "/repos/issues/search", params={**params, "page": page, "limit": PAGE_SIZES[0]}
            )
            date = _dated(answer) if date is None else date
            rows = _list(answer)
            for row in rows:
                repo = str((row.get("repository") or {}).get("full_name", ""))
                if REPOSITORY.fullmatch(repo):
                    pulls.append(PullChange(repo, read_time(row["updated_at"])))
            whole = whole and (total is None or total == answer.total)
            total = answer.total
            seen += len(rows)
            if not rows or (total is not None and seen >= total):
                return Found(pulls, date, whole)
            page += 1

    async def comments(self, repo: str, since: float) -> AsyncIterator[Comment]:
        """Yield the comments of `repo` that changed since `since`, in the order in which they were made.

        A page that is too large is read again in smaller ones; a single comment that is too large is left out.

        Raises:
            AwayError: Also where comments went away between two pages, so that one may have slipped through.
        """
        at = 0
        largest = limit = PAGE_SIZES[0]
        total: int | None = None
        while True:
            size = next(one for one in (largest, *PAGE_SIZES) if one <= limit and at % one == 0)
            params: Params = {"since": _time(since), "page": at // size + 1, "limit": size}
            try:
                answer = await self.read.ask("GET", f"{_repo(repo)}/issues/comments", params=params)
            except TooLargeError as error:
                if size > 1:
                    limit = next(one for one in PAGE_SIZES if one < size)
                    continue
                _log.warning("left out a comment that is too large", extra={"repo": repo, "reason": error.message})
                at += 1
                continue
            rows = _list(answer)
            for row in rows:
                yield read_comment(repo, row)
            at += len(rows)
            if total is not None and answer.total is not None and answer.total < total:
                raise AwayError(f"comments of {repo} were deleted while they were read")
            total = answer.total
            if not rows or (total is not None and at >= total):
                return
            if len(rows) < size:
                # The server's own limit is smaller than what we asked for.
                largest = limit = len(rows)
            elif at % largest == 0:
                limit = largest

    async def comment(self, repo: str, comment: int, created_at: float) -> Comment | None:
        """Return a comment, or None where it is gone, or no comment of its own (a review)."""
        try:
            answer = await self.read.ask("GET", f"{_repo(repo)}/issues/comments/{comment}", expect=(200, 204, 404))
        except AwayError as error:
            if error.status != 500:
                raise
            # So answers a comment whose author's account is deleted, and only the list says so.
            async for listed in self.comments(repo, created_at):
                if listed.comment_id == comment and listed.author_id <= 0:
                    return listed
            raise
        return read_comment(repo, answer.data) if answer.status == 200 else None

    async def pull(self, repo: str, number: int) -> Pull | None:
        """Return a pull request, or None where there is none of that number."""
        answer = await self.read.ask("GET", f"{_repo(repo)}/pulls/{number}", expect=(200, 404))
        if answer.status == 404:
            return None
        data = _object(answer)
        base = ((data.get("base") or {}).get("repo") or {}).get("full_name") or repo
        return Pull(
            repo=str(base),
            number=number,
            sha=check_sha((data.get("head") or {}).get("sha")),
            open=data.get("state") == "open" and not data.get("merged"),
            review_comments=int(data.get("review_comments") or 0),
        )

    async def pull_ref(self, repo: str, number: int) -> str | None:
        """Return the commit of `refs/pull/<number>/head` in the repository itself, or None where it has no such ref.

        It follows the head's branch once the forge has dealt with a push.
        """
        ref = f"pull/{number}/head"
        answer = await self.read.ask("GET", f"{_repo(repo)}/git/refs/{ref}", expect=(200, 404))
        rows = answer.data if isinstance(answer.data, list) else [answer.data]
        for row in rows:
            if isinstance(row, dict) and row.get("ref") == f"refs/{ref}":
                return check_sha((row.get("object") or {}).get("sha"))
        return None

    async def pushed_since(self, pull: Pull, moment: float) -> bool:
        """Say whether the timeline tells of a push at or after `moment` (True also where that cannot be known)."""
        # The server pages first and takes the comments of reviews out afterwards, so a page that is short or empty need
        # not be the last. How many were taken out it does not always say: a few empty pages more are read.
        empty_allowed = EMPTY_PAGES + pull.review_comments // PAGE_SIZES[0]
        for page in range(1, TIMELINE_PAGES + 1):
            answer = await self.read.ask(
                "GET",
                f"{_repo(pull.repo)}/issues/{pull.number}/timeline",
                params={"since": _time(moment), "page": page, "limit": PAGE_SIZES[0]},
            )
            rows = _list(answer)
            if any(row.get("type") == "pull_push" and read_time(row["created_at"]) >= moment for row in rows):
                return True
            empty_allowed -= not rows
            if empty_allowed < 0:
                return False
        return True

    async def is_member(self, org: str, login: str) -> bool:
        """Say whether `login` is a member of `org`. Anything but a plain yes or no is an error."""
        path = f"/orgs/{quote(org, safe='')}/members/{quote(login, safe='')}"
        answer = await self.read.ask("GET", path, expect=(204, 404))
        return answer.status == 204

    async def user_id(self, login: str) -> int | None:
        """Return the number of the account that has this login now."""
        answer = await self.read.ask("GET", f"/users/{quote(login, safe='')}", expect=(200, 404))
        return int(_object(answer)["id"]) if answer.status == 200 else None

    async def repositories(self, org: str, topic: str) -> list[str]:
        """List the repositories of `org` that carry `topic` and are not archived."""
        owner = _object(await self.read.ask("GET", f"/orgs/{quote(org, safe='')}"))["id"]
        found: list[str] = []
        for page in range(1, 1001):
            params: Params = {"q": topic, "topic": "true", "uid": owner, "exclusive": "true"}
            answer = await self.read.ask(
                "GET", "/repos/search", params={**params, "page": page, "limit": PAGE_SIZES[0]}
            )
            rows = _object(answer).get("data") or []
            for row in rows:
                topics = row.get("topics")
                if not row.get("archived") and (topics is None or topic in topics):
                    found.append(str(row["full_name"]))
            if not rows:
                break
        return found

    async def post_comment(self, repo: str, pr: int, body: str) -> int:
        """Write a comment and return its id."""
        answer = await self.write.ask("POST", f"{_repo(repo)}/issues/{pr}/comments", data={"body": body}, expect=(201,))
        return int(_object(answer)["id"])

    async def edit_comment(self, repo: str, comment: int, body: str) -> bool:
        """Change the text of our comment; say whether it is still there."""
        answer = await self.write.ask(
            "PATCH", f"{_repo(repo)}/issues/comments/{comment}", data={"body": body}, expect=(200, 204, 404)
        )
        return answer.status == 200

    async def find_comment(self, repo: str, pr: int, *, marker: str, author_id: int, since: float) -> int | None:
        """Return the comment of `author_id` that ends with `marker`, or None. Anyone can type a marker, so the author counts."""
        found: int | None = None
        async for comment in self.comments(repo, since):
            if found is None and comment.pr == pr and comment.author_id == author_id:
                last = comment.body.rstrip().rpartition("\n")[2].strip()
                found = comment.comment_id if last == marker else None
        return found

    async def set_status(
        self, repo: str, sha: str, state: CommitState, *, context: str, description: str, url: str
    ) -> None:
        """Give a commit its status."""
        data = {"state": state.value, "context": context, "description": description, "target_url": url}
        await self.write.ask("POST", f"{_repo(repo)}/statuses/{sha}", data=data, expect=(201,))

    async def react(self, repo: str, comment: int, content: str) -> None:
        """Put a reaction under a comment; that it is there already is no error."""
        path = f"{_repo(repo)}/issues/comments/{comment}/reactions"
        await self.write.ask("POST", path, data={"content": content}, expect=(200, 201))


def _repo(name: str) -> str:
    if not REPOSITORY.fullmatch(name):
        raise RefusedError(f"{name[:80]!r} is no repository", status=404)
    return f"/repos/{name}"


def _time(moment: float) -> str:
    # `Z`, since an unescaped `+00:00` is refused.
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _dated(answer: Answer) -> float:
    if answer.date is None:
        raise AwayError("the forge's answer has no `Date` header")
    return answer.date


def _object(answer: Answer) -> dict[str, Any]:
    if not isinstance(answer.data, dict):
        raise AwayError(f"the answer holds {type(answer.data).__name__} where an object should be")
    return answer.data


def _list(answer: Answer) -> list[dict[str, Any]]:
    # Go writes an empty list as `null` in places.
    rows = answer.data if answer.data is not None else []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise AwayError("the answer holds something else where a list should be")
    return rows
