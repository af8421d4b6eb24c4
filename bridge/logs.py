"""Logs as JSON lines, one object each, with every secret of ours blotted out."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TextIO

from pytest_coopcloud.redaction import Redactor

__all__ = ["JsonFormatter", "configure_logs"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """Format a record as one line of JSON: time, level, logger, message, and what was passed as `extra`.

    Args:
        secrets: Values that must never be printed.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._redactor = Redactor()
        for secret in secrets:
            self._redactor.add(secret)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update({name: value for name, value in vars(record).items() if name not in _STANDARD})
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return self._redactor.clean(json.dumps(entry, default=str))


def configure_logs(level: str, *, secrets: Iterable[str], stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (standard error where not given) as JSON."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(secrets))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Each request of ours would be a line; what goes wrong is logged by who asked.
    for name in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
