"""Blot values out that must never be printed, in every encoding in which they turn up.

Example:
    >>> blot = Redactor()
    >>> blot.add("hunter2!", "db_password")
    >>> blot.clean("password=hunter2%21 aHVudGVyMiE=")
    'password=[secret db_password] [secret db_password]'
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

__all__ = ["SHORTEST", "Redactor"]

#: A shorter value is not blotted out: it would blot out half of every log, and protects nothing.
SHORTEST = 4


class Redactor:
    """Knows the secrets of a run. One of it serves every thread."""

    def __init__(self) -> None:
        self._forms: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None
        self._guard = threading.Lock()

    def add(self, value: str, name: str = "") -> None:
        """Blot `value` out from now on, as `[secret <name>]`. A value of under 4 characters is left alone."""
        if len(value) < SHORTEST:
            return
        shown = f"[secret {name}]" if name else "[secret]"
        with self._guard:
            for form in _forms(value):
                self._forms.setdefault(form, shown)
            # The longest first: a form may begin with another.
            words = sorted(self._forms, key=len, reverse=True)
            self._pattern = re.compile("|".join(re.escape(word) for word in words))

    def clean(self, text: str) -> str:
        """Return `text` with every value blotted out."""
        pattern = self._pattern
        return pattern.sub(lambda found: self._forms[found.group()], text) if pattern else text

    def clean_bytes(self, data: bytes) -> bytes:
        """Return `data` with every value blotted out."""
        return self.clean(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def stream(self, chunks: Iterable[str]) -> Iterator[str]:
        """Yield what chunks hold, cleaned; a value that is split between two chunks is found too."""
        longest = max(map(len, self._forms), default=1)
        held = ""
        for chunk in chunks:
            held = self.clean(held + chunk)
            if len(held) >= longest:
                cut = len(held) - longest + 1
                yield held[:cut]
                held = held[cut:]
        if held:
            yield self.clean(held)


def _forms(value: str) -> set[str]:
    """Return every way in which a value may be written."""
    raw = value.encode()
    escaped = json.dumps(value)[1:-1]
    found = {value, escaped, json.dumps(value, ensure_ascii=False)[1:-1], raw.hex(), raw.hex().upper()}
    for encoded in (quote(value, safe=""), quote_plus(value), quote(value)):
        found |= {encoded, re.sub(r"%[0-9A-F]{2}", lambda part: part.group().lower(), encoded)}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        # Within a longer text, a value begins at one of three places of a group of base64.
        for before in range(3):
            whole = encode(b"\0" * before + raw).decode().rstrip("=")
            skip = (0, 2, 3)[before]
            last = len(whole) if (before + len(raw)) % 3 == 0 else len(whole) - 1
            found.add(whole[skip:last])
        found.add(encode(raw).decode())
    return {form for form in found if len(form) >= SHORTEST}
