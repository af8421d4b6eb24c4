"""Options in, what is collected or refused out. No engine is asked."""

import json
from pathlib import Path

import pytest

STAGES = ("install", "upgrade", "backup", "restore", "recipe", "teardown")
VERSIONS = ("1.0.0+1", "1.1.0+1", "1.2.0+1")


def collected(done) -> list[str]:
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def usage_error(done) -> str:
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert "INTERNALERROR" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def test_help_shows_every_option(run_pytest):
    done = run_pytest("--help")

    for option in ("--recipe=", "--recipe-ref=", "--stages=", "--upgrade-from=", "--deployer=", "--keep-app"):
        assert f"  {option}" in done.stdout


def test_stages_are_collected_in_their_order_without_an_engine(run_pytest, make_recipe, tmp_path):
    make_recipe("tiny")

    done = run_pytest("--collect-only", "-q", "--recipe=./tiny")

    assert collected(done) == [f"recipes/tiny::{stage}" for stage in STAGES]
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["tiny"]


def test_folder_that_one_is_in_is_a_recipe(run_pytest, make_recipe):
    folder = make_recipe("tiny")

    done = run_pytest("--collect-only", "-q", "--recipe=.", cwd=folder)

    assert collected(done)[0] == "recipes/tiny::install"


def test_variable_does_what_the_option_does(run_pytest, make_recipe):
    make_recipe("tiny")

    done = run_pytest("--collect-only", "-q", RECIPE="./tiny", STAGES="backup")

    assert collected(done) == ["recipes/tiny::backup", "recipes/tiny::teardown"]


def test_own_tests_stand_between_the_stages_and_teardown(run_pytest, make_recipe):
    folder = make_recipe("tiny", conftest="")
    (folder / "tests").mkdir()
    (folder / "tests" / "test_tiny.py").write_text("def test_front_page(app): ...\n")

    items = collected(run_pytest("--collect-only", "-q", "--recipe=./tiny"))

    assert [item.rpartition("::")[2] for item in items] == [*STAGES[:-1], "test_front_page", "teardown"]


def test_tests_that_lie_around_are_not_collected(run_pytest, make_recipe, tmp_path):
    make_recipe("tiny")
    (tmp_path / "test_other.py").write_text("def test_other(): ...\n")

    items = collected(run_pytest("--collect-only", "-q", "--recipe=./tiny"))

    assert not [item for item in items if "test_other" in item]


def test_stages_option_always_keeps_teardown(run_pytest, make_recipe):
    make_recipe("tiny")

    done = run_pytest("--collect-only", "-q", "--recipe=./tiny", "--stages=install,restore")

    assert collected(done) == [f"recipes/tiny::{stage}" for stage in ("install", "restore", "teardown")]


def test_keyword_selects_stages(run_pytest, make_recipe):
    make_recipe("tiny")

    done = run_pytest("--collect-only", "-q", "--recipe=./tiny", "-k", "backup or restore")

    assert collected(done) == ["recipes/tiny::backup", "recipes/tiny::restore"]


@pytest.mark.parametrize(
    ("which", "variants"),
    [
        ("last:1", ["upgrade"]),
        ("last:2", ["upgrade[1.1.0+1]", "upgrade[1.2.0+1]"]),
        ("all", [f"upgrade[{version}]" for version in VERSIONS]),
        ("1.0.0+1", ["upgrade[1.0.0+1]"]),
    ],
)
def test_upgrade_from_names_published_versions(run_pytest, make_recipe, which, variants):
    make_recipe("tiny", versions=VERSIONS)

    items = collected(run_pytest("--collect-only", "-q", "--recipe=./tiny", f"--upgrade-from={which}"))

    assert [item for item in items if "upgrade" in item] == [f"recipes/tiny::{variant}" for variant in variants]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--recipe=./nowhere", "there is no folder './nowhere'"),
        ("--recipe=Tiny", "'Tiny'"),
        ("--stages=install,bakcup", "there is no stage 'bakcup'; take of install, upgrade, backup, restore, recipe"),
        ("--upgrade-from=9.9.9+1", "'9.9.9+1' is no published version; there are (none)"),
        ("--base-domain=Foo_Bar", "'Foo_Bar' is no domain"),
        ("--recipe-ref=--upload-pack=x", "'--upload-pack=x' is no ref"),
        ("--recipe-pr=7", "a pull request is given, and no commit"),
        ("--upgrade-from=last:0", "--upgrade-from=last:N is '0'"),
        ("--max-runs=0", "--max-runs is '0'"),
        ("--max-runs=two", "argument --max-runs: invalid int value: 'two'"),
        ("--run-timeout=soon", "argument --run-timeout: invalid float value: 'soon'"),
    ],
)
def test_wrong_value_is_a_usage_error_that_names_it(run_pytest, make_recipe, option, said):
    make_recipe("tiny")

    done = run_pytest("--collect-only", "--recipe=./tiny", option)

    assert said in usage_error(done)


