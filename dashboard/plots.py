"""How long each stage took, run by run, as inline SVG.

pygal draws it; its scripts, its style sheet and its style attributes are left out, so that a page with a strict
Content-Security-Policy can hold it, and our own stylesheet colours it, in light and in dark.
"""

from __future__ import annotations

import functools
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from dashboard.store import Row
from pytest_coopcloud.report.words import day, duration
from pytest_coopcloud.results import Stage

__all__ = ["durations_plot"]

SHOWN = 30
_KEPT = frozenset({"svg", "g", "rect", "path", "text", "title"})


def durations_plot(rows: Sequence[Row]) -> Markup:
    """Draw the durations of the stages of the last runs.

    Args:
        rows: Newest first; the first 30 that have ended are drawn, oldest at the left. Nothing where none has.
    """
    shown = [row for row in rows if row.finished][:SHOWN][::-1]
    if not shown:
        return Markup()
    chart = _pygal().StackedBar(
        js=[],
        width=960,
        height=300,
        margin=6,
        spacing=4,
        show_legend=False,
        y_title=None,
        value_formatter=lambda value: f"{value:.0f} s",
        show_minor_x_labels=False,
        x_labels_major_every=max(len(shown) // 6, 1),
        truncate_label=-1,
        no_prefix=True,
    )
    chart.x_labels = [day(row.started_at) for row in shown]
    for stage in Stage:
        spent = [sum(one.duration_seconds for one in row.stages if one.stage is stage) for row in shown]
        chart.add(
            stage.value,
            [
                {"value": max(value, 0.0), "label": f"{stage.value}: {duration(value)}, {row.run_id}"}
                for value, row in zip(spent, shown, strict=True)
            ],
        )
    root = chart.render_tree()
    _strip(root)
    for name in ("id", "width", "height"):
        root.attrib.pop(name, None)
    root.set("class", "plot-durations")
    root.set("role", "img")
    root.set("aria-label", "seconds of each stage in the last runs; the table below says the same")
    text = ET.tostring(root, encoding="unicode")
    return Markup(text)  # noqa: S704 - a tree that ElementTree has escaped, of which nothing executes


@functools.cache
def _pygal() -> Any:
    """Import pygal when a plot is wanted, and take back the import hook that it leaves behind.

    The hook finds plug-ins that we do not use, and makes Python 3.11 warn at each later import.
    """
    import pygal  # type: ignore[import-untyped]

    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]
    return pygal


def _strip(element: ET.Element) -> None:
    """Leave out all but shapes and their words; the label of a bar becomes its title."""
    element.attrib.pop("style", None)
    label = next((child.text for child in element.findall("desc") if child.get("class") == "label"), None)
    for child in list(element):
        names = (child.get("class") or "").split()
        if child.tag not in _KEPT or "overlay" in " ".join(names) or (child.tag == "title" and label is None):
            element.remove(child)
            continue
        _strip(child)
        if label and child.tag == "rect":
            ET.SubElement(child, "title").text = label
