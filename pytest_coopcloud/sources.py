"""A recipe at a ref: a name, a folder or a git address becomes a checkout of the run's own, with its published versions.

Names, refs and addresses are checked before git sees them, and git sees them after `--end-of-options`. Nothing of a
repository runs: no hooks, no submodules, no filters, and only the protocols that are allowed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pytest_coopcloud.cli import Completed, run
from pytest_coopcloud.errors import BadInputError, BadNameError, BadRecipeError, CLIError, CLITimeoutError, SourceError
from pytest_coopcloud.ledger import Lock
from pytest_coopcloud.naming import check_recipe_name
from pytest_coopcloud.recipes import Version
from pytest_coopcloud.results import CauseClass

__all__ = ["Source", "SourceSpec", "check_pr", "check_ref", "check_src", "fetch"]

#: Where recipes are published (the organisation `coop-cloud` on the project's forge).
UPSTREAM = "https://git.coopcloud.tech/coop-cloud"
#: The forge that pull requests are opened on.
FORGE = "https://git.coopcloud.tech"

FETCH_TIMEOUT = 300.0
LOCAL_TIMEOUT = 60.0
#: A checkout of more than this is no recipe (bytes).
SIZE_LIMIT = 200 * 1024 * 1024

_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_OWNER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,98}/[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+@-]{0,199}")


def check_ref(ref: str, *, pinned: bool) -> str:
    """Return `ref` where it can be a commit (or, not `pinned`, a branch or a tag).

    Raises:
        BadNameError: It cannot.
    """
    if _SHA.fullmatch(ref):
        return ref
    bad = any(part in ref for part in ("..", "@{", "//")) or ref.endswith((".lock", "/", "."))
    if pinned or bad or not _REF.fullmatch(ref):
        hint = "give the 40 hex digits of a commit" if pinned else "give a commit, a branch or a tag"
        raise BadNameError(f"{ref[:80]!r} is no {'commit' if pinned else 'ref'}", hint=hint)
    return ref


def check_src(src: str) -> str:
    """Return `src` where it is `owner/name`.

    Raises:
        BadNameError: It is not.
    """
    if not _OWNER_NAME.fullmatch(src) or ".." in src or src.endswith(".git"):
        raise BadNameError(f"{src[:80]!r} is no repository of the forge", hint="give `owner/name`")
    return src


def check_pr(pr: str) -> str:
    """Return `pr` where it is the number of a pull request.

    Raises:
        BadNameError: It is not.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,8}", pr):
        raise BadNameError(f"{pr[:80]!r} is no number of a pull request", hint="give a whole number from 1")
    return pr


@dataclass(frozen=True)
class SourceSpec:
    """Which recipe, and where it comes from.

    Attributes:
        text: What the user gave.
        name: The recipe's name.
        folder: Its folder, where a path was given.
        url: Its address, where it is not a folder.
        ref: The commit, branch or tag; empty for what is there.
        src: `owner/name` of the repository that the pull request is opened against.
        pr: The pull request.
        upstream: Where published versions are looked for as well; empty for a folder.
        protocols: What git may speak.
    """

    text: str
    name: str
    folder: Path | None = None
    url: str = ""
    ref: str = ""
    src: str = ""
    pr: str = ""
    upstream: str = ""
    protocols: str = "https:ssh"

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        ref: str = "",
        src: str = "",
        pr: str = "",
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> SourceSpec:
        """Check what the user gave.

        Args:
            text: A name, a path, or a git address.
            ref: A commit, a branch or a tag; a commit where `src` or `pr` is given.
            src: `owner/name` on the forge.
            pr: The number of the pull request.
            environ: Where the settings `COOPCLOUD_UPSTREAM_URL`, `COOPCLOUD_FORGE_URL` and `COOPCLOUD_GIT_PROTOCOLS` are.
            cwd: What a relative path begins at.

        Raises:
            BadInputError: Something cannot be used.
        """
        settings = environ or {}
        upstream = (settings.get("COOPCLOUD_UPSTREAM_URL") or UPSTREAM).rstrip("/")
        forge = (settings.get("COOPCLOUD_FORGE_URL") or FORGE).rstrip("/")
        protocols = settings.get("COOPCLOUD_GIT_PROTOCOLS") or "https:ssh"
        pinned = bool(src or pr)
        if pr:
            check_pr(pr)
        if src:
            check_src(src)
        if pinned and not ref:
            raise BadInputError(
                "a pull request is given, and no commit", hint="give the commit with --recipe-ref (env REF)"
            )
        if ref:
            check_ref(ref, pinned=pinned)
        if "://" in text or re.match(r"[\w.-]+@[\w.-]+:", text):
            name = check_recipe_name(_name_of(text))
            if src:
                raise BadInputError("an address and --recipe-src are given", hint="give one of them")
            return cls(text, name, url=_check_url(text, protocols), ref=ref, pr=pr, protocols=protocols)
        if text.startswith((".", "/", "~")) or "/" in text:
            folder = Path(os.path.abspath((cwd or Path.cwd()) / Path(text).expanduser()))  # noqa: PTH100 - no symlink is followed
            if not folder.is_dir():
                raise BadInputError(
                    f"there is no folder {str(folder)[:200]}", hint="give the folder of a recipe's checkout"
                )
            if src or pr:
                raise BadInputError("a folder and a pull request are given", hint="give the recipe by its name")
            return cls(text, check_recipe_name(folder.name.lower()), folder=folder, ref=ref, protocols=protocols)
        name = check_recipe_name(text)
        url = f"{forge}/{src}.git" if src else f"{upstream}/{name}.git"
        return cls(text, name, url=url, ref=ref, src=src, pr=pr, upstream=f"{upstream}/{name}.git", protocols=protocols)

    def __str__(self) -> str:
        where = str(self.folder) if self.folder else without_credentials(self.url)
        return f"{self.name} ({where}{f' at {self.ref[:12]}' if self.ref else ''})"


