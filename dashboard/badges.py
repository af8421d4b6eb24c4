"""A run, as the badge of a README: words of a fixed list, drawn by a library, without network."""

from __future__ import annotations

import enum
import functools
import hashlib
import importlib.resources
import io

import badgepy
from badgepy.precalculated_text_measurer import PrecalculatedTextMeasurer

from dashboard.store import Row
from pytest_coopcloud.report.words import RUNGS, State

__all__ = ["Style", "Word", "badge_etag", "badge_for", "badge_svg"]


class Style(enum.Enum):
    """The styles that the library draws."""

    FLAT = "flat"
    FLAT_SQUARE = "flat-square"


class Word(enum.Enum):
    """What a badge can say; with its colour, which white letters can be read on."""

    PASSED = ("passed", "#1a7f3c")
    FAILED = ("failed", "#c4203a")
    UNVERIFIED = ("unverified", "#96600a")
    RUNNING = ("running", "#1b66b8")
    STALE = ("stale", "#6b6f75")
    UNKNOWN = ("unknown", "#6b6f75")


_STATES = {
    State.PASS: Word.PASSED,
    State.FAIL: Word.FAILED,
    State.UNVERIFIED: Word.UNVERIFIED,
    State.RUNNING: Word.RUNNING,
}

LEFT = "co-op cloud"


def badge_for(row: Row | None, state: State, *, now: float, stale_days: float) -> tuple[Word, int | None]:
    """Say which word a run gets, and the level that goes with it.

    Args:
        row: The newest run that counts; None where there is none.
        state: How it looks.
        now: Seconds since the epoch.
        stale_days: A run that is older says nothing any more.
    """
    if row is None:
        return Word.UNKNOWN, None
    if row.finished_at is not None and now - row.finished_at > stale_days * 86400:
        return Word.STALE, None
    word = _STATES.get(state, Word.UNKNOWN)
    return word, row.level if word in (Word.PASSED, Word.FAILED, Word.UNVERIFIED) else None


@functools.lru_cache(maxsize=1024)
def badge_svg(word: Word, level: int | None, style: Style) -> str:
    """Draw a badge. There are few different ones, so each is drawn once.

    Example:
        >>> "passed, level 5" in badge_svg(Word.PASSED, 5, Style.FLAT)
        True
    """
    text, colour = word.value
    if level is not None:
        text = f"{text}, level {min(max(level, 0), RUNGS)}"
    return badgepy.badge(
        left_text=LEFT,
        right_text=text,
        left_color="#3d4249",
        right_color=colour,
        whole_title=f"{LEFT}: {text}",
        style=style.value,
        measurer=_measurer(),
    )


@functools.cache
def _measurer() -> PrecalculatedTextMeasurer:
    # The library's own way to its table is one that Python 3.11 warns of.
    table = (importlib.resources.files(badgepy) / "default-widths.json").read_text(encoding="utf-8")
    return PrecalculatedTextMeasurer.from_json(io.StringIO(table))


@functools.lru_cache(maxsize=1024)
def badge_etag(svg: str) -> str:
    """Return the ETag of a badge."""
    return f'"{hashlib.sha256(svg.encode()).hexdigest()[:20]}"'
