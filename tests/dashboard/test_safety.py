"""What a hostile run, a hostile name or a hostile request can do: nothing, and the page stands."""

import html.parser
import json
import os
import re
import tracemalloc
import xml.etree.ElementTree as ET

import pytest

from dashboard import logs
from pytest_coopcloud.results import Artifact, RunResult, write_result
from tests.dashboard.conftest import NOW
from tests.dashboard.runs import Kind, make_result, make_run

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m\x00\x07\u202e"


class Tags(html.parser.HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.found = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def assert_nothing_executes(page):
    for tag, attributes in Tags(page).found:
        assert tag not in ("iframe", "object", "embed", "base")
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcdoc")]
        if tag == "script":
            assert attributes["src"].startswith("/static/live.js?v=")
        if tag == "img":
            assert attributes["src"].startswith("/")
        assert not str(attributes.get("href", "")).lower().startswith(("javascript:", "data:"))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", page)


def evil_run(runs):
    """A run of a recipe with a good name, evil in every other text."""
    result = make_result("hedgedoc", kind=Kind.FAILED, started_at=NOW - 5000)

    def spoil(value, key=""):
        if isinstance(value, dict):
            return {name: spoil(one, name) for name, one in value.items()}
        if isinstance(value, list):
            return [spoil(one, key) for one in value]
        kept = ("run_id", "recipe", "stage", "outcome", "kind", "verdict")
        return EVIL if isinstance(value, str) and key not in kept else value

    result.leaks, result.notes, result.died = ["leak"], ["note"], "died"
    result.artifacts = [Artifact(path="artifacts/a", kind="log"), Artifact(path="b", kind="screenshot")]
    raw = spoil(json.loads(result.model_dump_json()))
    folder = runs / result.run_id
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(raw))
    return result.run_id


def test_nothing_that_a_run_says_executes(runs, client):
    run_id = evil_run(runs)
    ask = client()

    for address in ("/", "/recipe/hedgedoc", f"/run/{run_id}"):
        answer = ask.get(address)
        assert answer.status_code == 200
        assert "alert(1)" in answer.text or address == "/recipe/hedgedoc"
        assert_nothing_executes(answer.text)
    for address in ("/feed.atom", "/badge/hedgedoc.svg"):
        root = ET.fromstring(ask.get(address).content)
        assert not [one for one in root.iter() if one.tag.endswith(("script", "img"))]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"run_id": "brok-000001", "recipe": "hed', "is no JSON"),
        ("[]", "holds no object"),
        ('{"schema_version": 99}', "has schema 99"),
        ('{"run_id": "brok-000001", "recipe": "<script>alert(1)</script>", "started_at": 1}', "is no recipe name"),
        ('{"run_id": "brok-000002", "recipe": "hedgedoc", "started_at": 1}', "is of the run"),
        ('{"run_id": "brok-000001", "recipe": "hedgedoc", "started_at": NaN}', "a time that is none"),
        ('{"run_id": "brok-000001", "recipe": "hedgedoc", "started_at": 1e300}', "a time that is none"),
        ("[" * 100_000, "is no JSON"),
        ("\x00" * 100, "is no JSON"),
    ],
)
def test_a_run_that_cannot_be_read_is_listed_as_broken(runs, client, text, reason):
    make_run(runs, "cryptpad", started_at=NOW - 5000, files=False)
    (runs / "brok-000001").mkdir()
    (runs / "brok-000001" / "results.json").write_text(text)
    ask = client()

    front, page = ask.get("/").text, ask.get("/run/brok-000001")

    assert "Runs that cannot be read" in front
    assert "/recipe/cryptpad" in front
    assert reason in front
    assert reason in page.text
    assert page.status_code == 200
    assert_nothing_executes(front)
    assert_nothing_executes(page.text)
    assert ask.get("/api/runs/brok-000001").status_code == 404
    assert [one["run_id"] for one in ask.get("/api/overview").json()["broken"]] == ["brok-000001"]
    assert ask.get("/run/brok-000001/file/results.json").content == text.encode()


