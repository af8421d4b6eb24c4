"""Every enrolment of this repository collects, with no engine, and gives a `RecipeMeta`."""

import shutil
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"
ENROLLED = sorted(folder.name for folder in RECIPES.iterdir() if (folder / "conftest.py").is_file())


def test_there_are_enrolments():
    assert {"custom-html", "hedgedoc", "n8n", "cryptpad", "lasuite-docs", "keycloak"} <= set(ENROLLED)


@pytest.mark.parametrize("name", ENROLLED)
def test_enrolment_collects_and_is_valid(run_pytest, make_recipe, tmp_path, name):
    make_recipe(name, below="checkouts")
    shutil.copytree(RECIPES, tmp_path / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
    # A wrapper sees what the enrolment gave.
    (tmp_path / "conftest.py").write_text(
        "import pytest\n"
        "@pytest.hookimpl(wrapper=True)\n"
        "def pytest_coopcloud_recipe_meta(recipe):\n"
        "    given = yield\n"
        "    print('META', type(given).__name__, recipe.name)\n"
        "    return given\n"
    )

    done = run_pytest("--collect-only", "-q", "-s", f"--recipe=./checkouts/{name}")

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"META RecipeMeta {name}" in done.stdout
    items = [line for line in done.stdout.splitlines() if "::" in line]
    assert items[0] == f"recipes/{name}::install"
    assert items[-1] == f"recipes/{name}::teardown"
    own = sorted((RECIPES / name).glob("test_*.py"))
    assert bool(own) == any(item.split("::")[0].endswith(".py") for item in items)
