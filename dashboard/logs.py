"""A window of a log, and a search in it, however long the log is: never more than a part of it is in memory.

A log is cut into parts of 256 kB. Each line belongs to the part in which it begins, so that a line has one address
(`?part=3#L5120`) as long as the log only grows.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pytest_coopcloud.report.artifacts import open_artifact
from pytest_coopcloud.report.words import printable

__all__ = ["Found", "Line", "Window", "read_window", "search"]

PART = 256 * 1024
#: A longer line is cut.
LINE = 4000
HITS = 200

_counting = threading.Lock()


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a log; `left_out` counts the bytes that were cut off its end."""

    number: int
    text: str
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a log. Parts are counted from 1."""

    lines: tuple[Line, ...]
    part: int
    parts: int
    size: int


@dataclass(frozen=True, slots=True)
class Found:
    """A line that a search found, and the part it stands in."""

    line: Line
    part: int


def read_window(folder: Path, path: str, part: int | None) -> Window:
    """Read one part of a log.

    Args:
        folder: The run's folder.
        path: The log, relative to it.
        part: Which part, from 1; None for the last. One that is too high is the last.

    Raises:
        FileNotFoundError: There is no such file in the folder.
    """
    with open_artifact(folder, path) as file:
        status = os.fstat(file.fileno())
        parts = max(-(-status.st_size // PART), 1)
        part = parts if part is None else min(max(part, 1), parts)
        before = _newlines_before(file, part, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
        lines = tuple(_lines_of(file, part, before + 1))
    return Window(lines, part, parts, status.st_size)


def search(folder: Path, path: str, words: str) -> tuple[list[Found], bool]:
    """Find the lines that contain `words`, in whatever case, and say whether there are more than are returned.

    Raises:
        FileNotFoundError: There is no such file in the folder.
    """
    wanted = words.casefold()
    found: list[Found] = []
    if not wanted:
        return found, False
    with open_artifact(folder, path) as file:
        status = os.fstat(file.fileno())
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        for part in range(1, max(-(-status.st_size // PART), 1) + 1):
            # Most parts hold nothing of it: look at their bytes before their lines are made.
            file.seek((part - 1) * PART)
            raw = file.read(PART + LINE * 4)
            if (
                wanted.encode() not in raw.lower()
                if wanted.isascii()
                else wanted not in raw.decode(errors="replace").casefold()
            ):
                continue
            for line in _lines_of(file, part, _newlines_before(file, part, key) + 1):
                if wanted in line.text.casefold():
                    if len(found) == HITS:
                        return found, True
                    found.append(Found(line, part))
    return found, False


def _lines_of(file: BinaryIO, part: int, number: int) -> Iterator[Line]:
    """Yield the lines that begin in a part; `number` is that of the first."""
    start = (part - 1) * PART
    file.seek(max(start - 1, 0))
    raw = file.read(PART + (1 if start else 0))
    position = 0
    if start:
        # The byte before tells whether a line begins with this part.
        position = raw.find(b"\n") + 1
        if position == 0:
            return
    while position < len(raw):
        end = raw.find(b"\n", position)
        if end >= 0:
            yield _line(number, raw[position:end], 0)
            position, number = end + 1, number + 1
            continue
        # The last line goes on in the next part, perhaps for long.
        rest, left_out = file.read(LINE * 4), 0
        text, newline, _ = rest.partition(b"\n")
        if not newline and len(rest) == LINE * 4:
            left_out = _to_newline(file)
        yield _line(number, raw[position:] + text, left_out)
        return


def _line(number: int, raw: bytes, left_out: int) -> Line:
    text = printable(raw[: LINE * 4].rstrip(b"\r").decode("utf-8", "replace"))
    left_out += max(len(raw) - LINE * 4, 0) + len(text[LINE:].encode("utf-8", "replace"))
    return Line(number, text[:LINE], left_out)


def _to_newline(file: BinaryIO) -> int:
    """Count the bytes up to the next newline."""
    count = 0
    while chunk := file.read(PART):
        position = chunk.find(b"\n")
        if position >= 0:
            return count + position
        count += len(chunk)
    return count


def _newlines_before(file: BinaryIO, part: int, key: tuple[int, int, int, int]) -> int:
    """Count the lines that begin before a part. The counts of a file are remembered while it stays the same."""
    with _counting:
        counts = _counts(key)
        while len(counts) < part:
            start = (len(counts) - 1) * PART
            # A line begins after each newline, so the newline that is the last byte of a part begins one in the next.
            file.seek(max(start - 1, 0))
            chunk = file.read(PART if start else PART - 1)
            counts.append(counts[-1] + chunk.count(b"\n") + (1 if start == 0 else 0))
        return counts[part - 1]


@functools.lru_cache(maxsize=64)
def _counts(_key: tuple[int, int, int, int]) -> list[int]:
    """Return the list that remembers, for a file as it is, how many lines begin before each part."""
    return [0]
