from __future__ import annotations

import pytest

from pytest_coopcloud.deployers.probes import fast_health, fast_update, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30), ("1m30s", 90), ("1h", 3600), ("500ms", 0.5), (30_000_000_000, 30), (None, 7), ("", 7), ("1.5s", 1.5)],
)
def test_durations_are_read_as_compose_and_the_engine_write_them(text: object, expected: float) -> None:
    assert seconds(text, 7) == pytest.approx(expected)


def test_probes_run_every_second_and_allow_as_much_as_before() -> None:
    declared = {"test": ["CMD", "true"], "interval": "30s", "timeout": "10s", "retries": 10, "start_period": "1m"}

    fast = fast_health(declared, None)

    assert fast == {**declared, "interval": "1s", "retries": 300}


def test_defaults_of_docker_are_the_tolerance_where_nothing_is_declared() -> None:
    assert fast_health({"test": ["CMD", "true"]}, None) == {"test": ["CMD", "true"], "interval": "1s", "retries": 90}


def test_health_check_of_the_image_is_asked_every_second_too() -> None:
    image = {"Test": ["CMD", "true"], "Interval": 10_000_000_000, "Retries": 5}

    assert fast_health(None, image) == {"interval": "1s", "retries": 50}


@pytest.mark.parametrize("declared", [None, {}, {"disable": True, "test": ["CMD", "x"]}, {"test": ["NONE"]}])
def test_no_health_check_stays_none(declared: dict[str, object] | None) -> None:
    assert fast_health(declared, None) is None


def test_faster_probe_of_the_recipe_stays() -> None:
    assert fast_health({"test": ["CMD", "true"], "interval": "500ms"}, None) is None


def test_update_is_watched_for_a_second() -> None:
    assert fast_update({"order": "start-first"}) == {"order": "start-first", "monitor": "1s"}
    assert fast_update({"monitor": "500ms"}) == {"monitor": "500ms"}
