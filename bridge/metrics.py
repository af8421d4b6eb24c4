"""What Prometheus may ask: the numbers of one bridge, in a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]


class Metrics:
    """The numbers, one attribute each. Labels hold only words of ours, never text from outside."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "coopcloud_bridge_"
        self.comments = Counter(f"{name}comments_seen", "Commands found", ["source"], registry=self.registry)
        self.builds = Counter(f"{name}builds", "Builds, by how they were had", ["how"], registry=self.registry)
        self.refusals = Counter(f"{name}refusals", "Commands that started nothing", ["reason"], registry=self.registry)
        self.verdicts = Counter(f"{name}verdicts", "Builds that ended", ["outcome"], registry=self.registry)
        self.webhooks = Counter(f"{name}webhooks", "Webhooks received", ["answer"], registry=self.registry)
        self.writes = Counter(f"{name}writes", "Comments and statuses written", ["what"], registry=self.registry)
        self.api_errors = Counter(
            f"{name}api_errors", "Requests that went wrong", ["server", "kind"], registry=self.registry
        )
        self.poll_lag = Gauge(f"{name}poll_lag_seconds", "Time since the last whole poll", registry=self.registry)
        self.behind = Gauge(f"{name}repositories_behind", "Repositories to be read", registry=self.registry)
        self.enrolled = Gauge(f"{name}repositories_enrolled", "Repositories enrolled", registry=self.registry)
        self.active = Gauge(f"{name}triggers_active", "Triggers that have not ended", registry=self.registry)
        self.poll_seconds = Histogram(
            f"{name}poll_cycle_seconds",
            "How long a poll took",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
            registry=self.registry,
        )
        self.start_seconds = Histogram(
            f"{name}comment_to_build_seconds",
            "From when a comment was seen to its build",
            buckets=(0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600),
            registry=self.registry,
        )

    def text(self) -> bytes:
        """Return all of them as Prometheus reads them."""
        return generate_latest(self.registry)
