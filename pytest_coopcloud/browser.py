"""Chromium: where it is, and how it reaches an app. Playwright's own is taken first, then the system's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pytest_coopcloud.proxy import Gateway, chromium_arguments

__all__ = ["find_chromium", "launch_arguments"]

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
_IN_PLAYWRIGHT = ("chromium-*/chrome-linux*/chrome", "chromium_headless_shell-*/chrome-*/*headless*shell")


def find_chromium() -> Path | None:
    """Return the path of a Chromium; None where there is none."""
    cache = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    base = Path(cache) if cache and cache != "0" else Path.home() / ".cache" / "ms-playwright"
    for pattern in _IN_PLAYWRIGHT:
        found = sorted(base.glob(pattern))
        if found:
            return found[-1]
    for name in _NAMES:
        where = shutil.which(name)
        if where:
            return Path(where)
    return None


def launch_arguments(gateway: Gateway, base_domain: str) -> list[str]:
    """Return the arguments that Chromium is started with: where names lead, whom to trust, no calls home."""
    found = [
        *chromium_arguments(gateway, base_domain),
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        found.append("--no-sandbox")  # Chromium refuses to sandbox for root
    return found
