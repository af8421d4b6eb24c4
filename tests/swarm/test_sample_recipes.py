"""`./dev recipe`: a git repository as maintainers make them, the same each time, its path and nothing else printed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.swarm

ROOT = Path(__file__).parents[2]
VARIANTS = sorted(patch.stem for patch in (ROOT / "lab/recipes/guestbook/variants").glob("*.patch"))


def git(repository: Path, *args: str) -> str:
    return subprocess.run(
        ["git", "-C", str(repository), *args], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def compose_at(repository: Path, commit: str) -> dict[str, dict[str, dict[str, object]]]:
    loaded: dict[str, dict[str, dict[str, object]]] = yaml.safe_load(git(repository, "show", f"{commit}:compose.yml"))
    return loaded


@pytest.mark.parametrize("name", ["hello", "custom-html", "guestbook"])
def test_versions_are_annotated_tags_equal_to_their_label(name: str, recipe_of: Callable[..., Path]) -> None:
    repository = recipe_of(name)
    versions = git(repository, "tag").split()

    assert versions
    assert git(repository, "tag", "--points-at", "HEAD") == ""
    for version in versions:
        assert git(repository, "cat-file", "-t", version) == "tag"
        assert f"coop-cloud.${{STACK_NAME}}.version={version}" in git(repository, "show", f"{version}:compose.yml")
        assert git(repository, "show", f"{version}:release/{version}")


@pytest.mark.parametrize("name", ["hello", "custom-html", "guestbook"])
def test_no_service_names_how_its_name_resolves(name: str, recipe_of: Callable[..., Path]) -> None:
    repository = recipe_of(name)

    for commit in ["HEAD", *git(repository, "tag").split()]:
        assert "endpoint_mode" not in git(repository, "show", f"{commit}:compose.yml")


def test_another_cache_gets_the_same_commits(recipe_of: Callable[..., Path], tmp_path: Path) -> None:
    argv = [str(ROOT / "dev"), "recipe", "guestbook"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}

    # All at once: one makes it, the others wait for it.
    runs = [subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    printed = {run.communicate()[0] for run in runs}

    assert [run.returncode for run in runs] == [0, 0, 0, 0]
    (line,) = printed
    repository = Path(line.removesuffix("\n"))
    assert repository.name == "guestbook"
    assert repository.is_relative_to(tmp_path)
    assert git(repository, "show-ref", "--head") == git(recipe_of("guestbook"), "show-ref", "--head")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_differs_from_the_good_head_in_its_compose_file(variant: str, recipe_of: Callable[..., Path]) -> None:
    good, broken = recipe_of("guestbook"), recipe_of("guestbook", variant)

    assert git(broken, "rev-parse", "HEAD^") == git(good, "rev-parse", "HEAD^")
    assert compose_at(broken, "HEAD") != compose_at(good, "HEAD")


def test_the_vacuous_variant_deploys_what_is_published(recipe_of: Callable[..., Path]) -> None:
    repository = recipe_of("guestbook", "vacuous")

    assert compose_at(repository, "HEAD") == compose_at(repository, "HEAD^")
    assert git(repository, "rev-parse", "HEAD^{tree}") != git(repository, "rev-parse", "HEAD^^{tree}")


@pytest.mark.parametrize(
    "arguments",
    [["no-such-recipe"], ["guestbook", "--variant", "no-such-variant"], ["../lab"], []],
    ids=["recipe", "variant", "path", "nothing"],
)
def test_a_wrong_name_is_refused_with_the_right_ones(arguments: list[str]) -> None:
    done = subprocess.run([str(ROOT / "dev"), "recipe", *arguments], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stdout == ""
    assert "hint: one of" in done.stderr
