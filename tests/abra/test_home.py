"""The home that abra works in: a checkout that is where it belongs, and a `.env` that keeps its comments."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_coopcloud.deployers.abra_home import OVERLAY_FILE, AbraHome, edit_env
from pytest_coopcloud.deployers.protocol import Release
from pytest_coopcloud.errors import SourceError
from pytest_coopcloud.recipes import EnvSample


def git(folder: Path, *argv: str) -> str:
    who = {f"GIT_{a}_{b}": "t@example.org" for a in ("AUTHOR", "COMMITTER") for b in ("NAME", "EMAIL")}
    environment = {**os.environ, **who, "GIT_CONFIG_GLOBAL": "/dev/null"}
    return subprocess.run(
        ["git", *argv], cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for version in ("1.0.0+1.0", "1.1.0+1.1"):
        (folder / "compose.yml").write_text(version)
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", version)
        git(folder, "tag", "-a", "-m", version, version)
    git(folder, "tag", "v1")
    (folder / "compose.yml").write_text("head")
    git(folder, "commit", "-q", "-a", "-m", "head")
    return folder


@pytest.fixture
def head(repository: Path, tmp_path: Path) -> Callable[..., Release]:
    def make(text: str = "head") -> Release:
        path = tmp_path / "head"
        path.mkdir(exist_ok=True)
        (path / "compose.yml").write_text(text)
        return Release(version="head", path=path, ref=git(repository, "rev-parse", "HEAD"), published=False)

    return make


@pytest.fixture
def home(repository: Path, tmp_path: Path) -> AbraHome:
    return AbraHome(tmp_path / "abra", "demo", repository, "a.ci.localhost")


def published(version: str, path: Path) -> Release:
    return Release(version=version, path=path, ref="", published=True)


def test_the_checkout_is_put_back_wherever_abra_moved_it(home: AbraHome, head: Callable[..., Release]) -> None:
    release = head()
    home.lay(release)
    git(home.checkout, "checkout", "-q", "--force", "1.0.0+1.0")
    (home.checkout / "junk").write_text("left by abra")

    home.lay(release)

    assert git(home.checkout, "rev-parse", "HEAD") == release.ref
    assert (home.checkout / "compose.yml").read_text() == "head"
    assert git(home.checkout, "status", "--porcelain") == ""


def test_a_published_version_is_laid_as_it_was_tagged(
    home: AbraHome, head: Callable[..., Release], tmp_path: Path
) -> None:
    home.lay(head("changed, and in no commit"), "an overlay")
    assert (home.checkout / OVERLAY_FILE).read_text() == "an overlay"
    assert (home.checkout / "compose.yml").read_text() == "changed, and in no commit"

    home.lay(published("1.1.0+1.1", tmp_path))

    assert (home.checkout / "compose.yml").read_text() == "1.1.0+1.1"
    assert git(home.checkout, "status", "--porcelain", "--ignored") == ""


def test_nothing_is_left_to_fetch(home: AbraHome, head: Callable[..., Release]) -> None:
    home.lay(head())

    assert git(home.checkout, "remote") == ""
    assert git(home.checkout, "tag").split() == ["1.0.0+1.0", "1.1.0+1.1"]
    catalogue = json.loads((home.folder / "catalogue" / "recipes.json").read_text())
    assert [list(entry) for entry in catalogue["demo"]["versions"]] == [["1.0.0+1.0"], ["1.1.0+1.1"]]
    assert home.env_file.parent.is_dir()


def test_a_commit_that_no_branch_holds_is_laid(
    home: AbraHome, repository: Path, head: Callable[..., Release], tmp_path: Path
) -> None:
    release = head()
    git(repository, "reset", "-q", "--hard", "1.0.0+1.0")
    git(repository, "config", "uploadpack.allowAnySHA1InWant", "true")

    home.lay(release)

    assert git(home.checkout, "rev-parse", "HEAD") == release.ref


def test_a_recipe_outside_git_becomes_a_repository(tmp_path: Path, head: Callable[..., Release]) -> None:
    home = AbraHome(tmp_path / "abra", "demo", None, "a.ci.localhost")
    release = Release(version="head", path=head("loose").path, ref="", published=False)

    home.lay(release)
    home.lay(release)

    assert (home.checkout / "compose.yml").read_text() == "loose"
    assert git(home.checkout, "branch", "--list", "main")


def test_a_version_that_is_not_there_is_named(home: AbraHome, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot be put on 9\.9\.9\+9"):
        home.lay(published("9.9.9+9", tmp_path))


def test_two_homes_share_no_checkout(
    home: AbraHome, repository: Path, head: Callable[..., Release], tmp_path: Path
) -> None:
    other = AbraHome(tmp_path / "other", "demo", repository, "b.ci.localhost")
    home.lay(head())
    other.lay(published("1.0.0+1.0", tmp_path))

    assert (home.checkout / "compose.yml").read_text() == "head"
    assert (other.checkout / "compose.yml").read_text() == "1.0.0+1.0"


# The .env

SAMPLE = """TYPE=demo

## Where
DOMAIN=demo.example.com
#EXTRA_DOMAINS=', `www.demo.example.com`'
LETS_ENCRYPT_ENV=production
COMPOSE_FILE="compose.yml"
COMPOSE_FILE="$COMPOSE_FILE:compose.db.yml"
SECRET_TOKEN_VERSION=v1 # length=32 charset=hex
NOTE='a # in quotes'
"""


def test_values_are_set_where_they_stand_and_comments_stay() -> None:
    text = edit_env(SAMPLE, {"DOMAIN": "a.ci.localhost", "SECRET_TOKEN_VERSION": "v2", "NEW": "x"})

    assert "DOMAIN=a.ci.localhost\n" in text
    assert "#EXTRA_DOMAINS=', `www.demo.example.com`'\n" in text
    assert "SECRET_TOKEN_VERSION=v2 # length=32 charset=hex\n" in text
    assert "## Where\n" in text
    assert text.endswith("NOTE='a # in quotes'\nNEW=x\n")
    assert edit_env(SAMPLE, {}) == SAMPLE


def test_a_key_that_occurs_twice_is_set_twice() -> None:
    text = edit_env(SAMPLE, {"COMPOSE_FILE": "compose.yml:over.yml"})

    assert text.count("COMPOSE_FILE=compose.yml:over.yml\n") == 2


@pytest.mark.parametrize(
    "value", ["", "plain", "a b", "it's", 'say "hi"', "$HOME and `id`", "', `www.a.b`'", "back\\slash"]
)
def test_every_value_is_read_back_as_it_was(value: str) -> None:
    text = edit_env(SAMPLE, {"NOTE": value})

    sample = EnvSample.parse(text)

    lines = {key: written for key, written, _, _ in sample.lines}
    assert lines["NOTE"].replace("\\$", "$").replace("\\`", "`") == value
