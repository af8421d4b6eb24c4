"""Blot values out that must never be printed, in every encoding in which they turn up.

A value is found as it is, escaped for JSON, `$`-escaped for Compose, URL-encoded, in hexadecimal, and in base64, alone or
within a longer text; of a value of several lines, each line is found by itself too. Values of under 4 characters are not
blotted out: they would blot out half of every log, and protect nothing.

Example:
    >>> blot = Redactor()
    >>> blot.add("hunter2!", "db_password")
    >>> blot.clean("password=hunter2%21 aHVudGVyMiE=")
    'password=[secret db_password] [secret db_password]'
"""

from __future__ import annotations

import base64
import codecs
import json
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus

__all__ = ["SHORTEST", "Redactor"]

#: A shorter value, or form of a value, is left alone.
SHORTEST = 4
#: A line of a value of several lines is looked for by itself from this length on.
SHORTEST_LINE = 8


#: What most forms are made of: words without white space or brackets.
_TOKEN = re.compile(r"[A-Za-z0-9+/=_%.~-]+")


@dataclass(frozen=True)
class _Matcher:
    """What is looked for, at one moment: replaced as a whole, so that it needs no lock.

    Attributes:
        shown: What each form is replaced by.
        tokens: The forms that are tokens; they are looked for in runs of such characters of a certain length only, of
            which logs have few.
        runs: Those runs.
        others: The other forms.
        longest: The length of the longest form.
    """

    shown: dict[str, str] = field(default_factory=dict)
    tokens: re.Pattern[str] | None = None
    runs: re.Pattern[str] | None = None
    others: re.Pattern[str] | None = None
    longest: int = 1

    @classmethod
    def of(cls, shown: dict[str, str]) -> _Matcher:
        """Compile the forms."""
        tokens = [form for form in shown if _TOKEN.fullmatch(form)]
        others = [form for form in shown if not _TOKEN.fullmatch(form)]
        shortest = min(map(len, tokens), default=1)
        return cls(
            shown=shown,
            tokens=re.compile(_trie(tokens)) if tokens else None,
            runs=re.compile(f"{_TOKEN.pattern[:-1]}{{{shortest},}}"),
            others=re.compile(_trie(others)) if others else None,
            longest=max(map(len, shown), default=1),
        )

    def spans(self, text: str) -> list[tuple[int, int, str]]:
        """Return where forms stand, in order: begin, end, what is shown there. They may overlap."""
        found: list[tuple[int, int, str]] = []
        if self.tokens is not None and self.runs is not None:
            for run in self.runs.finditer(text):
                self._search(self.tokens, text, run.start(), run.end(), found)
        if self.others is not None:
            self._search(self.others, text, 0, len(text), found)
            found.sort(key=lambda span: span[:2])
        return found

    def _search(
        self, pattern: re.Pattern[str], text: str, begin: int, end: int, found: list[tuple[int, int, str]]
    ) -> None:
        match = pattern.search(text, begin, end)
        while match:
            found.append((match.start(), match.end(), self.shown[match.group()]))
            match = pattern.search(text, match.start() + 1, end)


class Redactor:
    """Knows the secrets of a run. One of it serves every thread."""

    def __init__(self) -> None:
        self._forms: dict[str, str] = {}
        self._matcher: _Matcher | None = _Matcher()
        self._guard = threading.Lock()

    def add(self, value: str, name: str = "") -> None:
        """Blot `value` out from now on, as `[secret <name>]`. A value of under 4 characters is left alone."""
        if len(value) < SHORTEST:
            return
        shown = f"[secret {name}]" if name else "[secret]"
        lines = [line for line in value.splitlines() if len(line) >= SHORTEST_LINE] if "\n" in value else []
        with self._guard:
            for text in (value, *lines):
                for form in _forms(text):
                    self._forms.setdefault(form, shown)
            self._matcher = None

    def clean(self, text: str) -> str:
        """Return `text` with every value blotted out."""
        cleaned, _ = _clean(self._current(), text, len(text))
        return cleaned

    def clean_bytes(self, data: bytes) -> bytes:
        """Return `data` with every value blotted out; what is no UTF-8 stays as it is."""
        return self.clean(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def stream(self, chunks: Iterable[str]) -> Iterator[str]:
        """Yield what chunks hold, cleaned; a value that is split between chunks is found too.

        As much as the longest form of a value is held back until more comes, or the end.
        """
        held = ""
        for chunk in chunks:
            matcher = self._current()
            held += chunk
            # What begins before this place can be told now: its longest form would lie in what is held.
            sure = len(held) - matcher.longest + 1
            if sure > 0:
                cleaned, read = _clean(matcher, held, sure)
                held = held[read:]
                yield cleaned
        if held:
            yield self.clean(held)

    def stream_bytes(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what chunks hold, cleaned, as `stream` does; a character that is split between chunks is kept whole."""
        decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode

        def texts() -> Iterator[str]:
            for chunk in chunks:
                yield decode(chunk)
            yield decode(b"", final=True)

        for text in self.stream(texts()):
            yield text.encode("utf-8", "surrogateescape")

    def _current(self) -> _Matcher:
        matcher = self._matcher
        if matcher is None:
            with self._guard:
                # Compiled when it is first used, and not at each value that is added.
                shown = dict(self._forms)
                matcher = self._matcher = _Matcher.of(shown)
        return matcher


def _clean(matcher: _Matcher, text: str, until: int) -> tuple[str, int]:
    """Blot out what begins before `until`; return that, and how much of `text` it stands for."""
    parts: list[str] = []
    done = 0
    for start, end, shown in matcher.spans(text):
        if start >= max(until, done):
            break
        if start >= done:
            parts += (text[done:start], shown)
        # Values may overlap: all of what any of them covers goes.
        done = max(done, end)
    end = max(until, done)
    parts.append(text[done:end])
    return "".join(parts), end


def _trie(words: Iterable[str]) -> str:
    """Return a pattern that matches the longest of many words, and looks at each character of a text but a few times."""
    root: dict[str, Any] = {}
    for word in words:
        node = root
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}

    def written(node: dict[str, Any]) -> str:
        tail = ""
        while len(node) == 1 and "" not in node:
            ((character, node),) = node.items()
            tail += re.escape(character)
        branches = [f"{re.escape(character)}{written(child)}" for character, child in node.items() if character]
        if not branches:
            return tail
        return f"{tail}(?:{'|'.join(branches)}){'?' if '' in node else ''}"

    return written(root)


def _forms(value: str) -> set[str]:
    """Return every way in which a value may be written."""
    raw = value.encode("utf-8", "surrogateescape")
    found = {value, value.replace("$", "$$"), raw.hex(), raw.hex().upper()}
    for plain in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        # Some writers of JSON escape what could end a script or a tag, some a slash.
        found |= {plain, plain.replace("/", "\\/")}
        found.add(plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
    for encoded in (quote(raw, safe=""), quote(raw), quote_plus(raw), quote(raw, safe="!*'();:@&=+$,/?#[]")):
        found |= {encoded, re.sub(r"%[0-9A-F]{2}", lambda part: part.group().lower(), encoded)}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(raw).decode()
        found |= {whole, whole.rstrip("=")}
        # Within a longer text, a value begins at one of three places of a group of base64; the digits at its edges
        # hold bits of its neighbours as well, and are left out.
        for before, skip in enumerate((0, 2, 3)):
            digits = encode(b"\0" * before + raw).decode().rstrip("=")
            found.add(digits[skip : len(digits) - (1 if (before + len(raw)) % 3 else 0)])
    return {form for form in found if len(form) >= SHORTEST}
