from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest

from bridge.webhooks import Ignored, IgnoredError, is_signed, read_event
from tests.bridge.world import REPO
from tests.fakes import FakeClock, FakeGitea

SECRET, OLD = "new-secret-0123456789", "old-secret-0123456789"
BODY = b'{"action": "created"}'


def sign(secret: str, body: bytes = BODY) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("secret", [SECRET, OLD])
def test_each_accepted_secret_signs(secret: str) -> None:
    assert is_signed(BODY, {"x-gitea-signature": sign(secret)}, [SECRET, OLD])


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-gitea-signature": ""},
        {"x-hub-signature-256": f"sha256={sign(SECRET)}"},
        {"x-gitea-signature": f"sha256={sign(SECRET)}"},
        {"x-gitea-signature": sign(SECRET)[:-1]},
        {"x-gitea-signature": sign(SECRET).upper()},
        {"x-gitea-signature": sign("another-secret-012345")},
        {"x-gitea-signature": sign(SECRET, b"other")},
        {"x-gitea-signature": "\u00e9" * 64},
        # Forgejo's own header counts where it is there, and no other rescues it.
        {"x-forgejo-signature": "0" * 64, "x-gitea-signature": sign(SECRET)},
    ],
)
def test_nothing_else_does(headers: dict[str, str]) -> None:
    assert not is_signed(BODY, headers, [SECRET])


def test_no_secret_accepts_nothing() -> None:
    empty = hmac.new(b"", BODY, hashlib.sha256).hexdigest()

    assert not is_signed(BODY, {"x-gitea-signature": empty}, [])
    assert not is_signed(BODY, {"x-gitea-signature": empty}, [""])


def _payload(**changes: Any) -> bytes:
    gitea = FakeGitea(FakeClock())
    gitea.add_pull(REPO, 7, sha="a" * 40)
    return json.dumps(gitea.payload(REPO, gitea.say(REPO, 7, "!testme"), **changes)).encode()


HEADERS = {"x-gitea-event": "issue_comment", "x-gitea-event-type": "pull_request_comment"}


def test_a_new_comment_is_read_with_the_head_of_its_moment() -> None:
    comment = read_event(_payload(), HEADERS)

    assert (comment.repo, comment.pr, comment.sha, comment.body) == (REPO, 7, "a" * 40, "!testme")
    assert not comment.edited


@pytest.mark.parametrize("pull", [None, {}, {"head": None}, {"head": {"sha": "$(id)"}}, {"head": {"sha": 7}}])
def test_a_head_that_is_missing_or_malformed_is_left_open(pull: Any) -> None:
    assert read_event(_payload(pull_request=pull), HEADERS).sha == ""


@pytest.mark.parametrize(
    ("changes", "headers", "reason"),
    [
        ({"action": "edited"}, HEADERS, Ignored.ACTION),
        ({"action": "deleted"}, HEADERS, Ignored.ACTION),
        ({"is_pull": False}, HEADERS, Ignored.ISSUE),
        ({"issue": {"number": 7, "state": "closed"}}, HEADERS, Ignored.CLOSED),
        ({"repository": {"full_name": "a/.."}}, HEADERS, Ignored.MALFORMED),
        ({"repository": {"full_name": "a/b/../../c"}}, HEADERS, Ignored.MALFORMED),
        ({"comment": {}}, HEADERS, Ignored.MALFORMED),
        ({"comment": {"id": "x"}}, HEADERS, Ignored.MALFORMED),
        ({"issue": None}, HEADERS, Ignored.MALFORMED),
        ({}, {"x-gitea-event": "push"}, Ignored.EVENT),
        ({}, {}, Ignored.EVENT),
        (
            {},
            {"x-gitea-event": "pull_request_comment", "x-gitea-event-type": "pull_request_review_comment"},
            Ignored.EVENT,
        ),
    ],
)
def test_all_else_is_ignored_with_its_reason(changes: dict[str, Any], headers: dict[str, str], reason: Ignored) -> None:
    with pytest.raises(IgnoredError) as raised:
        read_event(_payload(**changes), headers)

    assert raised.value.reason is reason


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_ignored(body: bytes) -> None:
    with pytest.raises(IgnoredError):
        read_event(body, HEADERS)