def test_folder_without_compose_file_is_refused(run_pytest, tmp_path):
    (tmp_path / "tiny").mkdir()

    done = run_pytest("--recipe=./tiny")

    assert done.returncode not in (0, 1)
    assert "INTERNALERROR" not in done.stdout


def test_plugin_that_is_switched_off_has_no_options(run_pytest, make_recipe):
    make_recipe("tiny")

    done = run_pytest("--recipe=./tiny", "-p", "no:coopcloud")

    assert "unrecognized arguments: --recipe=./tiny" in usage_error(done)


def test_xdist_is_told_that_this_runs_in_one_process(run_pytest, make_recipe):
    pytest.importorskip("xdist")
    make_recipe("tiny")

    done = run_pytest("--collect-only", "--recipe=./tiny", "-n", "2")

    assert done.returncode == 0
    assert "one app of a run is live at a time, so this runs in one process" in done.stdout
    assert "bringing up nodes" not in done.stdout


def test_xdist_starts_no_workers_for_a_run(run_pytest, make_recipe):
    pytest.importorskip("xdist")
    make_recipe("tiny")

    done = run_pytest("--recipe=./tiny", "-n", "2")

    assert "the engine did not answer" in usage_error(done)
    assert "so this runs in one process" in done.stdout


def test_no_engine_is_said_and_the_record_of_the_run_holds_nothing_that_it_made(run_pytest, make_recipe, tmp_path):
    make_recipe("tiny")

    done = run_pytest("--recipe=./tiny")

    said = usage_error(done)
    assert "the engine did not answer" in said
    assert "hint: is it running? try `docker info`" in said
    assert "Traceback" not in said
    (ledger,) = (tmp_path / "state" / "runs").glob("tiny-*/ledger.json")
    record = json.loads(ledger.read_text())
    assert record["owned"] == []
    assert record["clean"]


def test_state_directory_that_is_a_file_is_said(run_pytest, make_recipe, tmp_path):
    make_recipe("tiny")
    (tmp_path / "taken").write_text("")

    done = run_pytest("--recipe=./tiny", COOPCLOUD_CI_STATE=str(tmp_path / "taken"))

    said = usage_error(done)
    assert f"the state directory {tmp_path / 'taken'} cannot be used" in said
    assert "name another one with COOPCLOUD_CI_STATE" in said


def test_enrolment_with_a_wrong_key_names_file_key_and_nearest_key(run_pytest, make_recipe):
    conftest = "def pytest_coopcloud_recipe_meta(recipe):\n    return {'health_pth': '/login'}\n"
    folder = make_recipe("tiny", conftest=conftest)

    said = usage_error(run_pytest("--collect-only", "--recipe=./tiny"))

    assert f"{folder / 'tests' / 'conftest.py'}: RecipeMeta has no key 'health_pth'" in said
    assert "hint: did you mean 'health_path'?" in said


def test_wrong_key_of_a_check_names_the_nearest_key_of_a_check(run_pytest, make_recipe):
    conftest = (
        "from pytest_coopcloud import Check, RecipeMeta\n"
        "def pytest_coopcloud_recipe_meta(recipe):\n"
        "    return RecipeMeta(checks=[Check(paht='/')])\n"
    )
    make_recipe("tiny", conftest=conftest)

    said = usage_error(run_pytest("--collect-only", "--recipe=./tiny"))

    assert "Check has no key 'paht'" in said
    assert "did you mean 'path'?" in said


def test_enrolment_below_the_root_is_taken_before_the_recipes_own(run_pytest, make_recipe, tmp_path: Path):
    make_recipe("tiny", conftest="raise AssertionError('this is not the one')\n", below="checkouts")
    (tmp_path / "recipes" / "tiny").mkdir(parents=True)
    enrolment = "def pytest_coopcloud_recipe_meta(recipe):\n    return {'no_such_key': 1}\n"
    (tmp_path / "recipes" / "tiny" / "conftest.py").write_text(enrolment)

    done = run_pytest("--collect-only", "--recipe=./checkouts/tiny", "--stages=install")

    assert f"{tmp_path / 'recipes' / 'tiny' / 'conftest.py'}: RecipeMeta has no key" in done.stdout + done.stderr


def test_hook_that_does_not_exist_is_refused(run_pytest, make_recipe):
    make_recipe("tiny", conftest="def pytest_coopcloud_plnat(recipe, app): ...\n")

    done = run_pytest("--collect-only", "--recipe=./tiny")

    assert done.returncode != 0
    assert "pytest_coopcloud_plnat" in done.stdout + done.stderr
