"""A home for abra (`ABRA_DIR`) of the run's own: one server, a catalogue that needs no fetching, one recipe, one `.env`.

abra moves a recipe's checkout between its tags as it works, so two runs must not share one, and ours is put where it
belongs before each command that reads it.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv.parser import parse_stream

from pytest_coopcloud.deployers.protocol import Release
from pytest_coopcloud.errors import BadRecipeError, CLIError, SourceError
from pytest_coopcloud.recipes import SAMPLE_FILE, Version
from pytest_coopcloud.sources import Git

__all__ = ["OVERLAY_FILE", "SERVER", "AbraHome", "edit_env"]

#: The engine of this machine, as abra calls it.
SERVER = "default"
#: The compose file that we add to the run's own checkout.
OVERLAY_FILE = "compose.coopcloud-ci.yml"

_SOMEBODY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "pytest-coopcloud"), ("EMAIL", "pytest-coopcloud@localhost"))
}
_TYPE = re.compile(r"(?m)^(?:TYPE|RECIPE)=[\"']?([^\s\"'#]+)")


@dataclass
class AbraHome:
    """The folder, and what is done to it.

    Attributes:
        folder: The `ABRA_DIR`.
        recipe: The recipe's name.
        repository: The git folder that its commits and tags are in; None outside git.
        domain: The app's name.
    """

    folder: Path
    recipe: str
    repository: Path | None
    domain: str
    git: Git = field(init=False)

    def __post_init__(self) -> None:
        self.git = Git(self.checkout, "file", _SOMEBODY)

    @property
    def checkout(self) -> Path:
        """The recipe's checkout, which abra moves."""
        return self.folder / "recipes" / self.recipe

    @property
    def env_file(self) -> Path:
        """The app's `.env`."""
        return self.folder / "servers" / SERVER / f"{self.domain}.env"

    # The recipe

    def lay(self, release: Release, overlay: str = "") -> None:
        """Put the checkout on a release: a published version as it was tagged, the head as it lies.

        Args:
            release: The release.
            overlay: The text of a compose file to add, where there is one.

        Raises:
            SourceError: git could not do it.
        """
        try:
            if not (self.checkout / ".git").is_dir():
                self._make(release)
            where = f"refs/tags/{release.version}" if release.published else release.ref or "HEAD"
            self.git("checkout", "--quiet", "--force", "--detach", where)
            self.git("clean", "-ffdxq")
        except CLIError as error:
            raise SourceError(f"abra's checkout cannot be put on {release.version}: {error.stderr.strip()}") from error
        if not release.published:
            self._copy(release.path)
        if overlay:
            (self.checkout / OVERLAY_FILE).write_text(overlay, encoding="utf-8")

    def _make(self, release: Release) -> None:
        shutil.rmtree(self.checkout, ignore_errors=True)
        self.checkout.mkdir(parents=True)
        if self.repository is None:
            self.git("init", "--quiet", "--initial-branch=main")
            self._copy(release.path)
            self.git("add", "--all", "--force")
            self.git("commit", "--quiet", "--allow-empty", "--message", "the recipe as it lies")
        else:
            self.git(
                "clone", "--quiet", "--no-hardlinks", "--no-checkout", "--end-of-options", str(self.repository), "."
            )
            if release.ref:
                # A commit that no branch holds (a pull request's) does not come along with a clone.
                self.git("fetch", "--quiet", "--no-tags", "--end-of-options", str(self.repository), release.ref)
            # abra leaves a checkout without a remote alone; it would fetch from one.
            self.git("remote", "remove", "origin")
            branches = self.git.text("for-each-ref", "--format=%(refname:strip=2)", "refs/heads").splitlines()
            if not {"main", "master"} & set(branches):
                self.git("branch", "--force", "main", release.ref or "HEAD")
        versions = self._drop_strange_tags()
        self._seed(versions)

    def _drop_strange_tags(self) -> list[str]:
        """Delete the tags that are no versions, of which abra may think otherwise, and return those that are."""
        versions = []
        for tag in self.git.text("for-each-ref", "--format=%(refname:strip=2)", "refs/tags").splitlines():
            try:
                versions.append(Version.parse(tag))
            except BadRecipeError:
                self.git("tag", "--delete", "--", tag)
        return [str(version) for version in sorted(versions)]

    def _copy(self, source: Path) -> None:
        """Have the very files of a folder in the checkout, with changes that no commit holds."""
        for entry in self.checkout.iterdir():
            if entry.name != ".git":
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        shutil.copytree(source, self.checkout, symlinks=True, dirs_exist_ok=True)

    def _seed(self, versions: list[str]) -> None:
        """Make the rest of the home, so that nothing of it is fetched."""
        (self.folder / "servers" / SERVER).mkdir(parents=True, exist_ok=True)
        catalogue = self.folder / "catalogue"
        catalogue.mkdir(exist_ok=True)
        entry = {"name": self.recipe, "default_branch": "main", "versions": [{version: {}} for version in versions]}
        (catalogue / "recipes.json").write_text(json.dumps({self.recipe: entry}), encoding="utf-8")
        git = Git(catalogue, "file", _SOMEBODY)
        git("init", "--quiet", "--initial-branch=main")
        git("add", "--all")
        git("commit", "--quiet", "--allow-empty", "--message", "a catalogue of one recipe")

    # The .env

    def written_type(self) -> str:
        """Return what abra wrote as `TYPE`; the recipe's name where it wrote none."""
        found = _TYPE.search(self.env_file.read_text(encoding="utf-8"))
        return found.group(1) if found else self.recipe

    def write_env(self, release: Release, kind: str, values: Mapping[str, str]) -> None:
        """Write the `.env`: the release's sample with these values in it, comments kept.

        Args:
            release: Whose sample.
            kind: The value of `TYPE`.
            values: Keys that win over the sample's.
        """
        sample = release.path / SAMPLE_FILE
        text = (sample if sample.is_file() else self.env_file).read_text(encoding="utf-8")
        key = "RECIPE" if re.search(r"(?m)^RECIPE=", text) and not re.search(r"(?m)^TYPE=", text) else "TYPE"
        self.env_file.parent.mkdir(parents=True, exist_ok=True)
        self.env_file.write_text(edit_env(text, {key: kind, **values}), encoding="utf-8")

    def remove_env(self) -> None:
        """Remove the `.env`, where there is one."""
        self.env_file.unlink(missing_ok=True)


