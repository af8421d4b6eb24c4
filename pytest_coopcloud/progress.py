"""Say what is going on: one living line on a terminal, a line per change in a log.

It writes past pytest's capture, on a copy of standard output that is made while nothing is captured. A terminal keeps its
cursor, so pytest's own line goes on where it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time

__all__ = ["Progress"]

_SAVE, _RESTORE, _ERASE = "\0337", "\0338", "\033[K"
#: Columns that pytest's own text on the line may take.
_RESERVED = 48


class Progress:
    """Says what is going on.

    Args:
        quiet: Say nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = -1 if quiet else os.dup(1)
        self._terminal = self._fd >= 0 and os.isatty(self._fd) and os.environ.get("TERM") != "dumb"
        self._text, self._since = "", time.monotonic()
        self._guard = threading.Lock()
        self._over = threading.Event()
        if self._terminal:
            threading.Thread(target=self._tick, name="progress", daemon=True).start()

    def say(self, text: str) -> None:
        """Say a line, where it is not the one that was said last."""
        if text == self._text:
            return
        with self._guard:
            self._text, self._since = text, time.monotonic()
        if self._terminal:
            self._draw()
        else:
            self._write(f"\n  {text}")

    def clear(self) -> None:
        """Take the living line away: what it told of is over."""
        with self._guard:
            self._text = ""
            if self._terminal:
                self._write(_ERASE)

    def close(self) -> None:
        """Say no more."""
        self._over.set()
        self.clear()
        with self._guard:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _tick(self) -> None:
        while not self._over.wait(1.0):
            self._draw()

    def _draw(self) -> None:
        with self._guard:
            if self._text:
                columns = max(20, shutil.get_terminal_size().columns - _RESERVED)
                waited = time.monotonic() - self._since
                text = f"{self._text}, {waited:.0f} s" if waited >= 1 else self._text
                self._write(f"{_SAVE} {text[:columns]}{_ERASE}{_RESTORE}")

    def _write(self, text: str) -> None:
        # Whoever read this may be gone; a run does not end for that.
        with contextlib.suppress(OSError):
            if self._fd >= 0:
                os.write(self._fd, text.encode("utf-8", "replace"))
