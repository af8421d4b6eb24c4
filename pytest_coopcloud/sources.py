"""A recipe at a ref: a name, a folder or a git address becomes a checkout of the run's own, with its published versions.

Names, refs and addresses are checked before git sees them, and git sees them after `--end-of-options`. Nothing of a
repository runs: no hooks, no submodules, no filters, and only the protocols that are allowed. A checkout holds the files
as they were committed: attributes that a repository sets for itself (`export-ignore`, `eol`, `ident`) change nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pytest_coopcloud.cli import Completed, run
from pytest_coopcloud.errors import BadInputError, BadNameError, BadRecipeError, CLIError, CLITimeoutError, SourceError
from pytest_coopcloud.ledger import Lock
from pytest_coopcloud.naming import check_recipe_name
from pytest_coopcloud.recipes import Version
from pytest_coopcloud.results import CauseClass

__all__ = ["Git", "Source", "SourceSpec", "check_pr", "check_ref", "check_src", "fetch"]

#: Where recipes are published (the organisation `coop-cloud` on the project's forge).
UPSTREAM = "https://git.coopcloud.tech/coop-cloud"
#: The forge that pull requests are opened on.
FORGE = "https://git.coopcloud.tech"

FETCH_TIMEOUT = 300.0
LOCAL_TIMEOUT = 60.0
#: A checkout of more than this is no recipe (bytes, files).
SIZE_LIMIT = 200 * 1024 * 1024
FILES_LIMIT = 20_000
#: A longer address is none (characters).
URL_LIMIT = 500

_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_CREDENTIALS = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s]*@", re.IGNORECASE)
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
            folder = _folder_of(text, cwd or Path.cwd())
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
        _checkout(Git(self.repository), f"refs/tags/{version}^{{commit}}", target)
        return target

    def commit_of(self, version: Version) -> str:
        """Return the commit of a published version."""
        assert self.repository is not None
        try:
            return Git(self.repository).text(
                "rev-parse", "--verify", "--end-of-options", f"refs/tags/{version}^{{commit}}"
            )
        except CLIError as error:
            raise SourceError(f"the tag {version} names no commit: {error.stderr.strip()}") from error


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


def without_credentials(text: str) -> str:
    """Return an address, or a text with addresses in it, without the users and passwords."""
    return _CREDENTIALS.sub(r"\1", text)


def _folder_of(text: str, cwd: Path) -> Path:
    try:
        folder = Path(os.path.abspath(cwd / Path(text).expanduser()))  # noqa: PTH100 - no symlink is followed
        there = folder.is_dir()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, the home of nobody
        there = False
    if not there:
        raise BadInputError(f"there is no folder {text[:200]!r}", hint="give the folder of a recipe's checkout")
    return folder


def _name_of(url: str) -> str:
    return re.split(r"[/:]", url.rstrip("/"))[-1].removesuffix(".git").lower()


def _check_url(url: str, protocols: str) -> str:
    try:
        parts = urlsplit(url if "://" in url else f"ssh://{url.replace(':', '/', 1)}")
    except ValueError as error:
        raise BadNameError(f"{url[:80]!r} is no address: {error}", hint="give https://host/owner/name") from error
    scheme = parts.scheme
    if scheme not in protocols.split(":"):
        raise BadInputError(
            f"{without_credentials(url)[:200]!r} speaks {scheme!r}, and git may speak {protocols.replace(':', ', ')} here",
            hint="more are allowed by COOPCLOUD_GIT_PROTOCOLS, for example https:file",
        )
    host = parts.hostname or ""
    strange = any(character.isspace() or ord(character) < 32 or character == "\x7f" for character in url)
    nowhere = not parts.path.strip("/") or (scheme != "file" and not host)
    if strange or nowhere or url.startswith("-") or host.startswith("-") or len(url) > URL_LIMIT:
        raise BadNameError(f"{url[:80]!r} is no address", hint="give https://host/owner/name")
    return url


# git


@dataclass(frozen=True)
class Git:
    """git on one repository, with nobody's configuration and nothing of the repository's own running."""

    folder: Path
    protocols: str = "https:ssh"
    extra: Mapping[str, str] = field(default_factory=dict)

    def __call__(
        self, *argv: str, timeout: float = LOCAL_TIMEOUT, input: str | None = None, check: bool = True
    ) -> Completed:
        """Run a command of git."""
        return run(
            ["git", *_SETTINGS, *argv],
            cwd=self.folder,
            timeout=timeout,
            env={**_environment(self.protocols), **self.extra},
            input=input,
            redact=without_credentials,
            check=check,
        )

    def text(self, *argv: str) -> str:
        """Run a command of git and return what it printed."""
        return self(*argv).stdout.strip()


_SETTINGS = (
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.fsmonitor=false",
    "-c", "protocol.ext.allow=never",
    "-c", "core.attributesFile=/dev/null",
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
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
    }


def _from_mirror(spec: SourceSpec, mirrors: Path, workdir: Path) -> Source:
    """Fetch through a mirror: cloned once, fetched after, one at a time."""
    mirrors.mkdir(parents=True, exist_ok=True)
    mirror = mirrors / f"{_mirror_name(spec.url)}.git"
    with Lock(mirror.with_suffix(".lock")) as lock:
        lock.exclusive()
        _sweep(mirror)
        git = Git(mirror, spec.protocols)
        if not mirror.is_dir() or git("for-each-ref", "--count=1", check=False).returncode != 0:
            _clone(spec, mirror)
        _fetch(git, spec.url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", prune=True)
        default = _default_branch(git, spec.url)
        ref = _resolve(git, spec, default)
        if spec.upstream and spec.upstream != spec.url:
            _add_upstream_tags(git, spec.upstream)
        repository = workdir.with_name(f"{workdir.name}.git")
        # The mirror is a folder of ours, whatever the recipe's own address may speak.
        Git(mirror, f"{spec.protocols}:file")(
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
        Git(repository, f"{spec.protocols}:file")("fetch", "--quiet", "--no-tags", "--end-of-options", str(mirror), ref)
    own = Git(repository)
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


def _mirror_name(url: str) -> str:
    """Name a mirror so that a person can tell whose it is, and no two addresses share one."""
    shown = without_credentials(url)
    words = re.sub(r"[^a-z0-9.]+", "_", shown.lower()).strip("_.")
    return f"{words[-80:]}-{hashlib.sha256(shown.encode()).hexdigest()[:12]}"


def _sweep(mirror: Path) -> None:
    """Remove what a killed git left of this mirror; whoever calls holds its lock, so nobody is at work on it."""
    for scratch in mirror.parent.glob(f".{mirror.name}-*"):
        shutil.rmtree(scratch, ignore_errors=True)
    for left in [*mirror.glob("*.lock"), *(mirror / "refs").rglob("*.lock")]:
        left.unlink(missing_ok=True)


def _default_branch(git: Git, url: str) -> str:
    """Return the branch that the repository calls its own now, which need not be the one of when it was cloned."""
    said = _network(
        lambda: git("ls-remote", "--symref", "--end-of-options", url, "HEAD", timeout=FETCH_TIMEOUT), url
    ).stdout
    found = re.search(r"^ref: refs/heads/(\S+)\tHEAD$", said, re.MULTILINE)
    if found is None:
        return git("symbolic-ref", "--short", "HEAD", check=False).stdout.strip() or "main"
    git("symbolic-ref", "HEAD", f"refs/heads/{found.group(1)}")
    return found.group(1)


def _add_upstream_tags(git: Git, upstream: str) -> None:
    """Add the tags of upstream; those of the repository itself win. A recipe may be unknown there."""
    try:
        _fetch(git, upstream, "+refs/tags/*:refs/upstream/*", prune=True)
    except BadInputError:
        return
    own = set(_lines(git, "--format=%(refname:strip=2)", "refs/tags"))
    theirs = [line.split(" ", 1) for line in _lines(git, "--format=%(objectname) %(refname:strip=2)", "refs/upstream")]
    new = "".join(f"create refs/tags/{tag} {sha}\n" for sha, tag in theirs if tag not in own)
    git("update-ref", "--stdin", input=new)


def _lines(git: Git, *argv: str) -> list[str]:
    return git("for-each-ref", *argv).stdout.splitlines()


def _contains(git: Git, branch: str, commit: str) -> bool:
    done = git("merge-base", "--is-ancestor", "--end-of-options", commit, f"refs/heads/{branch}", check=False)
    return done.returncode == 0


def _clone(spec: SourceSpec, mirror: Path) -> None:
    """Make a mirror; one that is not complete never carries the name."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{mirror.name}-", dir=mirror.parent))
    try:
        git = Git(scratch, spec.protocols)
        _network(
            lambda: git(
                "clone", "--quiet", "--bare", "--end-of-options", spec.url, str(scratch / "new"), timeout=FETCH_TIMEOUT
            ),
            spec.url,
        )
        shutil.rmtree(mirror, ignore_errors=True)
        (scratch / "new").rename(mirror)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fetch(git: Git, url: str, *refspecs: str, prune: bool) -> None:
    argv = ["fetch", "--quiet", "--no-tags", *(["--prune"] if prune else []), "--end-of-options", url, *refspecs]
    _network(lambda: git(*argv, timeout=FETCH_TIMEOUT), url)


