"""The words and marks of a result, as the report and the dashboard print them.

Colour is never the only sign: a state has a mark and a word as well.
"""

from __future__ import annotations

import enum
import re
from datetime import UTC, datetime

from pytest_coopcloud.results import LADDER, CauseClass, Outcome, RunResult, Stage, StageResult, Verdict

__all__ = [
    "CAUSE_WORDS",
    "RUNGS",
    "STAGE_WORDS",
    "State",
    "ago",
    "bytes_in_words",
    "day",
    "duration",
    "headline",
    "iso",
    "moment",
    "printable",
    "seconds",
    "stage_state",
    "verdict_state",
]


class State(enum.Enum):
    """How a stage or a run looks; the value is the word, and the name of its style."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    UNVERIFIED = "unverified"
    RUNNING = "running"
    WAITING = "waiting"
    UNKNOWN = "unknown"
    BROKEN = "broken"

    @property
    def mark(self) -> str:
        """One sign that tells the states apart without colour."""
        return _MARKS[self]


_MARKS = {
    State.PASS: "\N{CHECK MARK}",
    State.FAIL: "\N{MULTIPLICATION X}",
    State.SKIP: "\N{EN DASH}",
    State.UNVERIFIED: "?",
    State.RUNNING: "\N{BLACK RIGHT-POINTING TRIANGLE}",
    State.WAITING: "\N{MIDDLE DOT}",
    State.UNKNOWN: "\N{MIDDLE DOT}",
    State.BROKEN: "!",
}

_OUTCOMES = {
    Outcome.PASS: State.PASS,
    Outcome.FAIL: State.FAIL,
    Outcome.SKIP: State.SKIP,
    Outcome.UNVERIFIED: State.UNVERIFIED,
}

_VERDICTS = {
    Verdict.RUNNING: State.RUNNING,
    Verdict.PASSED: State.PASS,
    Verdict.FAILED: State.FAIL,
    Verdict.UNVERIFIED: State.UNVERIFIED,
}

RUNGS = len(LADDER)

STAGE_WORDS = {
    Stage.INSTALL: "deploy the head from nothing",
    Stage.UPGRADE: "move a published version to the head",
    Stage.BACKUP: "make a backup and look into it",
    Stage.RESTORE: "bring the data back from the backup alone",
    Stage.RECIPE: "run the recipe's own tests",
    Stage.TEARDOWN: "remove everything and compare",
}

CAUSE_WORDS = {
    CauseClass.RECIPE: "the recipe",
    CauseClass.TEST: "the test",
    CauseClass.INFRASTRUCTURE: "the infrastructure, not the recipe",
}


def stage_state(record: StageResult, result: RunResult) -> State:
    """Say how a stage looks: its outcome, or that it runs, waits, or never came."""
    if record.outcome is not None:
        return _OUTCOMES[record.outcome]
    if result.finished_at is not None:
        return State.UNVERIFIED
    return State.RUNNING if record.running else State.WAITING


def verdict_state(verdict: Verdict) -> State:
    """Say how a verdict looks."""
    return _VERDICTS[verdict]


def headline(result: RunResult) -> str:
    """Say the verdict in a few words: `failed in upgrade`, `passed`, `running: backup`."""
    if result.verdict is Verdict.RUNNING:
        return f"running: {result.current.title}" if result.current else "running"
    if result.verdict is Verdict.PASSED:
        return "passed"
    found = result.first_cause
    if found is not None:
        return f"{result.verdict.value} in {found[0].stage.value}"
    if result.leaks:
        return "failed: it left something behind"
    return f"{result.verdict.value}: {result.died}" if result.died else result.verdict.value


def duration(value: float | None) -> str:
    """Print a duration: `0.4 s`, `38 s`, `2 min 38 s`, `1 h 04 min`."""
    if value is None:
        return ""
    value = max(value, 0.0)
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def seconds(value: float) -> str:
    """Print a duration in seconds, for columns that are compared: `0.4`, `158.0`."""
    return f"{max(value, 0.0):.1f}"


def ago(value: float) -> str:
    """Print an age in one unit: `now`, `5 min`, `3 h`, `12 d`."""
    if value < 45:
        return "now"
    if value < 3600:
        return f"{max(round(value / 60), 1)} min"
    if value < 48 * 3600:
        return f"{round(value / 3600)} h"
    return f"{round(value / 86400)} d"


def moment(value: float | None) -> str:
    """Print a time: `2026-11-25 17:43 UTC`; empty where it is none that a calendar knows."""
    found = _datetime(value)
    return found.strftime("%Y-%m-%d %H:%M UTC") if found else ""


def day(value: float | None) -> str:
    """Print the date of a time: `2026-11-25`."""
    found = _datetime(value)
    return found.strftime("%Y-%m-%d") if found else ""


def iso(value: float | None) -> str:
    """Print a time as `<time datetime>` wants it."""
    found = _datetime(value)
    return found.strftime("%Y-%m-%dT%H:%M:%SZ") if found else ""


def _datetime(value: float | None) -> datetime | None:
    try:
        return None if value is None else datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def bytes_in_words(size: int) -> str:
    """Print a size: `812 bytes`, `3.4 MB`."""
    if size < 1000:
        return f"{size} bytes"
    for unit, scale in (("kB", 1e3), ("MB", 1e6)):
        if size < scale * 1000:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e9:.1f} GB"


# Escape sequences of terminals: colours, titles, cursor moves.
_TERMINAL = re.compile(r"\x1b(?:\[[0-9;?<=>]*[ -/]*[@-~]|\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)|[@-Z\\^_])")
# What a page must not be given: control characters, and the signs that turn the direction of writing.
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return `text` without terminal colours, other control characters as `\N{REPLACEMENT CHARACTER}`."""
    text = text.replace("\r\n", "\n")
    if "\x1b" in text:
        text = _TERMINAL.sub("", text)
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
