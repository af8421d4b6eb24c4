"""The changes of verdicts, as an Atom feed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import feedgenerator  # type: ignore[import-untyped]

from dashboard.store import Row, Store
from pytest_coopcloud.results import Verdict

__all__ = ["Change", "atom", "changes"]

SHOWN = 50


@dataclass(frozen=True, slots=True)
class Change:
    """A run whose verdict is not that of the run before; `before` is None for a recipe's first."""

    row: Row
    before: Verdict | None


def changes(store: Store) -> list[Change]:
    """List the last changes of verdicts among the runs that count, newest first."""
    found = [change for recipe in store.recipes() for change in _changes_of(store.of_recipe(recipe))]
    found.sort(key=lambda change: -(change.row.finished_at or 0.0))
    return found[:SHOWN]


def _changes_of(rows: Iterable[Row]) -> Iterator[Change]:
    counting = [row for row in rows if row.counts and row.finished]
    for row, before in itertools.zip_longest(counting, counting[1:]):
        if before is None or before.verdict is not row.verdict:
            yield Change(row, before.verdict if before else None)


def atom(found: Iterable[Change], *, title: str, address: str) -> str:
    """Write the feed.

    Args:
        found: The changes, newest first.
        title: The name of the dashboard.
        address: Where the dashboard answers, without a slash at the end.
    """
    feed = feedgenerator.Atom1Feed(
        title=f"{title}: changes of verdicts", link=f"{address}/", description="", feed_url=f"{address}/feed.atom"
    )
    for change in found:
        row = change.row
        was = f", it was {change.before.value}" if change.before else ", its first run"
        moment = datetime.fromtimestamp(row.finished_at or row.started_at, UTC)
        feed.add_item(
            title=f"{row.recipe} {row.version}: {row.headline}{was}",
            link=f"{address}/run/{row.run_id}",
            unique_id=f"{address}/run/{row.run_id}",
            description=row.summary or row.headline,
            pubdate=moment,
            updateddate=moment,
        )
    return str(feed.writeString("utf-8"))