@dataclass(frozen=True)
class Source:
    """A recipe, fetched.

    Attributes:
        name: Its name.
        path: The checkout of the head, the run's own.
        origin: The maintainer's own folder, where one was given.
        ref: The commit; empty outside git.
        dirty: Whether the folder had changes that no commit holds.
        description: Where it came from, without credentials.
        branch: The branch, where known.
        is_default_branch: Whether that is the default branch of where it came from.
        versions: The published versions, oldest first.
        rejected: Tags that are no versions.
        trusted: Whether the head's own code may run in this process: not for a pull request.
        repository: The git folder that versions are checked out from; None outside git.
    """

    name: str
    path: Path
    origin: Path | None
    ref: str
    dirty: bool
    description: str
    branch: str
    is_default_branch: bool
    versions: tuple[Version, ...]
    rejected: tuple[str, ...]
    trusted: bool
    repository: Path | None

    def checkout_version(self, version: Version, target: Path) -> Path:
        """Check a published version out into `target`, and return that.

        Raises:
            SourceError: It cannot be checked out.
        """
        assert self.repository is not None
        _checkout(_Git(self.repository), f"refs/tags/{version}^{{commit}}", target)
        return target

    def commit_of(self, version: Version) -> str:
        """Return the commit of a published version."""
        assert self.repository is not None
        return _Git(self.repository).text(
            "rev-parse", "--verify", "--end-of-options", f"refs/tags/{version}^{{commit}}"
        )


def fetch(spec: SourceSpec, *, mirrors: Path, workdir: Path) -> Source:
    """Fetch a recipe, and check it out into `workdir`.

    Args:
        spec: What to fetch.
        mirrors: Where bare clones are kept from run to run.
        workdir: Where the checkout goes; must not exist.

    Raises:
        BadInputError: There is no such repository, or no such commit in it.
        SourceError: It could not be fetched.
    """
    return _from_folder(spec, workdir) if spec.folder is not None else _from_mirror(spec, mirrors, workdir)


def without_credentials(url: str) -> str:
    """Return an address without the user and password in it."""
    parts = urlsplit(url)
    if not parts.hostname or "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _name_of(url: str) -> str:
    return re.split(r"[/:]", url.rstrip("/"))[-1].removesuffix(".git").lower()


def _check_url(url: str, protocols: str) -> str:
    scheme = urlsplit(url).scheme if "://" in url else "ssh"
    if scheme not in protocols.split(":"):
        raise BadInputError(
            f"{without_credentials(url)[:200]!r} speaks {scheme!r}, and git may speak {protocols.replace(':', ', ')} here",
            hint="more are allowed by COOPCLOUD_GIT_PROTOCOLS, for example https:file",
        )
    if any(character.isspace() or ord(character) < 32 for character in url) or url.startswith("-"):
        raise BadNameError(f"{url[:80]!r} is no address", hint="give https://host/owner/name")
    return url


# git


@dataclass(frozen=True)
class _Git:
    """git on one repository, with nobody's configuration and nothing of the repository's own running."""

    folder: Path
    protocols: str = "https:ssh"

    def __call__(self, *argv: str, timeout: float = LOCAL_TIMEOUT, check: bool = True) -> Completed:
        return run(
            ["git", *_SETTINGS, *argv], cwd=self.folder, timeout=timeout, env=_environment(self.protocols), check=check
        )

    def text(self, *argv: str) -> str:
        return self(*argv).stdout.strip()


_SETTINGS = (
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.fsmonitor=false",
    "-c", "protocol.ext.allow=never",
    "-c", "submodule.recurse=false",
    "-c", "fetch.recurseSubmodules=false",
    "-c", "gc.auto=0",
    "-c", "safe.directory=*",
    "-c", "advice.detachedHead=false",
)  # fmt: skip


