"""A webhook's signature and body -> a comment, or why it does not count. Nothing is trusted before the signature is.

What a payload says is a hint: the worker asks the forge for the comment again. The one thing only the payload knows is the
head of the pull request at the moment of the comment.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence

from bridge.comments import REPOSITORY, Comment, check_sha, read_comment

__all__ = ["Ignored", "IgnoredError", "is_signed", "read_event"]

_HEX = re.compile(r"[0-9a-f]{64}")


class Ignored(enum.Enum):
    """Why a webhook that was signed starts nothing."""

    EVENT = "other_event"
    ACTION = "not_created"
    ISSUE = "plain_issue"
    CLOSED = "closed"
    MALFORMED = "malformed"


class IgnoredError(Exception):
    """A webhook that is in order and asks for nothing: no fault of its sender."""

    def __init__(self, reason: Ignored) -> None:
        super().__init__(reason.value)
        self.reason = reason


def is_signed(body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> bool:
    """Say whether one of `secrets` signed the raw `body`. No secret means no.

    Gitea signs in `X-Gitea-Signature`, Forgejo also in `X-Forgejo-Signature`; where that one is there, no other counts.
    """
    header = "x-forgejo-signature" if "x-forgejo-signature" in headers else "x-gitea-signature"
    given = headers.get(header, "")
    if not _HEX.fullmatch(given):
        return False
    matches = [
        hmac.compare_digest(hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(), given)
        for secret in secrets
        if secret
    ]
    return any(matches)


def read_event(body: bytes, headers: Mapping[str, str]) -> Comment:
    """Read a signed webhook.

    Raises:
        IgnoredError: It is no new comment on an open pull request.
    """
    event = headers.get("x-forgejo-event") or headers.get("x-gitea-event") or ""
    kind = headers.get("x-forgejo-event-type") or headers.get("x-gitea-event-type") or event
    if event != "issue_comment" or kind not in ("issue_comment", "pull_request_comment"):
        raise IgnoredError(Ignored.EVENT)
    try:
        data = json.loads(body)
        if data["action"] != "created":
            raise IgnoredError(Ignored.ACTION)
        if not data.get("is_pull"):
            raise IgnoredError(Ignored.ISSUE)
        if data["issue"]["state"] != "open":
            raise IgnoredError(Ignored.CLOSED)
        repo = data["repository"]["full_name"]
        if not isinstance(repo, str) or not REPOSITORY.fullmatch(repo):
            raise IgnoredError(Ignored.MALFORMED)
        head = (data.get("pull_request") or {}).get("head") or {}
        return read_comment(repo, data["comment"], pr=int(data["issue"]["number"]), sha=check_sha(head.get("sha")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise IgnoredError(Ignored.MALFORMED) from None
