"""An app's `.env`: change single keys, keep everything else, comments above all (they hold secret modifiers)."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["merged"]

_LINE = re.compile(r"(?P<off>#\s*)?(?P<key>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>[^#\n]*?)(?P<comment>\s+#.*)?")


def merged(text: str, wishes: Mapping[str, str]) -> str:
    """Return `text` with each key of `wishes` set to its value.

    A key that stands there is changed in place and keeps its comment. One that is commented out is switched on where
    it stands. Of a key that stands there several times (`COMPOSE_FILE` appends to itself) the first is changed and
    the others go. New keys come last.

    Example:
        >>> merged("# LEVEL=1 # how loud\\nTYPE=traefik\\n", {"LEVEL": "2"})
        'LEVEL=2 # how loud\\nTYPE=traefik\\n'
    """
    live = {match["key"] for match in map(_LINE.fullmatch, text.splitlines()) if match and not match["off"]}
    seen: set[str] = set()
    lines = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        key = match["key"] if match else ""
        if not match or key not in wishes or (match["off"] and (key in live or key in seen)):
            lines.append(line)
            continue
        if key not in seen:
            lines.append(f"{key}={wishes[key]}{match['comment'] or ''}")
        seen.add(key)
    lines += [f"{key}={value}" for key, value in wishes.items() if key not in seen]
    return "\n".join(lines) + "\n"
