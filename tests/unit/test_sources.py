from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from pytest_coopcloud import sources
from pytest_coopcloud.errors import BadInputError, BadNameError, SourceError
from pytest_coopcloud.recipes import Version
from pytest_coopcloud.results import CauseClass
from pytest_coopcloud.sources import Source, SourceSpec, fetch, without_credentials

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always"]
SHA = "0123456789" * 4


def git(folder: Path, *argv: str, stdin: str | None = None) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "HOME": "/nonexistent",
    }
    done = subprocess.run(
        [*GIT, *argv], cwd=folder, env=environment, input=stdin, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(folder: Path, files: dict[str, str], *, tag: str = "", annotated: bool = True) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "a")
    if tag:
        git(folder, "tag", *(["-a", "-m", "a"] if annotated else []), tag)
    return git(folder, "rev-parse", "HEAD")


def make_repository(folder: Path) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "-b", "main")
    commit(folder, {"compose.yml": "old\n"}, tag="1.0.0+1.0")
    commit(folder, {"compose.yml": "new\n"}, tag="1.1.0+1.1")
    commit(folder, {"compose.yml": "head\n"})
    return folder


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class World:
    """A forge and an upstream organisation in folders, and where a run keeps its things."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.forge, self.upstream = root / "forge", root / "upstream"
        self.mirrors = root / "mirrors"
        self.count = 0
        self.environ = {
            "COOPCLOUD_GIT_PROTOCOLS": "https:file",
            "COOPCLOUD_UPSTREAM_URL": self.upstream.as_uri(),
            "COOPCLOUD_FORGE_URL": self.forge.as_uri(),
        }

    def spec(self, text: str, **given: str) -> SourceSpec:
        return SourceSpec.parse(text, environ=self.environ, **given)

    def fetch(self, text: str, **given: str) -> Source:
        self.count += 1
        return fetch(
            self.spec(text, **given), mirrors=self.mirrors, workdir=self.root / f"run{self.count}" / "checkout"
        )


def head(source: Source) -> str:
    return (source.path / "compose.yml").read_text()


# What is given


@pytest.mark.parametrize(
    "text",
    [
        "", "-rf", ".x", "../../nowhere", "a b", "A", "x" * 64, "x" * 10_000, "/" + "x" * 10_000, "x\n", "\nx", "x\0y",
        "/x\0y", "$(touch pwned)", "`touch pwned`", "x; touch pwned", "--upload-pack=touch pwned", "-", "~nobody-here/x",
        "ext::sh -c touch% pwned", "ext::sh", "ext://sh/x", "file:///etc/x", "http://169.254.169.254/x", "git://host/x",
        "https://", "https:///x", "https://[x", "https://host/", "https://host/a b", "https://host/x\n", "https://host/.x",
        "ssh://-oProxyCommand=touch/x", "-oProxyCommand@host:x", "git@-oProxyCommand=x:y", "https://host/" + "x" * 10_000,
        "https://" + "h" * 600 + "/x", "é", "x%00",
    ],
)  # fmt: skip
def test_hostile_recipe_is_refused_before_git_sees_it(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sources, "run", lambda *argv, **_: pytest.fail(f"ran {argv}"))

    with pytest.raises(BadInputError) as refused:
        SourceSpec.parse(text, cwd=tmp_path)

    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    "ref",
    [
        "--upload-pack=touch x", "-rf", "--help", "a..b", "a b", "a\n", "x" * 10_000, "$(x)", "`x`", "a;b", "a@{1}", "a^{/x}",
        "a:b", "a~1", "a*", "a//b", "a/", "a.lock", ".a", "/a", "a\0b", "ö",
    ],
)  # fmt: skip
def test_hostile_ref_is_refused(ref: str) -> None:
    with pytest.raises(BadNameError, match="is no ref"):
        SourceSpec.parse("hello", ref=ref)


@pytest.mark.parametrize(
    "ref", ["main", SHA[:39], SHA[:39] + "A", SHA + "0", SHA + "\n", "v1.0", "0" * 63, "HEAD", SHA[:39] + "g"]
)
def test_a_pull_request_is_pinned_to_a_whole_commit(ref: str) -> None:
    with pytest.raises(BadNameError, match="is no commit"):
        SourceSpec.parse("hello", ref=ref, src="a/hello", pr="1")


@pytest.mark.parametrize("ref", [SHA, SHA + "0" * 24])
def test_commits_of_both_lengths_are_taken(ref: str) -> None:
    assert SourceSpec.parse("hello", ref=ref, src="a/hello", pr="1").ref == ref


@pytest.mark.parametrize("ref", ["main", "fix/a-b", "1.0.0+1.0", "v1.0", "_x", "a@b", SHA])
def test_branches_and_tags_are_taken(ref: str) -> None:
    assert SourceSpec.parse("hello", ref=ref).ref == ref


@pytest.mark.parametrize(
    "src",
    [
        "http://169.254.169.254/x", "a", "a/b/c", "../b", "a/..", "a/.b", ".a/b", "-a/b", "a/b.git", "a b/c", "a/b\n", "a/",
        "/a", "a/b?x", "a@b/c", "a/b#c", "x" * 100 + "/b", "ext::sh/x", "a..b/c",
    ],
)  # fmt: skip
def test_hostile_src_is_refused(src: str) -> None:
    with pytest.raises(BadNameError, match="is no repository of the forge"):
        SourceSpec.parse("hello", ref=SHA, src=src)


@pytest.mark.parametrize("pr", ["0", "-1", "01", "1a", "1\n", "\u0661", "9" * 10, " 1", "+1"])
def test_hostile_pr_is_refused(pr: str) -> None:
    with pytest.raises(BadNameError, match="is no number of a pull request"):
        SourceSpec.parse("hello", ref=SHA, src="a/hello", pr=pr)


def test_pull_request_without_a_commit_is_refused() -> None:
    with pytest.raises(BadInputError, match="and no commit"):
        SourceSpec.parse("hello", src="a/hello", pr="1")


def test_folder_or_address_cannot_be_a_pull_request(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="a folder and a pull request"):
        SourceSpec.parse(str(tmp_path), ref=SHA, pr="1")
    with pytest.raises(BadInputError, match="an address and --recipe-src"):
        SourceSpec.parse("https://host/a/b", ref=SHA, src="a/b")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("https://host/org/Hello.git", "hello"),
        ("https://host/org/hello/", "hello"),
        ("https://user:password@host:3000/hello", "hello"),
        ("git@host.example:org/hello.git", "hello"),
        ("ssh://git@host:2222/org/hello.git", "hello"),
    ],
)
def test_address_gives_the_name(text: str, name: str) -> None:
    assert SourceSpec.parse(text).name == name


def test_credentials_are_shown_nowhere() -> None:
    assert without_credentials("at https://u:p@host/x and ssh://git@h/y") == "at https://host/x and ssh://h/y"
    assert without_credentials("https://u:p@ss@host/x") == "https://host/x"
    assert "secret" not in str(SourceSpec.parse("https://user:secret@host/hello"))


def test_error_of_git_does_not_show_credentials(tmp_path: Path) -> None:
    spec = SourceSpec.parse("https://user:secretword@127.0.0.1:1/hello")

    with pytest.raises(SourceError) as failed:
        fetch(spec, mirrors=tmp_path / "m", workdir=tmp_path / "w")

    assert "secretword" not in f"{failed.value}{failed.value.__cause__}"
    assert failed.value.cause is CauseClass.INFRASTRUCTURE


# A folder


def test_folder_is_taken_as_it_lies(world: World) -> None:
    folder = make_repository(world.root / "hello")
    commit(folder, {".gitignore": "*.log\n", "gone": "x", "dir/kept": "y"})
    (folder / "compose.yml").write_text("changed\n")
    (folder / "gone").unlink()
    (folder / "untracked file\n").write_text("u")
    (folder / "a.log").write_text("ignored")

    source = world.fetch(str(folder))

    assert head(source) == "changed\n"
    names = {str(path.relative_to(source.path)) for path in source.path.rglob("*")}
    assert names == {".gitignore", "compose.yml", "dir", "dir/kept", "untracked file\n"}
    assert source.dirty
    assert source.ref == git(folder, "rev-parse", "HEAD")
    assert source.origin == folder
    assert [str(version) for version in source.versions] == ["1.0.0+1.0", "1.1.0+1.1"]
    assert source.trusted
    assert source.is_default_branch


def test_folder_with_no_changes_is_not_dirty_and_its_tags_can_be_checked_out(world: World) -> None:
    source = world.fetch(str(make_repository(world.root / "hello")))

    old = source.checkout_version(source.versions[0], world.root / "old")

    assert not source.dirty
    assert (old / "compose.yml").read_text() == "old\n"
    assert source.commit_of(source.versions[0]) == git(world.root / "hello", "rev-parse", "1.0.0+1.0^{commit}")


def test_ref_of_a_folder_is_checked_out_whatever_lies_there(world: World) -> None:
    folder = make_repository(world.root / "hello")
    (folder / "compose.yml").write_text("changed\n")

    source = world.fetch(str(folder), ref="1.1.0+1.1")

    assert head(source) == "new\n"
    assert not source.dirty
    assert source.origin is None


def test_folder_has_no_such_ref(world: World) -> None:
    folder = make_repository(world.root / "hello")

    with pytest.raises(BadInputError, match="there is no 'nope' in"):
        world.fetch(str(folder), ref="nope")


def test_folder_outside_git_is_copied_whole_and_has_no_versions(world: World) -> None:
    folder = world.root / "hello"
    (folder / "sub").mkdir(parents=True)
    (folder / "compose.yml").write_text("plain\n")
    (folder / "sub" / "file").write_text("x")
    os.mkfifo(folder / "pipe")

    source = world.fetch(str(folder))

    assert (head(source), source.ref, source.versions, source.repository) == ("plain\n", "", (), None)
    assert (source.path / "sub" / "file").read_text() == "x"
    assert not (source.path / "pipe").exists()
    with pytest.raises(BadInputError, match="is no git repository"):
        world.fetch(str(folder), ref="main")


def test_folder_within_another_repository_has_no_versions_of_it(world: World) -> None:
    around = make_repository(world.root / "around")
    commit(around, {"recipes/hello/compose.yml": "inner\n"})

    source = world.fetch(str(around / "recipes" / "hello"))

    assert (head(source), source.versions, source.repository) == ("inner\n", (), None)


def test_link_out_of_a_folder_is_copied_as_a_link_and_none_is_followed(world: World) -> None:
    folder = make_repository(world.root / "hello")
    commit(folder, {"dir/passwd": "ours"})
    (folder / "dir" / "passwd").unlink()
    (folder / "dir").rmdir()
    (folder / "dir").symlink_to("/etc")
    (folder / "link").symlink_to("/etc/passwd")

    source = world.fetch(str(folder))

    assert (source.path / "link").is_symlink()
    assert (source.path / "dir").is_symlink()


def test_hooks_and_monitors_of_a_folder_do_not_run(world: World) -> None:
    folder = make_repository(world.root / "hello")
    trap = world.root / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {world.root}/sprung\n")
    trap.chmod(0o755)
    for hook in ("post-checkout", "post-index-change", "reference-transaction"):
        (folder / ".git" / "hooks" / hook).symlink_to(trap)
    git(folder, "config", "core.fsmonitor", str(trap))
    git(folder, "config", "filter.evil.smudge", str(trap))
    (folder / ".git" / "info" / "attributes").write_text("* filter=evil\n")

    world.fetch(str(folder))
    world.fetch(str(folder), ref="main")

    assert not (world.root / "sprung").exists()


def test_too_many_bytes_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SIZE_LIMIT", 1000)
    folder = make_repository(world.upstream / "hello.git")
    commit(folder, {"blob": "x" * 2000})

    with pytest.raises(BadInputError, match=r"2005 bytes, 1000 are allowed"):
        world.fetch("hello")
    with pytest.raises(BadInputError, match="more than 1000 bytes"):
        fetch(SourceSpec("x", "hello", folder=folder), mirrors=world.mirrors, workdir=world.root / "w")


# A name, an address, a pull request


def test_name_is_fetched_from_upstream(world: World) -> None:
    make_repository(world.upstream / "hello.git")

    source = world.fetch("hello")

    assert head(source) == "head\n"
    assert [str(version) for version in source.versions] == ["1.0.0+1.0", "1.1.0+1.1"]
    assert (source.branch, source.is_default_branch, source.trusted, source.dirty) == ("main", True, True, False)


def test_second_fetch_sees_what_is_new_and_not_what_is_gone(world: World) -> None:
    folder = make_repository(world.upstream / "hello.git")
    world.fetch("hello")
    commit(folder, {"compose.yml": "newer\n"}, tag="2.0.0+2.0")
    git(folder, "tag", "-d", "1.0.0+1.0")
    git(folder, "tag", "-f", "-a", "-m", "moved", "1.1.0+1.1", "HEAD")

    source = world.fetch("hello")

    assert head(source) == "newer\n"
    assert [str(version) for version in source.versions] == ["1.1.0+1.1", "2.0.0+2.0"]
    assert source.commit_of(source.versions[0]) == source.ref


def test_renamed_default_branch_is_followed(world: World) -> None:
    folder = make_repository(world.upstream / "hello.git")
    world.fetch("hello")
    git(folder, "branch", "-m", "trunk")
    commit(folder, {"compose.yml": "trunk\n"})

    source = world.fetch("hello")

    assert (head(source), source.branch) == ("trunk\n", "trunk")


def test_refs_of_a_name(world: World) -> None:
    folder = make_repository(world.upstream / "hello.git")
    git(folder, "checkout", "--quiet", "-b", "fix/a")
    sha = commit(folder, {"compose.yml": "branch\n"})
    git(folder, "checkout", "--quiet", "main")

    assert head(world.fetch("hello", ref="fix/a")) == "branch\n"
    assert head(world.fetch("hello", ref=sha)) == "branch\n"
    assert head(world.fetch("hello", ref="1.0.0+1.0")) == "old\n"
    assert not world.fetch("hello", ref=sha).is_default_branch
    with pytest.raises(BadInputError, match="there is no 'nope' in"):
        world.fetch("hello", ref="nope")


def test_unknown_recipe_is_the_users_error(world: World) -> None:
    world.upstream.mkdir()

    with pytest.raises(BadInputError, match="there is no repository"):
        world.fetch("nope")


def test_pull_request_is_fetched_by_its_commit_from_the_base_repository(world: World) -> None:
    make_repository(world.upstream / "hello.git")
    base = make_repository(world.forge / "org" / "hello.git")
    git(base, "checkout", "--quiet", "--detach")
    sha = commit(base, {"compose.yml": "pull\n"})
    git(base, "update-ref", "refs/pull/7/head", sha)
    git(base, "checkout", "--quiet", "main")
    commit(base, {"compose.yml": "later\n"}, tag="3.0.0+3.0")

    source = world.fetch("hello", ref=sha, src="org/hello", pr="7")

    assert (head(source), source.ref) == ("pull\n", sha)
    assert not source.trusted
    assert not source.is_default_branch
    # Published versions come from the base repository and from upstream.
    assert [str(version) for version in source.versions] == ["1.0.0+1.0", "1.1.0+1.1", "3.0.0+3.0"]


def test_versions_of_upstream_count_and_those_of_the_repository_itself_win(world: World) -> None:
    upstream = make_repository(world.upstream / "hello.git")
    commit(upstream, {"compose.yml": "theirs\n"}, tag="2.0.0+2.0")
    base = world.forge / "org" / "hello.git"
    base.mkdir(parents=True)
    git(base, "init", "--quiet", "-b", "main")
    sha = commit(base, {"compose.yml": "ours\n"}, tag="1.0.0+1.0")

    source = world.fetch("hello", ref=sha, src="org/hello", pr="1")

    assert [str(version) for version in source.versions] == ["1.0.0+1.0", "1.1.0+1.1", "2.0.0+2.0"]
    assert source.commit_of(source.versions[0]) == sha


def test_recipe_that_upstream_does_not_know_has_its_own_versions(world: World) -> None:
    world.upstream.mkdir()
    base = make_repository(world.forge / "org" / "hello.git")

    source = world.fetch("hello", ref=git(base, "rev-parse", "HEAD"), src="org/hello", pr="1")

    assert len(source.versions) == 2


def test_commit_of_another_repository_is_refused(world: World) -> None:
    make_repository(world.forge / "org" / "hello.git")
    fork = make_repository(world.forge / "mallory" / "hello.git")
    sha = commit(fork, {"compose.yml": "evil\n"})
    make_repository(world.upstream / "hello.git")

    world.fetch("hello", ref=sha, src="mallory/hello", pr="1")
    with pytest.raises(BadInputError, match=f"commit {sha} is not in"):
        world.fetch("hello", ref=sha, src="org/hello", pr="1")


def test_addresses_that_look_alike_have_mirrors_of_their_own(world: World) -> None:
    fork = make_repository(world.forge / "a_b" / "hello.git")
    sha = commit(fork, {"compose.yml": "evil\n"})
    make_repository(world.forge / "a-b" / "hello.git")
    make_repository(world.upstream / "hello.git")

    world.fetch("hello", ref=sha, src="a_b/hello", pr="1")
    with pytest.raises(BadInputError, match="is not in"):
        world.fetch("hello", ref=sha, src="a-b/hello", pr="1")


def test_tag_object_is_no_commit(world: World) -> None:
    folder = make_repository(world.upstream / "hello.git")

    with pytest.raises(BadInputError, match="is no commit, but a tag"):
        world.fetch("hello", ref=git(folder, "rev-parse", "1.0.0+1.0"))


def test_tags_that_are_no_versions_are_told_apart(world: World) -> None:
    folder = make_repository(world.upstream / "hello.git")
    blob = git(folder, "hash-object", "-w", "compose.yml")
    git(folder, "tag", "v1.0")
    git(folder, "tag", "1.2.0+light")
    git(folder, "update-ref", "refs/tags/--help", "HEAD")
    git(folder, "update-ref", "refs/tags/01.0.0+1.0", "HEAD")
    git(folder, "update-ref", "refs/tags/9.0.0+blob", blob)

    source = world.fetch("hello")

    assert [str(version) for version in source.versions] == ["1.0.0+1.0", "1.1.0+1.1", "1.2.0+light"]
    assert set(source.rejected) == {"v1.0", "--help", "01.0.0+1.0", "9.0.0+blob"}
    assert (source.checkout_version(Version.parse("1.2.0+light"), world.root / "light") / "compose.yml").is_file()


def test_attributes_of_a_repository_change_no_file_and_run_nothing(world: World) -> None:
    folder = make_repository(world.upstream / "hello.git")
    files = {
        ".gitattributes": "secret export-ignore\nstamp export-subst\nident ident\n*.txt eol=crlf\n"
        "*.enc working-tree-encoding=UTF-16\n* filter=evil\n",
        "secret": "kept",
        "stamp": "$Format:%H$",
        "ident": "$Id$",
        "a.txt": "a\nb\n",
        "a.enc": "a",
    }
    (folder / "link").symlink_to("/etc/passwd")
    (folder / ".git" / "info" / "attributes").write_text("* !eol !ident !filter !working-tree-encoding -text\n")
    commit(folder, {**files, "run.sh": "#!/bin/sh\n"})
    git(folder, "update-index", "--chmod=+x", "run.sh")
    git(folder, "commit", "--quiet", "-m", "x")

    source = world.fetch("hello")

    for name, text in files.items():
        assert (source.path / name).read_bytes() == text.encode()
    assert (source.path / "link").is_symlink()
    assert os.access(source.path / "run.sh", os.X_OK)
    assert not (source.path / ".git").exists()


def test_submodule_is_not_followed(world: World) -> None:
    folder = make_repository(world.upstream / "hello.git")
    sha = git(folder, "rev-parse", "HEAD")
    url = f"ext::sh -c touch% {world.root}/sprung"
    commit(folder, {".gitmodules": f'[submodule "sub"]\n\tpath = sub\n\turl = {url}\n'})
    git(folder, "update-index", "--add", "--cacheinfo", f"160000,{sha},sub")
    git(folder, "commit", "--quiet", "-m", "sub")

    source = world.fetch("hello")

    assert not (world.root / "sprung").exists()
    assert not any((source.path / "sub").glob("*"))


def test_twenty_thousand_tags_are_fetched_in_seconds(world: World) -> None:
    folder = make_repository(world.upstream / "hello.git")
    sha = git(folder, "rev-parse", "HEAD")
    git(folder, "update-ref", "--stdin", stdin="".join(f"create refs/tags/1.{n}.5+x {sha}\n" for n in range(20_000)))
    git(folder, "pack-refs", "--all")

    began = time.monotonic()
    source = world.fetch("hello")

    assert len(source.versions) == 20_002
    assert time.monotonic() - began < 15


# Mirrors


def _fetch_one(argument: tuple[Path, int]) -> str:
    root, number = argument
    world = World(root)
    return head(fetch(world.spec("hello"), mirrors=world.mirrors, workdir=root / f"process{number}" / "checkout"))


def test_processes_may_fetch_one_recipe_at_once(world: World) -> None:
    make_repository(world.upstream / "hello.git")

    with ProcessPoolExecutor(4) as pool:
        heads = list(pool.map(_fetch_one, [(world.root, number) for number in range(6)]))

    assert heads == ["head\n"] * 6
    assert len(list(world.mirrors.glob("*.git"))) == 1


def test_killed_clone_leaves_no_broken_mirror(world: World) -> None:
    make_repository(world.upstream / "hello.git")
    # A git that says that it clones, and then hangs.
    fake = world.root / "bin" / "git"
    fake.parent.mkdir()
    ready = world.root / "ready"
    os.mkfifo(ready)
    fake.write_text(f'#!/bin/sh\nfor last; do :; done\nmkdir -p "$last/refs"\necho $$ > {ready}\nexec sleep 60\n')
    fake.chmod(0o755)
    program = (
        "import sys; from pathlib import Path; from tests.unit.test_sources import World, fetch;"
        "w = World(Path(sys.argv[1]));"
        "fetch(w.spec('hello'), mirrors=w.mirrors, workdir=w.root / 'killed' / 'checkout')"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(world.root)],
        env={**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"},
        cwd=Path(__file__).parents[2],
    )
    git_pid = int(ready.read_text())
    child.kill()
    child.wait()
    os.kill(git_pid, signal.SIGKILL)

    assert not list(world.mirrors.glob("*.git"))
    assert head(world.fetch("hello")) == "head\n"
    assert {path.suffix for path in world.mirrors.iterdir()} == {".git", ".lock"}


@pytest.mark.parametrize("left", ["packed-refs.lock", "refs/heads/main.lock", "HEAD.lock", "shallow.lock"])
def test_lock_that_a_killed_git_left_in_a_mirror_is_removed(world: World, left: str) -> None:
    folder = make_repository(world.upstream / "hello.git")
    world.fetch("hello")
    (mirror,) = world.mirrors.glob("*.git")
    (mirror / left).touch()
    commit(folder, {"compose.yml": "newer\n"}, tag="2.0.0+2.0")

    assert head(world.fetch("hello")) == "newer\n"


def test_broken_mirror_is_cloned_again(world: World) -> None:
    make_repository(world.upstream / "hello.git")
    world.fetch("hello")
    (mirror,) = world.mirrors.glob("*.git")
    (mirror / "HEAD").write_text("")

    assert head(world.fetch("hello")) == "head\n"