def test_a_results_file_that_is_a_link_or_a_pipe_is_broken(runs, client, tmp_path):
    real = make_run(runs, "hedgedoc", started_at=NOW - 5000, files=False)
    for name in ("link-000001", "pipe-000001"):
        (runs / name).mkdir()
    (runs / "link-000001" / "results.json").symlink_to(runs / real.run_id / "results.json")
    os.mkfifo(runs / "pipe-000001" / "results.json")
    (runs / "fold-000001").symlink_to(runs / real.run_id)

    front = client().get("/").text

    assert front.count("is no plain file") == 2
    assert "fold-000001" not in front


@pytest.mark.parametrize(
    "path",
    [
        "artifacts/link",
        "artifacts/folder/secret",
        "artifacts/../ledger.json",
        "artifacts/../../secret",
        "artifacts/%2e%2e/ledger.json",
        "artifacts%2f..%2fledger.json",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        "ledger.json",
        "lock",
        "abra/servers/secret",
        "report.html",
        "artifacts/pipe",
        "artifacts/hard/../../ledger.json",
        "artifacts/",
        "artifacts",
        "artifacts/a%00b",
    ],
)
def test_no_file_outside_of_a_runs_artifacts_is_served(runs, client, tmp_path, path):
    result = make_run(runs, "hedgedoc", started_at=NOW - 5000)
    folder = runs / result.run_id
    (tmp_path / "secret").write_text("secret")
    (folder / "ledger.json").write_text("secret")
    (folder / "lock").write_text("secret")
    (folder / "abra" / "servers").mkdir(parents=True)
    (folder / "abra" / "servers" / "secret").write_text("secret")
    (folder / "artifacts" / "link").symlink_to(tmp_path / "secret")
    (folder / "artifacts" / "folder").symlink_to(tmp_path)
    os.mkfifo(folder / "artifacts" / "pipe")
    ask = client()

    for kind in ("file", "log"):
        answer = ask.get(f"/run/{result.run_id}/{kind}/{path}")
        assert answer.status_code == 404
        assert "secret" not in answer.text


def test_a_log_that_a_result_names_outside_of_artifacts_is_not_shown(runs, client):
    result = make_run(runs, "hedgedoc", started_at=NOW - 5000)
    folder = runs / result.run_id
    (folder / "ledger.json").write_text("secret")
    result.artifacts.append(Artifact(path="ledger.json", kind="log", title="ledger"))
    write_result(result, folder)
    ask = client()

    assert ask.get(f"/run/{result.run_id}/log/ledger.json").status_code == 404
    assert "<em>the file is not there</em>" in ask.get(f"/run/{result.run_id}").text