def edit_env(text: str, values: Mapping[str, str]) -> str:
    """Return the text of a `.env` with values set in it: where their keys stand, else at its end. Comments stay.

    A comment behind a value may hold the rules of a secret (`# length=32`), so it stays as well.

    Example:
        >>> edit_env("A=1 # one\\n#B=2\\n", {"A": "3", "B": "x y"})
        "A=3 # one\\n#B=2\\nB='x y'\\n"
    """
    written, left = [], dict(values)
    for binding in parse_stream(io.StringIO(text if text.endswith("\n") else f"{text}\n")):
        raw = binding.original.string
        if binding.key not in values:
            written.append(raw)
            continue
        assert binding.key is not None
        above = raw[: len(raw) - len(raw.lstrip())]
        comment = re.search(r"\s#[^\n]*$", re.sub(r"'[^']*'|\"[^\"]*\"", "", raw.rstrip()))
        written.append(f"{above}{binding.key}={_quoted(values[binding.key])}{comment.group() if comment else ''}\n")
        left.pop(binding.key, None)
    written += [f"{key}={_quoted(value)}\n" for key, value in left.items()]
    return "".join(written)


def _quoted(value: str) -> str:
    if re.fullmatch(r"[\w./:@%+,=-]*", value):
        return value
    if "'" not in value:
        return f"'{value}'"
    return '"' + re.sub(r'([\\"$`])', r"\\\1", value) + '"'
