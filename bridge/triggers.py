"""The SQLite table that makes a comment count once.

A row goes `seen → authorised → triggering → triggered → ended → final`. What is about to be done is written before it is
done, so that whoever starts after a crash knows what to look for:

* `triggering` with a `floor`: a build newer than `floor` that carries our comment's id may exist in Drone;
* `reply_state` `posting`: a comment of ours with the row's marker may exist on the forge.

`wanted` is what our comment should say, `reply_text` what it says; likewise for the commit status. Who brings the
one to the other can be killed at any moment.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bridge.comments import Comment
from pytest_coopcloud.errors import CoopCloudError

__all__ = ["Cursor", "Outcome", "ReplyState", "State", "StoreError", "Trigger", "Triggers"]

SCHEMA_VERSION = 1


class StoreError(CoopCloudError):
    """The database cannot be used."""


class State(enum.Enum):
    """How far a comment has come."""

    SEEN = "seen"
    AUTHORISED = "authorised"
    TRIGGERING = "triggering"
    TRIGGERED = "triggered"
    ENDED = "ended"
    FINAL = "final"


class Outcome(enum.Enum):
    """How a comment ended: with a run, or with why there was none."""

    PASSED = "passed"
    FAILED = "failed"
    UNVERIFIED = "unverified"
    ERROR = "error"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    TIMED_OUT = "timed out"
    KILLED = "killed"
    DECLINED = "declined"
    JOINED = "joined"
    DONE = "done"
    REFUSED = "refused"
    IGNORED = "ignored"


class ReplyState(enum.Enum):
    """What is known of our comment. `GONE`: a person deleted it. `REFUSED`: the forge will not have it."""

    NONE = "none"
    POSTING = "posting"
    POSTED = "posted"
    GONE = "gone"
    REFUSED = "refused"


@dataclass(frozen=True)
class Trigger:
    """One row: a comment, and all that came of it.

    Attributes:
        key: The row's number, in the order of arrival.
        created_at: When the comment was made, by the forge's clock.
        seen_at: When we saw it, by ours.
        words: What the command said after `!testme`.
        sha: The pinned head; empty until it is known, never changed after.
        reason: Why nothing was started, as one of the words of `replies.Reason`; empty otherwise.
        stop: Why its build should be cancelled: the value of an `Outcome`, or empty.
        stop_by: Who asked for that.
        floor: The newest build of Drone before ours was asked for.
        build: The number of our build.
        started_at: When the build began, by Drone's clock.
        duration: How long the build ran, in seconds.
        run_id: The run that the build made, once its results were found.
    """

    key: int
    repo: str
    comment: int
    pr: int
    author_id: int
    author: str
    created_at: float
    seen_at: float
    words: str
    sha: str = ""
    state: State = State.SEEN
    outcome: Outcome | None = None
    reason: str = ""
    stop: str = ""
    stop_by: str = ""
    floor: int | None = None
    build: int | None = None
    triggered_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    duration: float | None = None
    run_id: str = ""
    reply_state: ReplyState = ReplyState.NONE
    reply_id: int | None = None
    reply_text: str = ""
    reply_at: float | None = None
    wanted: str = ""
    status_text: str = ""
    status_wanted: str = ""

    @property
    def recipe(self) -> str:
        """The recipe's name: that of its repository."""
        return self.repo.rpartition("/")[2]

    @property
    def undelivered(self) -> bool:
        """Whether our comment or the commit status does not say yet what it should."""
        told = self.reply_state in (ReplyState.GONE, ReplyState.REFUSED) or self.wanted == self.reply_text
        return not (told and self.status_wanted == self.status_text)


@dataclass(frozen=True)
class Cursor:
    """How far something has been read.

    Attributes:
        scope: `owner:<name>` for the search, `repo:<owner/name>` for comments.
        since: The forge's time of the newest thing seen.
        behind: Whether there is something that has not been read.
        read_at: The forge's time when it was read last.
    """

    scope: str
    since: float
    behind: bool
    read_at: float


