"""The badge of a README."""

import os
import re
import xml.etree.ElementTree as ET

import pytest

from dashboard.badges import Style, Word, badge_svg
from tests.dashboard.conftest import NOW
from tests.dashboard.runs import Kind, make_run


def words(answer):
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/svg+xml"
    root = ET.fromstring(answer.content)
    return root.find("{http://www.w3.org/2000/svg}title").text


@pytest.mark.parametrize(
    ("kind", "age", "expected"),
    [
        (Kind.PASSED, 3600, "passed, level 5"),
        (Kind.FAILED, 3600, "failed, level 1"),
        (Kind.DISK_FULL, 3600, "unverified, level 2"),
        (Kind.RUNNING, 60, "running"),
        (Kind.PASSED, 61 * 86400, "stale"),
        (Kind.PASSED, 59 * 86400, "passed, level 5"),
    ],
)
def test_says_what_the_last_run_that_counts_says(runs, client, kind, age, expected):
    result = make_run(runs, "hedgedoc", kind=kind, started_at=NOW - age, files=False)
    os.utime(runs / result.run_id / "results.json", (NOW - 30, NOW - 30))

    assert words(client().get("/badge/hedgedoc.svg")) == f"co-op cloud: {expected}"


def test_pull_requests_do_not_count_and_can_be_asked_for(runs, client):
    make_run(runs, "hedgedoc", started_at=NOW - 9000, files=False)
    make_run(runs, "hedgedoc", kind=Kind.FAILED, started_at=NOW - 5000, pr="42", files=False)
    make_run(runs, "hedgedoc", kind=Kind.FAILED, started_at=NOW - 4000, counts=False, files=False)
    ask = client()

    assert words(ask.get("/badge/hedgedoc.svg")) == "co-op cloud: passed, level 5"
    assert words(ask.get("/badge/hedgedoc.svg?pr=42")) == "co-op cloud: failed, level 1"
    assert words(ask.get("/badge/hedgedoc.svg?pr=43")) == "co-op cloud: unknown"


def test_an_unknown_recipe_has_a_badge(client):
    assert words(client().get("/badge/nothing.svg")) == "co-op cloud: unknown"


def test_styles_differ_and_an_unknown_one_is_flat(runs, client):
    make_run(runs, "hedgedoc", started_at=NOW - 9000, files=False)
    ask = client()
    flat = ask.get("/badge/hedgedoc.svg").content

    assert ask.get("/badge/hedgedoc.svg?style=flat").content == flat
    assert ask.get("/badge/hedgedoc.svg?style=flat-square").content != flat
    assert ask.get("/badge/hedgedoc.svg?style=<script>").content == flat


def test_is_cached_for_a_short_time_and_not_sent_twice(runs, client):
    make_run(runs, "hedgedoc", started_at=NOW - 9000, files=False)
    ask = client()

    first = ask.get("/badge/hedgedoc.svg")
    second = ask.get("/badge/hedgedoc.svg", headers={"If-None-Match": first.headers["etag"]})

    assert first.headers["cache-control"] == "public, max-age=60"
    assert second.status_code == 304
    assert second.content == b""


@pytest.mark.parametrize("word", list(Word))
def test_white_letters_can_be_read_on_every_colour(word):
    svg = badge_svg(word, None, Style.FLAT_SQUARE)
    colour = word.value[1]
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]

    assert colour in svg
    assert not re.search(r"<script|<image|href=\"http", svg)
    assert 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05) >= 4.5
