"""`python -m dashboard`: serve the pages."""

from __future__ import annotations

import sys

import uvicorn

from dashboard.app import create_app
from dashboard.settings import BadSettingsError, load_settings


def main() -> int:
    """Serve until told to stop."""
    try:
        settings = load_settings()
    except BadSettingsError as error:
        print(f"dashboard: {error}", file=sys.stderr)
        return 2
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level.lower(),
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
