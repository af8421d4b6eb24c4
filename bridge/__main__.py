"""Run the bridge: `python -m bridge`. Its settings are environment variables, see `bridge/settings.py`."""

from __future__ import annotations

import sys

import uvicorn

from bridge.app import create_app
from bridge.logs import configure_logs
from bridge.settings import BadSettingsError, load_settings
from bridge.triggers import StoreError, Triggers


def main() -> int:
    """Serve until a signal says to stop; return 2 where the settings or the database do not allow it."""
    try:
        settings = load_settings()
        # Opened once before serving, so that what is wrong with it is one clear line.
        Triggers(settings.database).close()
    except (BadSettingsError, StoreError) as error:
        print(f"bridge: {error.message}", file=sys.stderr)
        return 2
    configure_logs(settings.log_level, secrets=settings.secrets)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
