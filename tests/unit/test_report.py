"""report.html: everything of a run on one page, nothing from outside, nothing that executes."""

import html.parser
import os
import re
from pathlib import Path

import pytest

from pytest_coopcloud.report import LOGS_LIMIT, render_report, stylesheet, words
from pytest_coopcloud.report.artifacts import image_type, open_artifact
from pytest_coopcloud.results import Artifact, Cause, CauseClass, Outcome, RunResult, Stage
from tests.dashboard.runs import Kind, make_run


class Page(html.parser.HTMLParser):
    """What stands in a page: its tags with their attributes, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def failed(tmp_path: Path) -> tuple[RunResult, Path]:
    result = make_run(tmp_path, "hedgedoc", kind=Kind.FAILED, pr="42")
    return result, tmp_path / result.run_id


def test_says_the_verdict_its_cause_and_the_command(failed: tuple[RunResult, Path]) -> None:
    page = Page(render_report(*failed))

    for expected in (
        "failed in upgrade",
        "column notes.alias does not exist",
        "see artifacts/app.log",
        "the recipe",
        failed[0].command,
        "coop-cloud/hedgedoc #42",
        "test_mail_is_sent",
        "no SMTP server in the trial",
    ):
        assert expected in page.text


def test_needs_nothing_from_outside_and_runs_nothing(failed: tuple[RunResult, Path]) -> None:
    page = Page(render_report(*failed))

    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object", "base")]
    loaded = [attributes["src"] for _, attributes in page.tags if attributes.get("src")]
    assert len(loaded) == 1
    assert str(loaded[0]).startswith("data:image/png;base64,")
    assert "url(" not in stylesheet()


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_run_has_a_page(tmp_path: Path, kind: Kind) -> None:
    result = make_run(tmp_path, "cryptpad", kind=kind)

    page = Page(render_report(result, tmp_path / result.run_id))

    assert words.headline(result) in page.text


def test_escapes_whatever_a_run_says(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    result = RunResult(
        run_id="evil-0a1b2c",
        recipe=evil,
        version=evil,
        command=evil,
        died=evil,
        src=evil,
        pr=evil,
        started_at=1.0,
        finished_at=2.0,
        leaks=[evil],
        notes=[evil],
        artifacts=[Artifact(path=evil, kind="log", title=evil), Artifact(path="log", kind="log", title="log")],
    )
    record = result.stage(Stage.INSTALL, evil)
    record.outcome = Outcome.FAIL
    record.cause = Cause(kind=CauseClass.RECIPE, summary=evil, hint=evil, log=[evil, "\x1b[31mred\x1b[0m \x07\u202e"])
    (tmp_path / "log").write_text(evil + "</pre>")

    page = render_report(result, tmp_path)

    tags = Page(page).tags
    assert not [tag for tag, attributes in tags if tag in ("script", "img") or "onerror" in attributes]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", page)
    assert "red \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}" in page


def test_shows_the_end_of_a_log_that_is_too_long(tmp_path: Path) -> None:
    result = RunResult(
        run_id="long-0a1b2c", recipe="long", started_at=1.0, artifacts=[Artifact(path="log", kind="log")]
    )
    with (tmp_path / "log").open("w") as file:
        for number in range(400_000):
            file.write(f"line {number}\n")

    page = render_report(result, tmp_path)

    assert "line 399999" in page
    assert "line 1\n" not in page
    assert re.search(r"the last 2\.\d MB of 4\.\d MB; the rest is in the file", page)
    assert len(page) < LOGS_LIMIT * 1.2


def test_names_the_artifacts_that_are_missing_or_no_pictures(tmp_path: Path) -> None:
    result = RunResult(
        run_id="gone-0a1b2c",
        recipe="gone",
        started_at=1.0,
        artifacts=[
            Artifact(path="artifacts/gone.log", kind="log"),
            Artifact(path="fake.png", kind="screenshot"),
            Artifact(path="gone.png", kind="screenshot"),
        ],
    )
    (tmp_path / "fake.png").write_text("<svg onload=alert(1)>")

    page = Page(render_report(result, tmp_path))

    assert page.text.count("the file is not there") == 2
    assert "the file is no picture" in page.text


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "/etc/passwd",
        "link",
        "folder/secret",
        "pipe",
        "",
        ".",
        "a//b",
        "inside/../../secret",
        "x\0y",
        "inside",
    ],
)
def test_opens_no_file_outside_of_the_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("secret")
    run = tmp_path / "run"
    (run / "inside").mkdir(parents=True)
    (run / "link").symlink_to(tmp_path / "secret")
    (run / "folder").symlink_to(tmp_path)
    os.mkfifo(run / "pipe")

    with pytest.raises(FileNotFoundError):
        open_artifact(run, path)


def test_opens_a_file_inside(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "app.log").write_bytes(b"log")

    with open_artifact(tmp_path, "artifacts/app.log") as file:
        assert file.read() == b"log"


def test_svg_is_no_picture() -> None:
    assert image_type(b"<svg xmlns='") == ""
    assert image_type(b"\x89PNG\r\n\x1a\n....") == "image/png"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (158, "2 min 38 s"),
        (3840, "1 h 04 min"),
        (-1, "0.0 s"),
    ],
)
def test_duration(value: float, expected: str) -> None:
    assert words.duration(value) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, -1e300, None])
def test_a_time_that_no_calendar_knows_is_empty(value: float | None) -> None:
    assert words.moment(value) == words.iso(value) == words.day(value) == ""


def _luminance(colour: str) -> float:
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_ink_can_be_read_on_its_surface(theme: int) -> None:
    blocks = re.findall(r":root \{\n(.*?)\n *\}", stylesheet(), re.S)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[theme]))
    pairs = [(ink, surface) for ink in ("ink", "muted", "link") for surface in ("paper", "card", "code")]
    pairs += [(f"{state}-ink", state) for state in ("pass", "fail", "unverified", "skip", "running")]
    pairs += [("ink", state) for state in ("pass", "fail", "unverified", "skip", "running")]

    for ink, surface in pairs:
        bright, dark = sorted((_luminance(colours[ink]), _luminance(colours[surface])), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, (ink, surface)
