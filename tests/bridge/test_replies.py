from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.replies import Links, Reason, Replies, code, duration, fence, marker
from bridge.triggers import Trigger
from tests.bridge.world import REPO

LINKS = Links(forge="http://forge.test", drone="http://drone.test", drone_repo="coop-cloud/ci", dashboard="")
TRIGGER = Trigger(
    key=1, repo=REPO, comment=42, pr=7, author_id=2, author="alice", created_at=0.0, seen_at=0.0, words="", sha="a" * 40
)


@given(st.text(max_size=200))
def test_a_code_span_holds_whatever_is_put_in(text: str) -> None:
    shown = code(text)

    assert shown.startswith("`")
    assert shown.endswith("`")
    assert not re.search(r"[`\n\r|@\x00-\x08\u202e\u200b]", shown[1:-1])
    assert len(shown) <= 82


@given(st.lists(st.text(alphabet="`~ab\n<!->@", max_size=40), max_size=12))
def test_nothing_ends_a_fence_from_within(lines: list[str]) -> None:
    block = fence(lines).split("\n")
    opening = re.fullmatch(r"(`{3,})text", block[0])

    assert opening is not None
    assert block[-1] == opening[1]
    inner = block[1:-1]
    assert not any(re.match(rf" {{0,3}}`{{{len(opening[1])},}}", line) for line in inner)
    assert "@" not in "".join(inner)
    assert "<!--" not in "".join(inner)


@pytest.mark.parametrize("name", ["<img-src=x>", 'a"b', "x`id`", "@all", "fixes #1", "a|b", "\u202egnp", "a\nb"])
def test_a_name_from_outside_stays_text(name: str) -> None:
    answer = Replies(LINKS, org="recipe-maintainers").refused(TRIGGER, Reason.UNKNOWN_WORD, hint=name)

    assert "@" not in answer
    assert "\u202e" not in answer
    assert code(name) in answer


@pytest.mark.parametrize("reason", list(Reason))
def test_every_answer_ends_with_its_marker(reason: Reason) -> None:
    answer = Replies(LINKS, org="recipe-maintainers").refused(TRIGGER, reason)

    assert answer.endswith(f"\n{marker(42)}")
    assert answer.count("<!--") == 1
    assert len(answer) > 60


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min"), (125, "2 min 5 s"), (3660, "1 h 1 min")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_no_answer_asks_for_a_test_itself() -> None:
    from bridge.commands import parse

    replies = Replies(LINKS, org="recipe-maintainers")

    assert all(parse(replies.refused(TRIGGER, reason)) is None for reason in Reason)
