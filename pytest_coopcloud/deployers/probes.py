"""Health probes every second, with the tolerance that the recipe asked for.

Recipes declare intervals of 30 s, so an app is found healthy up to 30 s after it is. A trial asks every second, and allows
as many failures as fit into the recipe's own tolerance (interval x retries; the start period stays as it is).
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["comparable", "fast_health", "fast_update", "seconds"]

#: What Docker takes where a health check says nothing.
_INTERVAL, _RETRIES = 30.0, 3
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")

#: Swarm watches a new task this long before it calls the update complete; 5 s where nothing is said.
_MONITOR = "1s"


def seconds(duration: Any, default: float = 0.0) -> float:
    """Read a duration as compose files write it (`1m30s`), or as the engine does (an integer of nanoseconds)."""
    if duration in (None, ""):
        return default
    if isinstance(duration, int | float):
        return float(duration) / 1e9
    found = _DURATION.findall(str(duration))
    return sum(float(number) * _UNITS[unit] for number, unit in found) if found else default


def fast_health(declared: Mapping[str, Any] | None, image: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the health check that asks every second.

    Args:
        declared: `healthcheck` of the compose file, if any.
        image: `Config.Healthcheck` of the image, if any: what is not declared is inherited from it.

    Returns:
        The new `healthcheck`, or None where there is none to change.
    """
    own = dict(declared or {})
    test = own.get("test") or (image or {}).get("Test")
    if own.get("disable") or not test or test in (["NONE"], "NONE"):
        return None
    interval = seconds(own.get("interval") or (image or {}).get("Interval"), _INTERVAL)
    retries = int(own.get("retries") or (image or {}).get("Retries") or _RETRIES)
    if interval <= 1:
        return None
    return {**own, "interval": "1s", "retries": math.ceil(interval * retries)}


def fast_update(declared: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return an `update_config` whose watch over a new task is short: this trial watches longer itself."""
    own = dict(declared or {})
    if seconds(own.get("monitor"), 5.0) > seconds(_MONITOR):
        own["monitor"] = _MONITOR
    return own


#: What abra writes into the environment of service `app` anew for each version, beside what the recipe asks for.
_WRITTEN = ("TYPE", "RECIPE", "COMPOSE_FILE")


def comparable(template: Mapping[str, Any], image: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a service's task template without what differs between two deployments of the very same thing.

    Health checks with the same tolerance are the same, however often they ask.

    Args:
        template: `TaskTemplate` as the engine gives it.
        image: `Config.Healthcheck` of its image, if any.
    """
    made: dict[str, Any] = copy.deepcopy(dict(template))
    made.pop("ForceUpdate", None)
    container = made.get("ContainerSpec") or {}
    container["Env"] = sorted(entry for entry in container.get("Env") or [] if entry.partition("=")[0] not in _WRITTEN)
    own = container.pop("Healthcheck", None) or {}
    health = {**(image or {}), **{key: value for key, value in own.items() if value}}
    if health.get("Test") not in (None, [], ["NONE"]):
        tolerance = seconds(health.pop("Interval", None), _INTERVAL) * int(health.pop("Retries", 0) or _RETRIES)
        container["Healthcheck"] = {**health, "tolerance": math.ceil(tolerance)}
    return made
