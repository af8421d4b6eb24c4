"""Doubles of what is outside: a clock that does not wait, a forge and a Drone that refuse what the real ones refuse.

Both servers are one function, `handle(request) -> response`: in process behind `transport(...)`, or on a port
behind `serve(...)`. They answer as Gitea 1.26 and Drone 1.10 were measured to; what they do not know they answer with
599, and remember in `unexpected`.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import httpx

__all__ = ["FakeClock", "FakeComment", "FakeDrone", "FakeGitea", "FakePull", "FakeRepo", "serve", "transport"]

FORGE_TOKEN = "forge-0123456789abcdef"
DRONE_TOKEN = "drone-0123456789abcdef"


class FakeClock:
    """Time that passes only when it is told to."""

    def __init__(self, start: float = 1_790_000_000.0) -> None:
        self._now = start
        self._offset = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def time(self) -> float:
        return self._now + self._offset

    def monotonic(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        """Set the clock on the wall, which measures no duration."""
        self._offset += seconds

    def advance(self, seconds: float) -> None:
        self._now += seconds
        for deadline, event in self._sleepers:
            if deadline <= self._now:
                event.set()

    @property
    def next_deadline(self) -> float:
        """Seconds until the first sleeper wakes."""
        return min((deadline for deadline, _ in self._sleepers), default=self._now) - self._now

    async def wait(self, event: asyncio.Event, timeout: float) -> bool:
        over = asyncio.Event()
        sleeper = (self._now + timeout, over)
        self._sleepers.append(sleeper)
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(over.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._sleepers.remove(sleeper)
            for one in waits:
                one.cancel()
        return event.is_set()


Fault = str
"""`500`, `502`, `429`, ... before the request is done; `lost` after it is done; `connect`; `hang`; `html`; `cut`."""


class FakeServer:
    """What both doubles share: routes, tokens, faults and a memory of what was asked."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.fault: Callable[[str, str], Fault | None] = lambda _method, _path: None
        self.asked: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.down = False
        self.retry_after = ""
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., httpx.Response]]] = []

    def route(self, method: str, pattern: str, answer: Callable[..., httpx.Response]) -> None:
        self._routes.append((method, re.compile(pattern), answer))

    def handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        fault = "connect" if self.down else self.fault(request.method, path)
        self.asked[f"{request.method} {re.sub(r'[0-9]+', 'N', path)}"] += 1
        if fault == "connect":
            raise httpx.ConnectError("connection refused", request=request)
        if fault == "hang":
            raise httpx.ReadTimeout("it hangs", request=request)
        if fault and fault.isdecimal():
            headers = {"Retry-After": self.retry_after} if self.retry_after else {}
            return self.stamp(httpx.Response(int(fault), text="<html>oops</html>", headers=headers))
        response = self.stamp(self.answer(request, path))
        if fault == "lost":
            raise httpx.ReadError("connection reset", request=request)
        if fault == "html":
            return self.stamp(httpx.Response(200, html="<html>welcome</html>"))
        if fault == "cut":
            return self.stamp(
                httpx.Response(response.status_code, content=response.content[: len(response.content) // 2])
            )
        return response

    def answer(self, request: httpx.Request, path: str) -> httpx.Response:
        for method, pattern, answer in self._routes:
            found = pattern.fullmatch(path)
            if method == request.method and found:
                return answer(request, *(unquote(part) for part in found.groups()))
        self.unexpected.append(f"{request.method} {request.url}")
        return httpx.Response(599, json={"message": "the double does not know this"})

    def stamp(self, response: httpx.Response) -> httpx.Response:
        response.headers["Date"] = email.utils.formatdate(self.clock.time(), usegmt=True)
        return response


@dataclass
class FakeComment:
    id: int
    number: int
    user: int
    body: str
    created: int
    updated: int
    original_author: str = ""


@dataclass
class FakePull:
    number: int
    sha: str
    ref_sha: str
    state: str = "open"
    merged: bool = False
    is_pull: bool = True
    locked: bool = False
    updated: int = 0
    review_comments: int = 0
    timeline: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class FakeRepo:
    full_name: str
    topics: list[str] = field(default_factory=list)
    archived: bool = False
    pulls: dict[int, FakePull] = field(default_factory=dict)
    comments: dict[int, FakeComment] = field(default_factory=dict)
    statuses: list[dict[str, str]] = field(default_factory=list)
    reactions: list[tuple[int, str]] = field(default_factory=list)


class FakeGitea(FakeServer):
    """A forge with users, one organisation of members, repositories, pull requests and comments."""

    BOT = 1
    SCOPES = frozenset({"write:issue", "write:repository", "read:organization", "read:user"})

    def __init__(self, clock: Any, *, url: str = "http://forge.test") -> None:
        super().__init__(clock)
        self.url = url
        self.users = {1: "testbot", 2: "alice", 3: "bob", 4: "mallory"}
        self.members = {"recipe-maintainers": {1, 2, 3}}
        self.tokens = {FORGE_TOKEN: (self.BOT, set(self.SCOPES))}
        self.repos: dict[str, FakeRepo] = {}
        self.orgs = {"recipe-maintainers": 900, "coop-cloud": 901}
        self.posts: list[int] = []
        self.edits: list[tuple[float, int]] = []
        self._next = 100
        self._lock = threading.RLock()
        repo = "/api/v1/repos/([^/]+/[^/]+)"
        self.route("GET", "/api/v1/version", lambda _r: httpx.Response(200, json={"version": "1.26.0"}))
        self.route("GET", "/api/v1/user", self._user)
        self.route("GET", "/api/v1/users/([^/]+)", self._user_by_name)
        self.route("GET", "/api/v1/orgs/([^/]+)", self._org)
        self.route("GET", "/api/v1/orgs/([^/]+)/members/([^/]+)", self._member)
        self.route("GET", "/api/v1/repos/search", self._search_repos)
        self.route("GET", "/api/v1/repos/issues/search", self._search_issues)
        self.route("GET", f"{repo}/issues/comments", self._list_comments)
        self.route("GET", f"{repo}/issues/comments/([0-9]+)", self._get_comment)
        self.route("PATCH", f"{repo}/issues/comments/([0-9]+)", self._edit_comment)
        self.route("POST", f"{repo}/issues/comments/([0-9]+)/reactions", self._react)
        self.route("POST", f"{repo}/issues/([0-9]+)/comments", self._post_comment)
        self.route("GET", f"{repo}/issues/([0-9]+)/timeline", self._timeline)
        self.route("GET", f"{repo}/pulls/([0-9]+)", self._pull)
        self.route("GET", f"{repo}/git/refs/pull/([0-9]+)/head", self._ref)
        self.route("POST", f"{repo}/statuses/([0-9a-f]+)", self._status)

    # What a test does.

    def add_repo(self, name: str, *, topics: tuple[str, ...] = ()) -> FakeRepo:
        return self.repos.setdefault(name.lower(), FakeRepo(name, list(topics)))

    def add_pull(self, repo: str, number: int = 1, *, sha: str = "", is_pull: bool = True) -> FakePull:
        sha = sha or f"{number:040x}"
        pull = FakePull(number, sha, sha, is_pull=is_pull, updated=int(self.clock.time()))
        self.add_repo(repo).pulls[number] = pull
        return pull

    def say(self, repo: str, number: int, body: str, *, user: int = 2, **more: Any) -> FakeComment:
        with self._lock:
            self._next += 1
            now = int(self.clock.time())
            comment = FakeComment(self._next, number, user, body, now, now, **more)
            self.repos[repo.lower()].comments[comment.id] = comment
            self.repos[repo.lower()].pulls[number].updated = now
            return comment

    def edit(self, repo: str, comment: FakeComment, body: str) -> None:
        comment.body, comment.updated = body, int(self.clock.time())
        self.repos[repo.lower()].pulls[comment.number].updated = comment.updated

    def delete(self, repo: str, comment: int) -> None:
        del self.repos[repo.lower()].comments[comment]

    def push(self, repo: str, number: int, sha: str, *, dealt_with: bool = True) -> None:
        """Push to the pull request's branch; the forge tells of it in the timeline once it has dealt with it."""
        self.repos[repo.lower()].pulls[number].sha = sha
        if dealt_with:
            self.deal_with_push(repo, number)

    def deal_with_push(self, repo: str, number: int) -> None:
        pull = self.repos[repo.lower()].pulls[number]
        pull.ref_sha = pull.sha
        body = json.dumps({"is_force_push": False, "commit_ids": [pull.sha]})
        pull.timeline.append({"type": "pull_push", "body": body, "created": int(self.clock.time())})
        pull.updated = int(self.clock.time())

    def answers(self, repo: str, number: int | None = None) -> list[FakeComment]:
        """The bot's comments."""
        comments = self.repos[repo.lower()].comments.values()
        return [one for one in comments if one.user == self.BOT and number in (None, one.number)]

    def payload(self, repo: str, said: FakeComment, **changes: Any) -> dict[str, Any]:
        """The webhook of a new comment."""
        found = self.repos[repo.lower()]
        pull = found.pulls[said.number]
        data: dict[str, Any] = {
            "action": "created",
            "is_pull": pull.is_pull,
            "issue": {"number": pull.number, "state": pull.state},
            "comment": self._comment_json(found, said),
            "repository": {"full_name": found.full_name},
            "sender": {"id": said.user, "login": self.users.get(said.user, "Ghost")},
            "pull_request": {"number": pull.number, "head": {"sha": pull.sha}},
        }
        return {**data, **changes}

    # How it answers.

    def handle(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            return super().handle(request)

    def answer(self, request: httpx.Request, path: str) -> httpx.Response:
        if path != "/api/v1/version" and (refused := self._check_token(request, path)):
            return refused
        return super().answer(request, path)

    def _check_token(self, request: httpx.Request, path: str) -> httpx.Response | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind != "token" or token not in self.tokens:
            return httpx.Response(401, json={"message": "user does not exist [uid: 0, name: ]"})
        need = "repository"
        if re.match(r"/api/v1/users?(/|$)", path):
            need = "user"
        elif path.startswith("/api/v1/orgs/"):
            need = "organization"
        elif "/issues" in path:
            need = "issue"
        scopes = self.tokens[token][1]
        if f"write:{need}" in scopes or (request.method == "GET" and f"read:{need}" in scopes):
            return None
        level = "read" if request.method == "GET" else "write"
        return httpx.Response(
            403, json={"message": f"token does not have at least one of required scope(s): [{level}:{need}]"}
        )

    def _doer(self, request: httpx.Request) -> int:
        return self.tokens[request.headers["authorization"].partition(" ")[2]][0]

    def _user(self, request: httpx.Request) -> httpx.Response:
        doer = self._doer(request)
        return httpx.Response(200, json={"id": doer, "login": self.users[doer]})

    def _user_by_name(self, _request: httpx.Request, login: str) -> httpx.Response:
        found = next((key for key, name in self.users.items() if name.lower() == login.lower()), None)
        if found is None:
            return httpx.Response(404, json={"message": "user redirect does not exist"})
        return httpx.Response(200, json={"id": found, "login": self.users[found]})

    def _org(self, _request: httpx.Request, org: str) -> httpx.Response:
        if org not in self.orgs:
            return httpx.Response(404, json={"message": "not found"})
        return httpx.Response(200, json={"id": self.orgs[org], "name": org})

    def _member(self, request: httpx.Request, org: str, login: str) -> httpx.Response:
        members = self.members.get(org, set())
        user = next((key for key, name in self.users.items() if name.lower() == login.lower()), None)
        if user is None:
            return httpx.Response(404, json={"message": "user does not exist"})
        if self._doer(request) not in members:
            return httpx.Response(303, headers={"Location": f"/api/v1/orgs/{org}/public_members/{login}"})
        return httpx.Response(204 if user in members else 404)

    def _page(self, request: httpx.Request, rows: list[Any]) -> httpx.Response:
        query = request.url.params
        limit = min(50, int(query.get("limit") or 30))
        page = max(1, int(query.get("page") or 1))
        part = rows[(page - 1) * limit : page * limit]
        return httpx.Response(200, json=part, headers={"X-Total-Count": str(len(rows))})

    def _since(self, request: httpx.Request) -> int | None:
        text = request.url.params.get("since")
        if text is None:
            return 0
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text):
            return None
        return int(datetime.fromisoformat(text).timestamp())

    def _search_repos(self, request: httpx.Request) -> httpx.Response:
        query = request.url.params
        owner = next((name for name, key in self.orgs.items() if str(key) == query.get("uid")), "")
        rows = [
            {"full_name": repo.full_name, "archived": repo.archived, "topics": repo.topics}
            for repo in self.repos.values()
            if repo.full_name.partition("/")[0] == owner and query.get("q") in repo.topics
        ]
        answer = self._page(request, rows)
        return httpx.Response(200, json={"ok": True, "data": answer.json()}, headers=answer.headers)

    def _search_issues(self, request: httpx.Request) -> httpx.Response:
        since = self._since(request)
        if since is None:
            return httpx.Response(422, json={"message": "bad time"})
        query = request.url.params
        rows = [
            {
                "number": pull.number,
                "state": pull.state,
                "updated_at": _iso(pull.updated),
                "repository": {"full_name": repo.full_name, "owner": repo.full_name.partition("/")[0]},
                "pull_request": {"merged": pull.merged},
            }
            for repo in self.repos.values()
            for pull in repo.pulls.values()
            if repo.full_name.partition("/")[0].lower() == query["owner"].lower()
            and pull.updated >= since
            and pull.state == query["state"]
            and pull.is_pull is (query["type"] == "pulls")
        ]
        return self._page(request, rows)

    def _comment_json(self, repo: FakeRepo, comment: FakeComment) -> dict[str, Any]:
        pull = repo.pulls[comment.number]
        kind = "pulls" if pull.is_pull else "issues"
        link = f"{self.url}/{repo.full_name}/{kind}/{pull.number}"
        known = comment.user in self.users
        return {
            "id": comment.id,
            "html_url": f"{link}#issuecomment-{comment.id}",
            "pull_request_url": link if pull.is_pull else "",
            "issue_url": "" if pull.is_pull else link,
            "user": {"id": comment.user if known else -1, "login": self.users.get(comment.user, "Ghost")},
            "original_author": comment.original_author,
            "body": comment.body,
            "created_at": _iso(comment.created),
            "updated_at": _iso(comment.updated),
        }

    def _list_comments(self, request: httpx.Request, name: str) -> httpx.Response:
        repo = self.repos.get(name.lower())
        since = self._since(request)
        if repo is None or since is None:
            return httpx.Response(404 if repo is None else 422, json={"message": "no"})
        rows = sorted(
            (one for one in repo.comments.values() if one.updated >= since), key=lambda one: (one.created, one.id)
        )
        return self._page(request, [self._comment_json(repo, one) for one in rows])

    def _find(self, name: str, comment: str) -> tuple[FakeRepo, FakeComment] | None:
        repo = self.repos.get(name.lower())
        found = repo.comments.get(int(comment)) if repo else None
        return (repo, found) if repo and found else None

    def _get_comment(self, _request: httpx.Request, name: str, comment: str) -> httpx.Response:
        found = self._find(name, comment)
        if found is None:
            return httpx.Response(404, json={"message": "not found"})
        if found[1].user not in self.users:
            return httpx.Response(500, json={"message": "user does not exist"})
        return httpx.Response(200, json=self._comment_json(*found))

    def _edit_comment(self, request: httpx.Request, name: str, comment: str) -> httpx.Response:
        found = self._find(name, comment)
        if found is None:
            return httpx.Response(404, json={"message": "not found"})
        if found[1].user != self._doer(request):
            return httpx.Response(403)
        body = json.loads(request.content)["body"]
        if body != found[1].body:
            self.edits.append((self.clock.time(), found[1].id))
            self.edit(name, found[1], body)
        return httpx.Response(200, json=self._comment_json(*found))

    def _post_comment(self, request: httpx.Request, name: str, number: str) -> httpx.Response:
        repo = self.repos.get(name.lower())
        pull = repo.pulls.get(int(number)) if repo else None
        if repo is None or pull is None:
            return httpx.Response(404, json={"message": "not found"})
        if pull.locked:
            return httpx.Response(403, json={"message": "the conversation is locked"})
        made = self.say(name, pull.number, json.loads(request.content)["body"], user=self._doer(request))
        self.posts.append(made.id)
        return httpx.Response(201, json=self._comment_json(repo, made))

    def _react(self, request: httpx.Request, name: str, comment: str) -> httpx.Response:
        found = self._find(name, comment)
        if found is None:
            return httpx.Response(404, json={"message": "not found"})
        found[0].reactions.append((found[1].id, json.loads(request.content)["content"]))
        return httpx.Response(201, json={})

    def _timeline(self, request: httpx.Request, name: str, number: str) -> httpx.Response:
        since = self._since(request)
        pull = self.repos[name.lower()].pulls[int(number)]
        query = request.url.params
        limit, page = min(50, int(query.get("limit") or 30)), max(1, int(query.get("page") or 1))
        rows = [row for row in pull.timeline if row["created"] >= (since or 0)]
        # As the real one: first the page, then what is not shown is taken out of it; nothing left is `null`.
        shown = [row for row in rows[(page - 1) * limit : page * limit] if row["type"] != "code"]
        data = [{"type": row["type"], "body": row.get("body", ""), "created_at": _iso(row["created"])} for row in shown]
        return httpx.Response(200, json=data or None, headers={"X-Total-Count": str(len(data))})

    def _pull(self, _request: httpx.Request, name: str, number: str) -> httpx.Response:
        repo = self.repos.get(name.lower())
        pull = repo.pulls.get(int(number)) if repo else None
        if repo is None or pull is None or not pull.is_pull:
            return httpx.Response(404, json={"message": "not found"})
        return httpx.Response(
            200,
            json={
                "number": pull.number,
                "state": pull.state,
                "merged": pull.merged,
                **({"review_comments": pull.review_comments} if pull.review_comments else {}),
                "head": {"sha": pull.sha, "ref": "a-branch", "repo": None},
                "base": {"ref": "main", "repo": {"full_name": repo.full_name}},
            },
        )

    def _ref(self, _request: httpx.Request, name: str, number: str) -> httpx.Response:
        pull = self.repos[name.lower()].pulls[int(number)]
        return httpx.Response(
            200, json=[{"ref": f"refs/pull/{number}/head", "object": {"type": "commit", "sha": pull.ref_sha}}]
        )

    def _status(self, request: httpx.Request, name: str, sha: str) -> httpx.Response:
        data = json.loads(request.content)
        if data["state"] not in ("pending", "success", "failure", "error", "warning") or len(data["description"]) > 255:
            return httpx.Response(422, json={"message": "bad status"})
        self.repos[name.lower()].statuses.append({**data, "sha": sha})
        return httpx.Response(201, json={"id": 1})


class FakeDrone(FakeServer):
    """The builds of one CI repository."""

    def __init__(self, clock: Any, *, repo: str = "coop-cloud/recipe-ci") -> None:
        super().__init__(clock)
        self.builds: dict[int, dict[str, Any]] = {}
        self.timeout = 60
        self.mode = ""
        self.instantly = ""
        self._lock = threading.RLock()
        path = f"/api/repos/{repo}"
        self.route("GET", path, lambda _r: httpx.Response(200, json={"slug": repo, "timeout": self.timeout}))
        self.route("GET", f"{path}/builds", self._list)
        self.route("POST", f"{path}/builds", self._create)
        self.route("GET", f"{path}/builds/([0-9]+)", self._get)
        self.route("DELETE", f"{path}/builds/([0-9]+)", self._cancel)

    # What a test, or a person in Drone, does.

    def make(self, params: dict[str, str] | None, status: str = "pending", **more: Any) -> dict[str, Any]:
        number = len(self.builds) + 1
        build = {
            "id": number + 1000,
            "number": number,
            "status": status,
            "event": "custom",
            "params": params,
            "created": int(self.clock.time()),
            "started": 0,
            "finished": 0,
            "stages": [],
            **more,
        }
        self.builds[number] = build
        return build

    def start(self, number: int, *, step: str = "test") -> None:
        stages = [{"name": "recipe-ci", "status": "running", "steps": [{"name": step, "status": "running"}]}]
        self.builds[number].update(status="running", started=int(self.clock.time()), stages=stages)

    def finish(self, number: int, status: str = "success", **more: Any) -> None:
        build = self.builds[number]
        build.update(status=status, finished=int(self.clock.time()), **more)
        build["started"] = build["started"] or build["finished"]

    def restart(self, number: int) -> int:
        return int(self.make(dict(self.builds[number]["params"]), parent=number)["number"])

    def of_comment(self, comment: int) -> list[dict[str, Any]]:
        return [build for build in self.builds.values() if (build.get("params") or {}).get("COMMENT") == str(comment)]

    # How it answers.

    def handle(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            return super().handle(request)

    def answer(self, request: httpx.Request, path: str) -> httpx.Response:
        if request.headers.get("authorization") != f"Bearer {DRONE_TOKEN}":
            return httpx.Response(401, json={"message": "Unauthorized"})
        return super().answer(request, path)

    def _create(self, request: httpx.Request) -> httpx.Response:
        # Only the query counts, and of a name the first value; a body is not read.
        params: dict[str, str] = {}
        for name, value in request.url.params.multi_items():
            params.setdefault(name, value)
        branch = params.pop("branch", "main")
        if branch != "main":
            return httpx.Response(404, json={"message": "sql: no rows in result set"})
        for name in ("access_token", "commit"):
            params.pop(name, None)
        if self.mode == "null":
            return httpx.Response(200, content=b"null")
        if self.mode == "error":
            return httpx.Response(200, json=self.make(None, "error", error="yaml: line 3: mapping values"))
        if self.mode:
            return httpx.Response(int(self.mode), json={"message": "Not Found"})
        build = self.make(params)
        if self.instantly:
            self.start(build["number"])
            self.finish(build["number"], self.instantly)
        return httpx.Response(200, json=build)

    def _list(self, request: httpx.Request) -> httpx.Response:
        query = request.url.params
        per_page = min(100, int(query.get("per_page") or 25))
        page = int(query.get("page") or 1)
        rows = [self.builds[number] for number in sorted(self.builds, reverse=True)]
        shown = rows[(page - 1) * per_page : page * per_page]
        return httpx.Response(
            200, json=[{key: value for key, value in row.items() if key != "stages"} for row in shown]
        )

    def _get(self, _request: httpx.Request, number: str) -> httpx.Response:
        build = self.builds.get(int(number))
        return httpx.Response(200, json=build) if build else httpx.Response(404, json={"message": "not found"})

    def _cancel(self, _request: httpx.Request, number: str) -> httpx.Response:
        build = self.builds.get(int(number))
        if build is None:
            return httpx.Response(404, json={"message": "not found"})
        if build["status"] in ("pending", "running", "blocked", "waiting_on_dependencies"):
            build.update(status="killed", finished=int(self.clock.time()))
        return httpx.Response(200, json=build)


def transport(**servers: FakeServer) -> httpx.MockTransport:
    """Carry requests to the double whose name begins the host name: `forge=...` answers `http://forge.test`."""

    def handle(request: httpx.Request) -> httpx.Response:
        return servers[request.url.host.partition(".")[0]].handle(request)

    return httpx.MockTransport(handle)


@contextlib.contextmanager
def serve(server: FakeServer) -> Iterator[str]:
    """Put a double on a port of the loopback; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # One packet an answer: two would wait 40 ms for each other.
        wbufsize = -1

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            request = httpx.Request(
                self.command,
                f"http://{self.headers['Host']}{self.path}",
                headers=dict(self.headers.items()),
                content=self.rfile.read(length),
            )
            try:
                response = server.handle(request)
            except httpx.HTTPError:
                self.close_connection = True
                return
            self.send_response_only(response.status_code)
            for name, value in response.headers.items():
                if name not in ("content-length", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.content)))
            self.end_headers()
            self.wfile.write(response.content)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer

        def log_message(self, *_args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_args: object) -> None:
            """A client that was killed is what these tests are about."""

    listening = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}"
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
