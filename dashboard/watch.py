"""Keep a `Store` as new as its folder, by what the kernel reports of it.

The folder of runs is watched, and the folder of each run that may still change; so the number of watches does not grow
with the number of runs. A slow comparison of everything covers file systems that report nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from watchfiles import awatch

from dashboard.store import Store

__all__ = ["follow"]

_log = logging.getLogger(__name__)

_DEBOUNCE = 100
_STEP = 20


async def follow(store: Store, *, rescan_interval: float) -> None:
    """Follow the folder until cancelled."""
    while True:
        try:
            await _follow_same(store, rescan_interval)
        except (OSError, RuntimeError) as error:
            # No folder yet, no watches left, or a file system without them: compare instead.
            _log.warning("the folder of results cannot be watched, it is compared instead: %s", error)
            await store.refresh()
            await asyncio.sleep(min(rescan_interval, 1.0))


async def _follow_same(store: Store, rescan_interval: float) -> None:
    """Follow the folder while the same runs are unfinished."""
    watched = store.unfinished
    events = awatch(
        store.runs,
        *(store.runs / name for name in watched if (store.runs / name).is_dir()),
        recursive=False,
        watch_filter=None,
        debounce=_DEBOUNCE,
        step=_STEP,
        rust_timeout=max(int(rescan_interval * 1000), 1),
        yield_on_timeout=True,
    )
    async with contextlib.aclosing(events):
        upcoming = asyncio.ensure_future(anext(events))
        try:
            # The watches stand from the first step of `events` on; what came before it is found by comparing once.
            await asyncio.sleep(0)
            await store.refresh()
            while store.unfinished == watched:
                changes = await upcoming
                if changes:
                    names = {Path(path).relative_to(store.runs).parts[:1] for _, path in changes}
                    await store.refresh([part[0] for part in names if part])
                else:
                    await store.refresh()
                if not store.runs.is_dir():
                    raise FileNotFoundError(f"{store.runs} is gone")
                upcoming = asyncio.ensure_future(anext(events))
        finally:
            upcoming.cancel()
            await _ended(upcoming)


async def _ended(task: asyncio.Future[Any]) -> None:
    """Wait for the end of a task, whatever it is; a cancellation that comes meanwhile is ours, and is passed on after it."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if not task.cancelled():
        task.exception()
    if cancelled:
        raise asyncio.CancelledError