def _environment(protocols: str) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "SSH_AUTH_SOCK", "GIT_SSL_CAINFO") if key in os.environ}
    return {
        **kept,
        "LANG": "C",
        "GIT_ALLOW_PROTOCOL": protocols,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
    }


def _from_mirror(spec: SourceSpec, mirrors: Path, workdir: Path) -> Source:
    """Fetch through a mirror: cloned once, fetched after, one at a time."""
    mirrors.mkdir(parents=True, exist_ok=True)
    mirror = mirrors / f"{re.sub(r'[^a-z0-9.]+', '_', without_credentials(spec.url).lower())}.git"
    with Lock(mirror.with_suffix(".lock")) as lock:
        lock.exclusive()
        if not mirror.is_dir():
            _clone(spec, mirror)
        git = _Git(mirror, spec.protocols)
        _fetch(git, spec.url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", prune=True)
        default = git("symbolic-ref", "--short", "HEAD", check=False).stdout.strip() or "main"
        ref = _resolve(git, spec, default)
        if spec.upstream and spec.upstream != spec.url:
            with contextlib.suppress(SourceError, BadInputError):
                # Tags of upstream count as well; those of the repository itself win.
                _fetch(git, spec.upstream, "refs/tags/*:refs/tags/*", prune=False)
        repository = workdir.with_name(f"{workdir.name}.git")
        # The mirror is a folder of ours, whatever the recipe's own address may speak.
        _Git(mirror, f"{spec.protocols}:file")(
            "clone",
            "--quiet",
            "--bare",
            "--no-hardlinks",
            "--end-of-options",
            str(mirror),
            str(repository),
            timeout=FETCH_TIMEOUT,
        )
        # A commit that no branch holds (a pull request's) does not come along with a clone.
        _Git(repository, f"{spec.protocols}:file")(
            "fetch", "--quiet", "--no-tags", "--end-of-options", str(mirror), ref
        )
    own = _Git(repository)
    _checkout(own, ref, workdir)
    versions, rejected = _versions(own)
    branch = spec.ref if spec.ref and not _SHA.fullmatch(spec.ref) else ("" if spec.ref else default)
    on_default = not spec.pr and _contains(own, default, ref)
    return Source(
        name=spec.name,
        path=workdir,
        origin=None,
        ref=ref,
        dirty=False,
        description=without_credentials(spec.url),
        branch=branch or (default if on_default else ""),
        is_default_branch=on_default,
        versions=versions,
        rejected=rejected,
        trusted=not (spec.src or spec.pr),
        repository=repository,
    )


def _contains(git: _Git, branch: str, commit: str) -> bool:
    done = git("merge-base", "--is-ancestor", "--end-of-options", commit, f"refs/heads/{branch}", check=False)
    return done.returncode == 0


def _clone(spec: SourceSpec, mirror: Path) -> None:
    """Make a mirror; one that is not complete never carries the name."""
    scratch = Path(tempfile.mkdtemp(prefix=".clone-", dir=mirror.parent))
    try:
        git = _Git(scratch, spec.protocols)
        _network(
            lambda: git(
                "clone", "--quiet", "--bare", "--end-of-options", spec.url, str(scratch / "new"), timeout=FETCH_TIMEOUT
            ),
            spec.url,
        )
        (scratch / "new").rename(mirror)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fetch(git: _Git, url: str, *refspecs: str, prune: bool) -> None:
    argv = ["fetch", "--quiet", "--no-tags", *(["--prune"] if prune else []), "--end-of-options", url, *refspecs]
    _network(lambda: git(*argv, timeout=FETCH_TIMEOUT), url)


def _resolve(git: _Git, spec: SourceSpec, default: str) -> str:
    """Return the commit under test."""
    wanted = spec.ref or default
    if _SHA.fullmatch(wanted):
        if git("cat-file", "-e", f"{wanted}^{{commit}}", check=False).returncode != 0:
            try:
                _fetch(git, spec.url, wanted, prune=False)
            except (SourceError, BadInputError) as error:
                raise BadInputError(
                    f"commit {wanted} is not in {without_credentials(spec.url)}",
                    hint="was it force-pushed away, or is it in a fork only? comment again for the newest commit",
                    cause=CauseClass.INFRASTRUCTURE if isinstance(error, SourceError) else CauseClass.RECIPE,
                ) from error
        return wanted
    for form in (f"refs/heads/{wanted}", f"refs/tags/{wanted}"):
        done = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{form}^{{commit}}", check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    raise BadInputError(
        f"there is no {wanted!r} in {without_credentials(spec.url)}", hint="give a commit, a branch or a tag"
    )