_ENUMS: dict[str, type[enum.Enum]] = {"state": State, "outcome": Outcome, "reply_state": ReplyState}
_COLUMNS = tuple(field.name for field in fields(Trigger))

_SCHEMA = """
CREATE TABLE triggers (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    repo TEXT NOT NULL,
    comment INTEGER NOT NULL UNIQUE,
    pr INTEGER NOT NULL,
    author_id INTEGER NOT NULL,
    author TEXT NOT NULL,
    created_at REAL NOT NULL,
    seen_at REAL NOT NULL,
    words TEXT NOT NULL,
    sha TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT 'seen',
    outcome TEXT,
    reason TEXT NOT NULL DEFAULT '',
    stop TEXT NOT NULL DEFAULT '',
    stop_by TEXT NOT NULL DEFAULT '',
    floor INTEGER,
    build INTEGER,
    triggered_at REAL,
    started_at REAL,
    ended_at REAL,
    duration REAL,
    run_id TEXT NOT NULL DEFAULT '',
    reply_state TEXT NOT NULL DEFAULT 'none',
    reply_id INTEGER,
    reply_text TEXT NOT NULL DEFAULT '',
    reply_at REAL,
    wanted TEXT NOT NULL DEFAULT '',
    status_text TEXT NOT NULL DEFAULT '',
    status_wanted TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX triggers_open ON triggers (created_at, key) WHERE state != 'final';
CREATE INDEX triggers_pull ON triggers (repo, pr);
CREATE INDEX triggers_started ON triggers (triggered_at) WHERE triggered_at IS NOT NULL;
CREATE TABLE cursors (
    scope TEXT PRIMARY KEY,
    since REAL NOT NULL,
    behind INTEGER NOT NULL,
    read_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""


class Triggers:
    """The table, in the file `path`. Every method that changes it has written the change to disk when it returns.

    Raises:
        StoreError: The file cannot be opened, or was written by a newer bridge.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                with self._transaction():
                    for statement in _SCHEMA.split(";"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{path} cannot be used: {error}", hint="is its folder there, writable and not full?"
            ) from error
        if version > SCHEMA_VERSION:
            self._db.close()
            raise StoreError(
                f"{path} has schema {version}, known here is {SCHEMA_VERSION}", hint="run the newer bridge again"
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def add(self, comment: Comment, *, words: str, seen_at: float) -> bool:
        """Write down a comment that holds a command; say whether it is new.

        A webhook that comes after the poll still tells the head at the moment of the comment, as long as none is pinned.
        """
        with self._transaction():
            new = self._db.execute(
                "INSERT INTO triggers (repo, comment, pr, author_id, author, created_at, seen_at, words, sha)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (comment) DO NOTHING",
                (
                    comment.repo,
                    comment.comment_id,
                    comment.pr,
                    comment.author_id,
                    comment.author,
                    comment.created_at,
                    seen_at,
                    words,
                    comment.sha,
                ),
            ).rowcount
            if not new and comment.sha:
                self._db.execute(
                    "UPDATE triggers SET sha = ? WHERE comment = ? AND sha = '' AND state = 'seen'",
                    (comment.sha, comment.comment_id),
                )
        return bool(new)

    def change(self, trigger: Trigger, **changes: Any) -> Trigger:
        """Write `changes` of a row, and return it as it is now."""
        names = list(changes)
        values = [value.value if isinstance(value, enum.Enum) else value for value in changes.values()]
        if not set(names) <= set(_COLUMNS):
            raise TypeError(f"no such columns: {sorted(set(names) - set(_COLUMNS))}")
        self._execute(
            f"UPDATE triggers SET {', '.join(f'{name} = ?' for name in names)} WHERE key = ?",  # noqa: S608 - our names
            (*values, trigger.key),
        )
        return self.get(trigger.key)

    def get(self, key: int) -> Trigger:
        """Return a row."""
        return _trigger(self._execute("SELECT * FROM triggers WHERE key = ?", (key,)).fetchone())

    def by_comment(self, comment: int) -> Trigger | None:
        """Return the row of a comment."""
        row = self._execute("SELECT * FROM triggers WHERE comment = ?", (comment,)).fetchone()
        return _trigger(row) if row else None

    def all(self) -> list[Trigger]:
        """Return every row, the oldest first."""
        return self._select("1 ORDER BY key")

    def unfinished(self, *states: State) -> list[Trigger]:
        """Return the rows that are not final, or those in one of `states`: the oldest comment first."""
        wanted = states or tuple(state for state in State if state is not State.FINAL)
        marks = ", ".join("?" * len(wanted))
        return self._select(
            f"state != 'final' AND state IN ({marks}) ORDER BY created_at, key", [state.value for state in wanted]
        )

    def on_pull(self, repo: str, pr: int) -> list[Trigger]:
        """Return the rows of a pull request, the oldest comment first."""
        return self._select("repo = ? COLLATE NOCASE AND pr = ? ORDER BY created_at, key", [repo, pr])

    def started_since(self, moment: float, *, author_id: int | None = None, repo: str | None = None) -> int:
        """Count the builds since `moment`, of one person or one repository."""
        row = self._execute(
            "SELECT count(*) FROM triggers WHERE triggered_at >= ? AND (? IS NULL OR author_id = ?)"
            " AND (? IS NULL OR repo = ? COLLATE NOCASE)",
            (moment, author_id, author_id, repo, repo),
        ).fetchone()
        return int(row[0])

    def count(self, *states: State) -> int:
        """Count the rows in `states`."""
        marks = ", ".join("?" * len(states))
        row = self._execute(
            f"SELECT count(*) FROM triggers WHERE state != 'final' AND state IN ({marks})",  # noqa: S608 - marks only
            [state.value for state in states],
        ).fetchone()
        return int(row[0])

    def durations(self, repo: str, *, limit: int = 9) -> list[float]:
        """Return how long the last whole runs of a repository took; of any, where it has none."""
        for clause, values in (("repo = ? COLLATE NOCASE", [repo]), ("1", [])):
            rows = self._execute(
                f"SELECT duration FROM triggers WHERE {clause} AND duration IS NOT NULL"  # noqa: S608 - our clauses
                " AND outcome IN ('passed', 'failed', 'unverified') ORDER BY key DESC LIMIT ?",
                (*values, limit),
            ).fetchall()
            if rows:
                return [float(row[0]) for row in rows]
        return []

    def cursor(self, scope: str) -> Cursor | None:
        """Return how far `scope` was read."""
        row = self._execute("SELECT * FROM cursors WHERE scope = ?", (scope,)).fetchone()
        return Cursor(row["scope"], row["since"], bool(row["behind"]), row["read_at"]) if row else None

    def cursors(self) -> dict[str, Cursor]:
        """Return all cursors, by scope."""
        rows = self._execute("SELECT * FROM cursors", ()).fetchall()
        return {row["scope"]: Cursor(row["scope"], row["since"], bool(row["behind"]), row["read_at"]) for row in rows}

    def move(self, cursors: Iterable[Cursor]) -> None:
        """Write cursors, all of them or none."""
        values = [(c.scope, c.since, int(c.behind), c.read_at) for c in cursors]
        if not values:
            return
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?)", values)

    def _select(self, clause: str, values: Iterable[Any] = ()) -> list[Trigger]:
        rows = self._execute(f"SELECT * FROM triggers WHERE {clause}", tuple(values)).fetchall()  # noqa: S608 - our clauses
        return [_trigger(row) for row in rows]

    def _execute(self, sql: str, values: Any) -> sqlite3.Cursor:
        try:
            return self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise _store_error(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise _store_error(error) from error


def _store_error(error: sqlite3.Error) -> StoreError:
    return StoreError(f"the database refused: {error}", hint="is the disk full?")


def _trigger(row: sqlite3.Row) -> Trigger:
    values = {name: row[name] for name in _COLUMNS}
    for name, kind in _ENUMS.items():
        values[name] = None if values[name] is None else kind(values[name])
    return Trigger(**values)
