from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_coopcloud.errors import BadNameError
from pytest_coopcloud.naming import DOCKER_NAME_LIMIT, RunName, check_recipe_name

NAME = RunName.new("hedgedoc", base_domain="ci.localhost", token="0a1b2c")


def test_everything_follows_from_the_run_id() -> None:
    assert NAME.run_id == "hedg-0a1b2c"
    assert NAME.domain == "hedg-0a1b2c.ci.localhost"
    assert NAME.stack == "hedg-0a1b2c_ci_localhost"
    assert NAME.prefix == "hedg-0a1b2c_ci_localhost_"
    assert NAME.versioned("db_password", "v1") == "hedg-0a1b2c_ci_localhost_db_password_v1"


def test_run_ids_are_drawn() -> None:
    assert len({RunName.new("a", base_domain="x").run_id for _ in range(50)}) == 50


def test_underscore_of_a_recipe_makes_no_underscore_in_a_domain() -> None:
    assert RunName.new("a_b_c", base_domain="x", token="000000").domain == "a-b--000000.x"


@given(st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,62}\Z"))
def test_every_recipe_name_makes_a_run(recipe: str) -> None:
    assert RunName.new(recipe, base_domain="ci.localhost").run_id.startswith(recipe[0])


@pytest.mark.parametrize(
    "name",
    [
        "", "-a", "_a", "A", "a b", "a/b", "..", "a.b", "a\n", "\na", "a\0", "ä", "a" * 64, "a" * 10_000, "--help", "$(a)",
        "\u0661",
    ],
)  # fmt: skip
def test_hostile_recipe_name_is_refused_in_few_words(name: str) -> None:
    with pytest.raises(BadNameError, match="is no recipe name") as refused:
        check_recipe_name(name)

    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("name", ["a", "0", "a" * 63, "custom-html", "a_b", "n8n"])
def test_recipe_name_is_taken(name: str) -> None:
    assert check_recipe_name(name) == name


@pytest.mark.parametrize(
    "run_id",
    ["", "hedg", "hedg-0a1b2", "hedg-0a1b2cd", "hedgedoc-0a1b2c", "HEDG-0a1b2c",
     "hedg-0A1B2C", "hedg-0a1b2c\n", "-a-000000", "../x-000000"],
)  # fmt: skip
def test_wrong_run_id_is_refused(run_id: str) -> None:
    with pytest.raises(BadNameError, match="is no run id"):
        RunName(run_id, "ci.localhost")


@pytest.mark.parametrize(
    "domain", ["", ".", "a..b", ".a", "a.", "-a", "a-", "A", "a_b", "a b", "a\n", "a/b", "x" * 300]
)
def test_wrong_base_domain_is_refused(domain: str) -> None:
    with pytest.raises(BadNameError, match="is no domain"):
        RunName("hedg-0a1b2c", domain)


def test_stack_name_of_44_characters_is_taken_and_of_45_refused() -> None:
    rest = 44 - len("hedg-0a1b2c_")

    assert len(RunName("hedg-0a1b2c", "x" * rest).stack) == 44
    with pytest.raises(BadNameError, match="has 45 characters, 44 are allowed"):
        RunName("hedg-0a1b2c", "x" * (rest + 1))


def test_docker_name_of_63_characters_is_taken_and_of_64_refused() -> None:
    rest = DOCKER_NAME_LIMIT - 1 - len(NAME.prefix) - len("_v1")

    assert len(NAME.versioned("x" * rest, "v1")) == 63
    with pytest.raises(BadNameError, match=r"x_v1' has 64 characters, Docker allows 63"):
        NAME.versioned("x" * (rest + 1), "v1")
