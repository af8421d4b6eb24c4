from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pytest_coopcloud.errors import BadEnrolmentError
from pytest_coopcloud.meta import Check, RecipeMeta, bad_enrolment, check_meta
from pytest_coopcloud.results import CauseClass, Stage

WHERE = "recipes/hello/conftest.py"


def refusal(given: Any) -> BadEnrolmentError:
    with pytest.raises(BadEnrolmentError) as refused:
        check_meta(given, WHERE)
    return refused.value


def test_model_is_taken_as_it_is() -> None:
    meta = RecipeMeta(health_path="/login")

    assert check_meta(meta, WHERE) is meta


def test_mapping_is_taken() -> None:
    meta = check_meta(
        {"health_status": 302, "checks": [{"path": "/a", "status": (200, 204)}], "skip": {"backup": "keeps no state"}},
        WHERE,
    )

    assert meta.health_status == (302,)
    assert meta.checks == (Check(path="/a", status=(200, 204)),)
    assert meta.skip == {Stage.BACKUP: "keeps no state"}


@pytest.mark.parametrize(
    ("given", "key", "near"),
    [
        ({"healthpath": "/x"}, "healthpath", "health_path"),
        ({"extra_envs": {}}, "extra_envs", "extra_env"),
        ({"checks": [{"paht": "/"}]}, "checks.0.paht", "path"),
        ({"checks": [{"path": "/"}, {"titel": "a"}]}, "checks.1.titel", "title"),
        ({"allow": {"bind": ["/x"]}}, "allow.bind", "binds"),
    ],
)
def test_wrong_key_names_file_key_and_the_nearest_right_one(given: dict[str, Any], key: str, near: str) -> None:
    refused = refusal(given)

    assert WHERE in refused.message
    assert repr(key) in refused.message
    assert refused.hint == f"did you mean {near!r}?"
    assert refused.cause is CauseClass.TEST


def test_every_wrong_key_has_its_own_nearest_one() -> None:
    refused = refusal({"healthpath": "/x", "skipp": {}})

    assert "'health_path'" in refused.hint
    assert "'skip'" in refused.hint


def test_key_that_is_near_to_none_lists_them_all() -> None:
    assert refusal({"zzz": 1}).hint.startswith("the keys are health_path, health_status,")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"health_path": "login"}, "health_path: Value error, must begin with `/`"),
        ({"skip": {"backup": ""}}, "skip: Value error, say why backup is skipped"),
        ({"skip": {"backup": "  "}}, "say why backup is skipped"),
        ({"skip": {"teardown": "why not"}}, "teardown is never skipped"),
        ({"skip": {"bakcup": "x"}}, "skip.bakcup"),
        ({"skip": ["backup"]}, "skip: "),
        ({"stage_timeout": 0}, "stage_timeout: Input should be greater than 0"),
        ({"deploy_timeout": -1}, "deploy_timeout"),
        ({"extra_env": {"A": 1}}, "extra_env.A: Input should be a valid string (it is '1')"),
        ({"checks": [{"path": "x"}]}, "checks.0.path"),
        ({"extra_env": {"": "x"}}, "extra_env"),
        ({"extra_env": {"A=B": "x"}}, "extra_env"),
    ],
)
def test_wrong_value_is_named(given: dict[str, Any], said: str) -> None:
    refused = refusal(given)

    assert refused.message.startswith(f"{WHERE}: ")
    assert said in refused.message


@pytest.mark.parametrize("given", [None, 1, "x", [], ["ab"]])
def test_what_is_no_mapping_is_refused(given: Any) -> None:
    assert "gave no RecipeMeta" in refusal(given).message


def test_value_of_a_secret_is_not_repeated() -> None:
    assert "hunter2" not in str(refusal({"secrets": {"db": ["hunter2"]}}))


def test_error_of_a_model_that_a_conftest_made_itself_is_told_in_the_same_words() -> None:
    with pytest.raises(ValidationError) as failed:
        Check(titel="x")  # type: ignore[call-arg]

    refused = bad_enrolment(failed.value, WHERE)

    assert refused.message == f"{WHERE}: Check has no key 'titel'"
    assert refused.hint == "did you mean 'title'?"


def test_meta_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        RecipeMeta().health_path = "/x"  # type: ignore[misc]
