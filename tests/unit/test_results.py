from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pytest_coopcloud import results
from pytest_coopcloud.results import (
    LADDER,
    SCHEMA_VERSION,
    Artifact,
    BrokenResultError,
    Cause,
    CauseClass,
    NewerSchemaError,
    Outcome,
    RunResult,
    ServiceImage,
    Stage,
    Verdict,
    Wait,
    read_result,
    write_result,
)

P, F, S, U = Outcome.PASS, Outcome.FAIL, Outcome.SKIP, Outcome.UNVERIFIED


def made(*outcomes: Outcome | None, finished: bool = True) -> RunResult:
    result = RunResult(run_id="hell-0a1b2c", recipe="hello", started_at=100.0, finished_at=160.0 if finished else None)
    for stage, outcome in zip(Stage, outcomes, strict=False):
        record = result.stage(stage)
        record.outcome = outcome
        record.reason = "declared" if outcome is S else ""
    return result


@pytest.mark.parametrize(
    ("outcomes", "verdict", "level"),
    [
        ((P, P, P, P, P, P), Verdict.PASSED, 5),
        ((P, S, P, P, P, P), Verdict.PASSED, 5),
        ((P, S, S, S, S, P), Verdict.PASSED, 5),
        ((P, P, P, P, P, F), Verdict.FAILED, 4),
        ((P, P, P, P, F, P), Verdict.FAILED, 3),
        ((P, P, P, F, P, P), Verdict.FAILED, 2),
        ((P, P, F, U, P, P), Verdict.FAILED, 2),
        ((P, F, P, P, P, P), Verdict.FAILED, 1),
        ((F, U, U, U, U, P), Verdict.FAILED, 0),
        ((P, U, P, P, P, P), Verdict.UNVERIFIED, 1),
        ((U, P, P, P, P, P), Verdict.UNVERIFIED, 0),
        ((P, P, P, P, P, None), Verdict.UNVERIFIED, 4),
        ((P, P, P, P), Verdict.PASSED, 3),
        ((), Verdict.UNVERIFIED, 0),
    ],
)
def test_verdict_and_level(outcomes: tuple[Outcome | None, ...], verdict: Verdict, level: int) -> None:
    result = made(*outcomes)

    assert (result.verdict, result.level) == (verdict, level)


def test_run_that_goes_on_has_no_verdict_yet() -> None:
    assert made(P, F, finished=False).verdict is Verdict.RUNNING


def test_leak_fails_and_death_is_unverified() -> None:
    leaking, dead = made(P, P, P, P, P, P), made(P, P, P, P, P, P)
    leaking.leaks = ["volume hell_data"]
    dead.died = "run was killed in deploy"

    assert leaking.verdict is Verdict.FAILED
    assert dead.verdict is Verdict.UNVERIFIED


def test_stage_that_was_not_asked_for_is_no_rung() -> None:
    result = made(P, P, P, P, P, P)
    result.stage(Stage.UPGRADE).selected = False

    assert result.level == 1


def test_one_of_several_upgrades_that_fails_ends_the_ladder() -> None:
    result = made(P, P, P, P, P, P)
    result.stage(Stage.UPGRADE, "1.0.0+1").outcome = F

    assert result.level == 1
    assert [record.title for record in result.stages][1:3] == ["upgrade", "upgrade[1.0.0+1]"]


def test_stages_stand_in_their_order_however_they_are_made() -> None:
    result = made()
    result.expect([(Stage.TEARDOWN, ""), (Stage.INSTALL, ""), (Stage.BACKUP, ""), (Stage.UPGRADE, "a")])

    assert [record.stage for record in result.stages] == [Stage.INSTALL, Stage.UPGRADE, Stage.BACKUP, Stage.TEARDOWN]
    assert {stage for rung in LADDER for stage in rung} == set(Stage)


def test_skips_say_what_the_level_was_reached_without() -> None:
    assert made(P, S).skipped == ["upgrade: declared"]