def _network(call: Callable[[], Completed], url: str) -> None:
    shown = without_credentials(url)
    try:
        call()
    except CLITimeoutError as error:
        raise SourceError(f"{shown} did not answer in {FETCH_TIMEOUT:g} s", hint="try again later") from error
    except CLIError as error:
        said = error.stderr.strip().replace(url, shown)
        if re.search(
            r"not found|does not exist|does not appear to be a git repository|Authentication failed|could not read Username|not our ref",
            said,
        ):
            raise BadInputError(
                f"there is no repository (or commit) to read at {shown}: {said}", hint="is the name right?"
            ) from error
        raise SourceError(f"{shown} could not be fetched: {said}", hint="can it be reached from here?") from error


def _checkout(git: _Git, commit: str, target: Path) -> None:
    """Lay a commit out as files: what `git archive` gives, so that nothing of the repository runs."""
    target.mkdir(parents=True)
    packed = target.with_name(f".{target.name}.tar")
    try:
        git("archive", "--format=tar", f"--output={packed}", "--end-of-options", commit)
        if packed.stat().st_size > SIZE_LIMIT:
            raise BadInputError(f"the checkout has {packed.stat().st_size} bytes, {SIZE_LIMIT} are allowed")
        run(["tar", "--extract", "--no-same-owner", f"--file={packed}", f"--directory={target}"], timeout=LOCAL_TIMEOUT)
    except CLIError as error:
        raise SourceError(f"{commit} cannot be checked out: {error.stderr.strip()}") from error
    finally:
        packed.unlink(missing_ok=True)


def _versions(git: _Git) -> tuple[tuple[Version, ...], tuple[str, ...]]:
    """Return the published versions, oldest first, and the tags that are none."""
    found, rejected = [], []
    for tag in git.text("for-each-ref", "--format=%(refname:strip=2)", "refs/tags").splitlines():
        try:
            found.append(Version.parse(tag))
        except BadRecipeError:
            rejected.append(tag[:80])
    return tuple(sorted(found)), tuple(rejected[:50])


# A folder


def _from_folder(spec: SourceSpec, workdir: Path) -> Source:
    """Copy the working tree as it lies, with changes that no commit holds, or take a ref of its repository."""
    assert spec.folder is not None
    git = _Git(spec.folder, "file")
    if git("rev-parse", "--git-dir", check=False).returncode != 0:
        if spec.ref:
            raise BadInputError(f"{spec.folder} is no git repository, so there is no {spec.ref!r} in it")
        _copy(spec.folder, workdir, None)
        return _folder_source(spec, workdir, "", dirty=True, git=None)
    head = git("rev-parse", "--verify", "--quiet", "HEAD^{commit}", check=False).stdout.strip()
    if spec.ref:
        done = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{spec.ref}^{{commit}}", check=False)
        if done.returncode != 0:
            raise BadInputError(f"there is no {spec.ref!r} in {spec.folder}", hint="give a commit, a branch or a tag")
        head = done.stdout.strip()
        _checkout(git, head, workdir)
        return _folder_source(spec, workdir, head, dirty=False, git=git)
    files = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.split("\0")
    _copy(spec.folder, workdir, [name for name in files if name])
    dirty = bool(git("status", "--porcelain", "--untracked-files=normal").stdout.strip())
    return _folder_source(spec, workdir, head, dirty=dirty, git=git)


def _folder_source(spec: SourceSpec, workdir: Path, ref: str, *, dirty: bool, git: _Git | None) -> Source:
    versions, rejected = _versions(git) if git else ((), ())
    branch = git("symbolic-ref", "--short", "HEAD", check=False).stdout.strip() if git and not spec.ref else ""
    assert spec.folder is not None
    return Source(
        name=spec.name,
        path=workdir,
        origin=None if spec.ref else spec.folder,
        ref=ref,
        dirty=dirty,
        description=str(spec.folder),
        branch=branch,
        is_default_branch=branch in ("main", "master"),
        versions=versions,
        rejected=rejected,
        trusted=True,
        repository=spec.folder if git else None,
    )


def _copy(folder: Path, workdir: Path, names: list[str] | None) -> None:
    """Copy files (all of a folder where no names are given); links are copied as links."""
    workdir.mkdir(parents=True)
    size = 0
    listed = names if names is not None else [str(path.relative_to(folder)) for path in folder.rglob("*")]
    for name in listed:
        source, target = folder / name, workdir / name
        if source.is_dir() and not source.is_symlink():
            continue
        if not source.is_symlink() and not source.exists():
            continue  # deleted, and not yet in a commit
        size += source.lstat().st_size
        if size > SIZE_LIMIT:
            raise BadInputError(f"{folder} holds more than {SIZE_LIMIT} bytes", hint="is it the folder of a recipe?")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