def _resolve(git: Git, spec: SourceSpec, default: str) -> str:
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
        if git.text("rev-parse", "--verify", "--end-of-options", f"{wanted}^{{commit}}") != wanted:
            raise BadInputError(f"{wanted} is no commit, but a tag", hint="give the commit that it names")
        return wanted
    for form in (f"refs/heads/{wanted}", f"refs/tags/{wanted}"):
        done = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{form}^{{commit}}", check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    raise BadInputError(
        f"there is no {wanted!r} in {without_credentials(spec.url)}", hint="give a commit, a branch or a tag"
    )


#: What git says of a repository, or a commit, that it may not read or that is not there.
_NOT_THERE = re.compile(
    r"not found|does not exist|does not appear to be a git repository|Authentication failed|could not read Username"
    r"|not our ref"
)


def _network(call: Callable[[], Completed], url: str) -> Completed:
    shown = without_credentials(url)
    try:
        return call()
    except CLITimeoutError as error:
        raise SourceError(f"{shown} did not answer in {FETCH_TIMEOUT:g} s", hint="try again later") from error
    except CLIError as error:
        said = error.stderr.strip()
        if _NOT_THERE.search(said):
            raise BadInputError(
                f"there is no repository (or commit) to read at {shown}: {said}", hint="is the name right?"
            ) from error
        raise SourceError(f"{shown} could not be fetched: {said}", hint="can it be reached from here?") from error


