"""A comment under a pull request, as the forge's API and its webhooks both tell it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

__all__ = ["REPOSITORY", "SHA", "Comment", "check_sha", "read_comment", "read_time"]

#: A commit: SHA-1 or SHA-256, in full.
SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")

#: `owner/name` as the forge allows it; `.` and `..` would lead elsewhere in a path.
REPOSITORY = re.compile(r"(?!\.{1,2}/)[A-Za-z0-9._-]{1,100}/(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,100}")

_PULL_URL = re.compile(r"/pulls/(\d{1,12})$")


@dataclass(frozen=True)
class Comment:
    """One comment. All text in it comes from outside.

    Attributes:
        repo: `owner/name` of the repository of the pull request, as the forge spells it.
        pr: The number of the pull request; 0 under a plain issue.
        comment_id: Unique on the forge.
        author_id: The author's number; 0 or less for an account that is deleted or no person's.
        created_at: The forge's time, whole seconds.
        updated_at: Differs from `created_at` once it was edited, by whomever.
        imported: Whether it was copied from elsewhere, so that its author need not have written it.
        sha: The head of the pull request when the comment was made, where the forge told it; else empty.
    """

    repo: str
    pr: int
    comment_id: int
    author_id: int
    author: str
    body: str
    created_at: float
    updated_at: float
    imported: bool = False
    sha: str = ""

    @property
    def edited(self) -> bool:
        """Whether the text may be another than its author wrote."""
        return self.created_at != self.updated_at


def read_comment(repo: str, data: Any, *, pr: int | None = None, sha: str = "") -> Comment:
    """Read the JSON of a comment; `pr` where it is known from elsewhere.

    Raises:
        ValueError: It has another shape.
    """
    try:
        user = data.get("user") or {}
        if pr is None:
            url = _PULL_URL.search(str(data.get("pull_request_url") or ""))
            pr = int(url[1]) if url else 0
        return Comment(
            repo=repo,
            pr=pr,
            comment_id=int(data["id"]),
            author_id=int(user.get("id", 0)),
            author=str(user.get("login", "")),
            body=str(data.get("body") or ""),
            created_at=read_time(data["created_at"]),
            updated_at=read_time(data["updated_at"]),
            imported=bool(data.get("original_author")),
            sha=sha,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no comment: {error!r}") from None


def read_time(text: object) -> float:
    """Read a time such as `2026-01-02T03:04:05Z` as seconds since the epoch.

    Raises:
        ValueError: It is none, or has no zone.
    """
    moment = datetime.fromisoformat(str(text))
    if moment.tzinfo is None:
        raise ValueError(f"{str(text)[:40]!r} has no time zone")
    return moment.timestamp()


def check_sha(text: object) -> str:
    """Return `text` where it is a whole commit id, else an empty string."""
    return text if isinstance(text, str) and SHA.fullmatch(text) else ""
