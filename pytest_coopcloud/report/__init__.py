"""`report.html`: a run on one page that needs nothing else, and the style and partials that the dashboard shares.

Example:
    >>> from pathlib import Path
    >>> from pytest_coopcloud.results import RunResult
    >>> page = render_report(RunResult(run_id="hell-0a1b2c", recipe="hello", started_at=0.0), Path("."))
    >>> page.startswith("<!doctype html>")
    True
"""

from __future__ import annotations

import base64
import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pytest_coopcloud.report import words
from pytest_coopcloud.report.artifacts import image_type, open_artifact
from pytest_coopcloud.results import Artifact, RunResult, Verdict

__all__ = ["LOGS_LIMIT", "PICTURES_LIMIT", "Log", "Picture", "add_words", "render_report", "stylesheet"]

#: Bytes of logs in one report, all together. A longer log is shown from its end.
LOGS_LIMIT = 2 * 1024 * 1024
#: Bytes of screenshots in one report, all together.
PICTURES_LIMIT = 8 * 1024 * 1024

LOG_KINDS = ("log", "ps", "text")


@dataclass(frozen=True)
class Log:
    """A log as the report shows it; `note` says what was left out, or why there is nothing."""

    artifact: Artifact
    text: str
    note: str


@dataclass(frozen=True)
class Picture:
    """A screenshot as the report shows it: `uri` holds it whole; without one, `note` says why."""

    artifact: Artifact
    uri: str
    note: str


def render_report(result: RunResult, folder: Path) -> str:
    """Return the page of a run: its result, its logs and screenshots, everything inlined.

    Args:
        result: The run.
        folder: Where its artifacts lie. One that is missing is named in the page, and no error.
    """
    template = _environment().get_template("report.html.j2")
    return template.render(
        result=result,
        style=Markup(stylesheet()),  # noqa: S704 - our own file
        logs=list(_logs(result.artifacts, folder)),
        pictures=list(_pictures(result.artifacts, folder)),
    )


@functools.cache
def stylesheet() -> str:
    """Return the one stylesheet of the report and the dashboard."""
    return (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


def add_words(environment: jinja2.Environment) -> None:
    """Give a Jinja2 environment the filters and names that the shared partials use."""
    environment.filters.update(
        duration=words.duration,
        seconds=words.seconds,
        moment=words.moment,
        day=words.day,
        iso=words.iso,
        ago=words.ago,
        bytes=words.bytes_in_words,
        printable=words.printable,
        headline=words.headline,
        state=words.verdict_state,
    )
    environment.globals.update(
        State=words.State,
        Verdict=Verdict,
        RUNGS=words.RUNGS,
        STAGE_WORDS=words.STAGE_WORDS,
        CAUSE_WORDS=words.CAUSE_WORDS,
        stage_state=words.stage_state,
    )
    # Results come from outside: whatever is printed has no control character, and is escaped after that.
    environment.finalize = _finalize


def _finalize(value: Any) -> Any:
    return words.printable(value) if type(value) is str else value


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    add_words(environment)
    return environment


def _logs(artifacts: Iterable[Artifact], folder: Path) -> Iterable[Log]:
    left = LOGS_LIMIT
    for artifact in artifacts:
        if artifact.kind not in LOG_KINDS:
            continue
        try:
            with open_artifact(folder, artifact.path) as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(size - left, 0))
                raw = file.read(left)
        except OSError:
            yield Log(artifact, "", "the file is not there")
            continue
        cut = size - len(raw)
        if cut > 0:
            # Begin with a whole line.
            raw = raw[raw.find(b"\n") + 1 :]
            note = f"the last {words.bytes_in_words(len(raw))} of {words.bytes_in_words(size)}; the rest is in the file"
        else:
            note = "" if raw else "empty"
        left -= len(raw)
        yield Log(artifact, words.printable(raw.decode("utf-8", "replace")), note)


def _pictures(artifacts: Iterable[Artifact], folder: Path) -> Iterable[Picture]:
    left = PICTURES_LIMIT
    for artifact in artifacts:
        if artifact.kind != "screenshot":
            continue
        try:
            with open_artifact(folder, artifact.path) as file:
                size = os.fstat(file.fileno()).st_size
                raw = file.read(left + 1)
        except OSError:
            yield Picture(artifact, "", "the file is not there")
            continue
        kind = image_type(raw[:16])
        if len(raw) > left:
            yield Picture(artifact, "", f"left out: {words.bytes_in_words(size)} are too much for one page")
        elif not kind:
            yield Picture(artifact, "", "the file is no picture")
        else:
            left -= len(raw)
            yield Picture(artifact, f"data:{kind};base64,{base64.b64encode(raw).decode('ascii')}", "")