#: What a repository's own attributes say of how its files are written is taken back.
_NO_ATTRIBUTES = "* -text !eol !ident !filter !working-tree-encoding\n"


def _checkout(git: Git, commit: str, target: Path) -> None:
    """Lay a commit out as files, as they were committed, through a git folder that has no settings but ours."""
    target.mkdir(parents=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        sha = git.text("rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}")
        _check_size(git, sha)
        objects = git.text("rev-parse", "--path-format=absolute", "--git-path", "objects")
        kind = git.text("rev-parse", "--show-object-format")
        empty = Git(scratch, extra={"GIT_ALTERNATE_OBJECT_DIRECTORIES": _quoted(objects)})
        empty("init", "--quiet", "--bare", "--template=", f"--object-format={kind}", "--end-of-options", str(scratch))
        (scratch / "info").mkdir(exist_ok=True)
        (scratch / "info" / "attributes").write_text(_NO_ATTRIBUTES)
        empty("read-tree", "--end-of-options", sha)
        empty("-c", "core.bare=false", f"--git-dir={scratch}", f"--work-tree={target}", "checkout-index", "--all")
    except CLIError as error:
        raise SourceError(f"{commit[:100]} cannot be checked out: {error.stderr.strip()}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _quoted(path: str) -> str:
    """Return a path as an entry of git's list of object folders."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _check_size(git: Git, sha: str) -> None:
    """Refuse a commit that is too large, before anything of it is written."""
    listed = git("ls-tree", "-r", "-l", "-z", "--full-tree", "--end-of-options", sha).stdout.split("\0")
    if len(listed) > FILES_LIMIT:
        raise BadInputError(f"the checkout has more than {FILES_LIMIT} files", hint="is it a recipe?")
    size = 0
    for entry in listed:
        mode, _, rest = entry.partition(" ")
        if mode.startswith("1") and mode != "160000":
            size += int(rest.split()[2])
    if size > SIZE_LIMIT:
        raise BadInputError(f"the checkout has {size} bytes, {SIZE_LIMIT} are allowed", hint="is it a recipe?")


def _versions(git: Git) -> tuple[tuple[Version, ...], tuple[str, ...]]:
    """Return the published versions, oldest first, and the tags that are none."""
    found, rejected = [], []
    for line in _lines(git, "--format=%(objecttype) %(*objecttype) %(refname:strip=2)", "refs/tags"):
        kind, peeled, tag = line.split(" ", 2)
        try:
            version = Version.parse(tag)
        except BadRecipeError:
            rejected.append(tag[:80])
            continue
        # A leading zero would be lost on the way back to the tag's name; a tag may name a file or a folder.
        if str(version) == tag and (peeled or kind) in ("commit", "tag"):
            found.append(version)
        else:
            rejected.append(tag[:80])
    return tuple(sorted(found)), tuple(rejected[:50])


# A folder


def _from_folder(spec: SourceSpec, workdir: Path) -> Source:
    """Copy the working tree as it lies, with changes that no commit holds, or take a ref of its repository."""
    assert spec.folder is not None
    git = Git(spec.folder, "file")
    inside = git("rev-parse", "--show-prefix", check=False)
    # A folder within somebody else's repository has no commits or tags of its own.
    if inside.returncode != 0 or inside.stdout.strip():
        if spec.ref:
            raise BadInputError(f"{spec.folder} is no git repository, so there is no {spec.ref!r} in it")
        _copy(spec.folder, workdir, None if inside.returncode != 0 else _tracked(git))
        return _folder_source(spec, workdir, "", dirty=True, git=None)
    head = git("rev-parse", "--verify", "--quiet", "HEAD^{commit}", check=False).stdout.strip()
    if spec.ref:
        done = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{spec.ref}^{{commit}}", check=False)
        if done.returncode != 0:
            raise BadInputError(f"there is no {spec.ref!r} in {spec.folder}", hint="give a commit, a branch or a tag")
        head = done.stdout.strip()
        _checkout(git, head, workdir)
        return _folder_source(spec, workdir, head, dirty=False, git=git)
    _copy(spec.folder, workdir, _tracked(git))
    changes = git("status", "--porcelain", "--untracked-files=normal", "--ignore-submodules=all")
    dirty = bool(changes.stdout.strip())
    return _folder_source(spec, workdir, head, dirty=dirty, git=git)


def _tracked(git: Git) -> list[str]:
    """Return the files of a working tree, but those that are ignored."""
    names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.split("\0")
    unreadable = [name for name in names if "\ufffd" in name]
    if unreadable:
        raise BadInputError(f"the name of a file is no UTF-8: {unreadable[0][:200]!r}", hint="rename it")
    return list(dict.fromkeys(name for name in names if name))


def _folder_source(spec: SourceSpec, workdir: Path, ref: str, *, dirty: bool, git: Git | None) -> Source:
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
    """Copy files (all of a folder where no names are given); links are copied as links, and none is followed."""
    workdir.mkdir(parents=True)
    real = folder.resolve()
    size = 0
    listed = names if names is not None else [str(path.relative_to(folder)) for path in folder.rglob("*")]
    if len(listed) > FILES_LIMIT:
        raise BadInputError(f"{folder} holds more than {FILES_LIMIT} files", hint="is it the folder of a recipe?")
    for name in listed:
        source, target = folder / name, workdir / name
        try:
            found = source.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue  # deleted, and not yet in a commit
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            continue
        if not source.parent.resolve().is_relative_to(real):
            continue  # below a link that took the place of a folder
        size += found.st_size
        if size > SIZE_LIMIT:
            raise BadInputError(f"{folder} holds more than {SIZE_LIMIT} bytes", hint="is it the folder of a recipe?")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
