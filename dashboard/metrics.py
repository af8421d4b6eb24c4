"""What a monitoring system asks of the dashboard: verdicts, levels, the queue, and whether the index is up to date."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dashboard.fleet import Fleet
from pytest_coopcloud.report.words import State

__all__ = ["registry_of"]


class _FleetCollector(Collector):
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def describe(self) -> Iterable[Metric]:
        """Name nothing ahead: what there is follows from the runs."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Count anew at each request."""
        fleet, store = self._fleet, self._fleet.store
        level = GaugeMetricFamily("coopcloud_recipe_level", "Level of the recipe's last run.", labels=["recipe"])
        passed = GaugeMetricFamily(
            "coopcloud_recipe_passed", "Whether the recipe's last run passed (1) or not (0).", labels=["recipe"]
        )
        ended = GaugeMetricFamily(
            "coopcloud_recipe_last_run_timestamp_seconds", "When the recipe's last run began.", labels=["recipe"]
        )
        for row in fleet.rows():
            level.add_metric([row.recipe], row.latest.level)
            passed.add_metric([row.recipe], 1.0 if row.state is State.PASS else 0.0)
            ended.add_metric([row.recipe], row.latest.started_at)
        yield from (level, passed, ended)
        plain = (
            ("coopcloud_runs", "Runs in the index.", float(len(store))),
            ("coopcloud_runs_broken", "Runs whose results cannot be read.", float(len(store.broken()))),
            ("coopcloud_runs_running", "Runs that are going on.", float(len(fleet.running()))),
            ("coopcloud_builds_queued", "Builds that wait.", float(len(fleet.queue()))),
            ("coopcloud_index_timestamp_seconds", "When the folder was last compared.", store.indexed_at),
            ("coopcloud_results_readable", "Whether the folder of results can be read.", 0.0 if store.problem else 1.0),
        )
        for name, text, value in plain:
            yield GaugeMetricFamily(name, text, value=value)
        if fleet.drone is not None:
            yield GaugeMetricFamily(
                "coopcloud_drone_up", "Whether Drone answers.", value=0.0 if fleet.drone.problem else 1.0
            )


def registry_of(fleet: Fleet) -> CollectorRegistry:
    """Return a registry of its own, so that two dashboards in one process do not meet."""
    registry = CollectorRegistry()
    registry.register(_FleetCollector(fleet))
    return registry