def test_files_are_served_as_text_or_pictures_only(runs, client):
    result = make_run(runs, "hedgedoc", started_at=NOW - 5000)
    artifacts = runs / result.run_id / "artifacts"
    (artifacts / "page.html").write_text("<script>alert(1)</script>")
    (artifacts / "fake.png").write_text("<svg onload='alert(1)'/>")
    (artifacts / "x.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    ask = client()

    for name in ("page.html", "fake.png", "x.svg", "app.log"):
        answer = ask.get(f"/run/{result.run_id}/file/artifacts/{name}")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
    assert ask.get(f"/run/{result.run_id}/file/artifacts/upgrade.png").headers["content-type"] == "image/png"
    assert ask.get(f"/run/{result.run_id}/file/junit.xml").headers["content-type"] == "text/plain; charset=utf-8"
    report = ask.get(f"/run/{result.run_id}/report")
    assert report.headers["content-type"] == "text/html; charset=utf-8"
    assert re.search(r"; sandbox$", report.headers["content-security-policy"])
    assert "script" not in report.headers["content-security-policy"]


def test_every_answer_has_the_headers_and_no_cookie(runs, client):
    result = make_run(runs, "hedgedoc", started_at=NOW - 5000)
    ask = client()

    for address in (
        "/",
        "/recipe/hedgedoc",
        "/recipe/none",
        f"/run/{result.run_id}",
        f"/run/{result.run_id}/log/artifacts/app.log",
        f"/run/{result.run_id}/file/artifacts/app.log",
        "/badge/hedgedoc.svg",
        "/static/style.css",
        "/static/live.js",
        "/api",
        "/api/overview",
        "/openapi.json",
        "/feed.atom",
        "/healthz",
        "/metrics",
        "/nothing",
    ):
        headers = ask.get(address).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src ")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "script-src 'unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in headers


def test_the_pages_have_no_inline_style_or_script(runs, client):
    result = make_run(runs, "hedgedoc", kind=Kind.FAILED, started_at=NOW - 5000)
    ask = client()

    for address in (
        "/",
        "/recipe/hedgedoc",
        f"/run/{result.run_id}",
        f"/run/{result.run_id}/log/artifacts/app.log",
        "/api",
    ):
        page = ask.get(address).text
        assert_nothing_executes(page)
        assert "<style" not in page


def test_nothing_can_be_changed(client):
    ask = client()

    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for address in ("/", "/api/overview", "/badge/x.svg", "/recipe/x"):
            assert ask.request(method, address).status_code == 405


@pytest.mark.parametrize("name", ["<svg onload=alert(1)>", "../x", "x" * 5000, "%00", "ÄÖ", 'a"b'])
def test_hostile_names_in_addresses(client, name):
    ask = client()

    badge = ask.get(f"/badge/{name}.svg")
    if badge.status_code == 200:
        root = ET.fromstring(badge.content)
        assert "unknown" in "".join(root.itertext())
        assert b"alert" not in badge.content
    else:
        assert badge.status_code == 404
    for address in (
        f"/recipe/{name}",
        f"/run/{name}",
        f"/run/{name}/report",
        f"/?q={name}&sort={name}",
        f"/build/{name}",
    ):
        answer = ask.get(address)
        assert answer.status_code in (200, 404, 422)
        assert_nothing_executes(answer.text)


def test_a_log_of_200_mb_is_shown_in_parts(runs, client):
    result = make_run(runs, "hedgedoc", started_at=NOW - 5000)
    line = b"2026-11-25T09:00:00Z app | \x1b[33mGET\x1b[0m /status <b>200</b> \x00 ok " + b"." * 30 + b"\n"
    count = 200 * 1024 * 1024 // len(line)
    with (runs / result.run_id / "artifacts" / "app.log").open("wb") as file:
        block = line * 10_000
        for _ in range(count // 10_000):
            file.write(block)
        file.write(b"the needle\n")
    total = count // 10_000 * 10_000 + 1
    ask = client()
    address = f"/run/{result.run_id}/log/artifacts/app.log"
    tracemalloc.start()

    last = ask.get(address).text
    found = ask.get(f"{address}?q=NEEDLE").text

    assert tracemalloc.get_traced_memory()[1] < 60e6
    tracemalloc.stop()
    assert f'id="L{total}"' in last
    assert "the needle" in last
    assert "GET /status &lt;b&gt;200&lt;/b&gt; \N{REPLACEMENT CHARACTER} ok" in last
    assert len(last) < 2e6
    assert f"#L{total}" in found
    assert "1 line with" in found
    assert_nothing_executes(last)


def test_parts_hold_every_line_once(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "PART", 64)
    lines = [f"line {number} " + "x" * (number * 7 % 90) for number in range(1, 400)]
    (tmp_path / "log").write_text("\n".join(lines) + "\n")

    windows = [logs.read_window(tmp_path, "log", 1)]
    windows += [logs.read_window(tmp_path, "log", part) for part in range(2, windows[0].parts + 1)]

    seen = [line for window in windows for line in window.lines]
    assert [line.number for line in seen] == list(range(1, 400))
    assert [line.text for line in seen] == lines
    hits, more = logs.search(tmp_path, "log", "line 3")
    assert [hit.line.number for hit in hits] == [n for n in range(1, 400) if str(n).startswith("3")]
    assert not more
    for hit in hits:
        assert hit.line in logs.read_window(tmp_path, "log", hit.part).lines


def test_a_line_without_end_is_cut(tmp_path):
    (tmp_path / "log").write_bytes(b"first\n" + b"x" * 3_000_000 + b"\nlast")

    first = logs.read_window(tmp_path, "log", 1)
    last = logs.read_window(tmp_path, "log", None)

    assert [line.number for line in first.lines] == [1, 2]
    assert len(first.lines[1].text) == logs.LINE
    assert first.lines[1].left_out == 3_000_000 - logs.LINE
    assert last.lines[-1].text == "last"
    assert last.lines[-1].number == 3


def test_an_evil_result_needs_the_model_to_be_evil():
    assert RunResult.model_validate({"run_id": EVIL, "recipe": EVIL, "started_at": 0}).recipe == EVIL