def test_first_cause_is_of_a_failure_before_what_is_unverified() -> None:
    result = made(U, F)
    result.stage(Stage.INSTALL).cause = Cause(kind=CauseClass.INFRASTRUCTURE, summary="no disk")
    result.stage(Stage.UPGRADE).cause = Cause(kind=CauseClass.RECIPE, summary="table gone")

    found = result.first_cause

    assert found is not None
    assert found[1].summary == "table gone"


def full() -> RunResult:
    result = made(P, F)
    upgrade = result.stage(Stage.UPGRADE)
    upgrade.cause = Cause(kind=CauseClass.RECIPE, summary="no", hint="do", log=["a", "ä <b>"])
    upgrade.steps = [Wait(what="deploy", duration_seconds=1.5, state="1/1")]
    upgrade.images_after = [ServiceImage(service="app", image="x:1", digest="sha256:0")]
    result.artifacts = [Artifact.model_validate({name: name for name in Artifact.model_fields})]
    return result


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    result = full()

    path = write_result(result, tmp_path)

    assert read_result(path) == result
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]
    written = json.loads(path.read_text())
    assert (written["verdict"], written["level"], written["schema_version"]) == ("failed", 1, SCHEMA_VERSION)


def test_unknown_keys_are_ignored_at_every_depth(tmp_path: Path) -> None:
    path = write_result(full(), tmp_path)
    raw = json.loads(path.read_text())
    raw["new"] = raw["stages"][1]["new"] = raw["stages"][1]["cause"]["new"] = {"a": 1}
    path.write_text(json.dumps(raw))

    assert read_result(path) == full()


def test_derived_keys_in_a_file_are_not_believed(tmp_path: Path) -> None:
    path = write_result(full(), tmp_path)
    path.write_text(path.read_text().replace('"failed"', '"passed"'))

    assert read_result(path).verdict is Verdict.FAILED


def test_newer_schema_is_told_apart(tmp_path: Path) -> None:
    path = write_result(full(), tmp_path)
    path.write_text(path.read_text().replace('"schema_version": 1', f'"schema_version": {SCHEMA_VERSION + 1}'))

    with pytest.raises(NewerSchemaError, match=f"has schema {SCHEMA_VERSION + 1}, known here is {SCHEMA_VERSION}"):
        read_result(path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"x"', "{}", '{"run_id": 1}', "[" * 100_000, "\ufeff{}",
     '{"run_id":"a","recipe":"b","started_at":"x"}'],
)  # fmt: skip
def test_broken_file_is_told_in_one_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)

    with pytest.raises(BrokenResultError, match=r"results\.json"):
        read_result(path)


def test_file_that_is_cut_short_or_no_utf8_or_too_large_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_result(full(), tmp_path)
    whole = path.read_bytes()

    for data in (whole[:-5], b"\xff" + whole):
        path.write_bytes(data)
        with pytest.raises(BrokenResultError, match="is no JSON"):
            read_result(path)
    monkeypatch.setattr(results, "RESULTS_LIMIT", 10)
    with pytest.raises(BrokenResultError, match="10 are allowed"):
        read_result(path)


def test_missing_file_is_no_broken_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_result(tmp_path / "results.json")


def test_full_disk_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_result(full(), tmp_path)
    before = path.read_bytes()

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_result(made(F), tmp_path)

    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


def test_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_result(made(P), tmp_path)
    seen: list[RunResult] = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        seen.append(read_result(path))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write_result(made(F), tmp_path)

    assert seen == [made(P)]
    assert read_result(path) == made(F)


def test_a_run_with_nothing_but_its_teardown_has_verified_nothing() -> None:
    result = RunResult(run_id="hell-0a1b2c", recipe="hello", started_at=0.0, finished_at=1.0)
    result.stage(Stage.TEARDOWN).outcome = Outcome.PASS

    assert result.verdict is Verdict.UNVERIFIED
