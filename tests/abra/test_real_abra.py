"""What we believe of abra and only a real one can show: `pytest -m real_abra`, which prints what held.

Each test is one statement, its first line. What is tolerated where it does not hold is marked so; everything else must hold.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_coopcloud.abra import ASK_TIMEOUT, NEWEST, OLDEST, TABLE, Abra
from pytest_coopcloud.backupbot import BackupBot
from pytest_coopcloud.docker import Docker
from pytest_coopcloud.errors import CLIError, Unverified
from pytest_coopcloud.inventory import Kind, owned
from tests.abra.ground import Ground
from tests.swarm.killable import make_recipe

if shutil.which("abra") is None:
    pytest.skip("there is no `abra` on PATH, and only a real one can show what it does", allow_module_level=True)

pytestmark = [pytest.mark.real_abra, pytest.mark.swarm, pytest.mark.slow]

FLAGS = [(name, flag) for name, command in TABLE.items() for flag in command.flags]


@pytest.fixture(scope="module")
def abra(tmp_path_factory: pytest.TempPathFactory) -> Abra:
    home = tmp_path_factory.mktemp("abra")
    (home / "servers" / "default").mkdir(parents=True)
    return Abra(home)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, recipe_of: Callable[..., Path]) -> Path:
    recipe_of("hello")  # its images
    return make_recipe(tmp_path_factory.mktemp("recipes") / "killable")


@pytest.fixture
def ground(docker: Docker, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    monkeypatch.setenv("COOPCLOUD_CI_STATE", str(tmp_path / "state"))
    made = Ground.make(docker, tmp_path, recipe)
    yield made
    made.end()


def test_version(abra: Abra) -> None:
    """`abra --version` names a version from 0.9 to 0.13."""
    assert OLDEST <= abra.version.number[:2] <= NEWEST


@pytest.mark.parametrize(
    ("name", "flag"), [(n, f) for n, f in FLAGS if f.sure], ids=lambda part: getattr(part, "long", part)
)
def test_flag(abra: Abra, name: str, flag: object) -> None:
    """`--help` names a flag that we give without asking."""
    assert f"--{flag.long}" in abra.help(*TABLE[name].words)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "flag"), [(n, f) for n, f in FLAGS if not f.sure], ids=lambda part: getattr(part, "long", part)
)
def test_flag_that_may_be_missing(abra: Abra, name: str, flag: object) -> None:
    """`--help` names a flag that we give only then (tolerated)."""
    if not abra._spelling(TABLE[name], flag):  # type: ignore[arg-type]
        pytest.xfail("not there")


def test_unknown_flag(abra: Abra) -> None:
    """An unknown flag ends abra with another code than 0."""
    assert abra._call(["app", "ls", "--no-such-flag"], ASK_TIMEOUT, check=False).returncode != 0


def test_failure(abra: Abra) -> None:
    """A command that fails ends with another code than 0, and prints no JSON to stdout."""
    with pytest.raises(CLIError):
        abra.app_undeploy("no-such-app.ci.localhost")


def test_server_ls(abra: Abra) -> None:
    """`server ls -m` prints a list of objects with `name`, and a folder in `servers/` is a server."""
    assert "default" in [server["name"] for server in abra.server_ls()]


def test_app_new_chaos(ground: Ground) -> None:
    """`app new` needs no network: a clone without a remote and a seeded catalogue are enough."""
    ground.deployer.home.lay(ground.head)
    ground.deployer.abra.app_new("killable", server="default", domain=ground.name.domain, chaos=True)

    assert ground.deployer.home.env_file.is_file()
    apps = [app for server in ground.deployer.abra.app_ls().values() for app in server["apps"]]
    assert ground.name.domain in [app["domain"] for app in apps]


def test_app_new_version(ground: Ground) -> None:
    """`app new RECIPE VERSION` checks that version out and (from 0.10) pins it as `TYPE=RECIPE:VERSION`."""
    ground.deployer.home.lay(ground.head)
    ground.deployer.abra.app_new("killable", "1.0.0+1.0.0", server="default", domain=ground.name.domain, chaos=False)

    assert "1.0.0+1.0.0" in (ground.deployer.home.checkout / "compose.yml").read_text()
    if ground.deployer.abra.version.number >= (0, 10, 0):
        assert ground.deployer.home.written_type() == "killable:1.0.0+1.0.0"


def test_recipe_versions(ground: Ground) -> None:
    """`recipe versions -m` lists the tags of a recipe that is only cloned (tolerated: we read tags ourselves)."""
    ground.deployer.home.lay(ground.head)
    try:
        found = str(ground.deployer.abra.recipe_versions("killable"))
    except CLIError as error:
        pytest.xfail(error.message)
    if "1.0.0+1.0.0" not in found:
        pytest.xfail(found[:200])


def test_head(ground: Ground) -> None:
    """`deploy -C -f` deploys the checkout as it lies, and the label `chaos-version` is the beginning of its commit."""
    ground.deployer.deploy(ground.head, {})

    assert ground.labels()["chaos"] == "true"
    assert ground.head.ref.startswith(ground.labels()["chaos-version"].partition("+")[0])


def test_published_then_head(ground: Ground) -> None:
    """A published version is deployed by argument, and `deploy -C -f` moves it to the head in place."""
    ground.deployer.deploy(ground.published(), {})
    assert ground.labels()["version"] == "1.0.0+1.0.0"

    ground.deployer.upgrade(ground.head, {})
    assert ground.labels()["chaos"] == "true"


def test_deploy_twice(ground: Ground) -> None:
    """A second `deploy` of a version without `-f` is refused (tolerated: we never do that)."""
    ground.deployer.deploy(ground.published(), {})
    ground.deployer.home.lay(ground.published())
    try:
        ground.deployer.abra.app_deploy(ground.name.domain, version="1.0.0+1.0.0")
    except CLIError:
        return
    pytest.xfail("it is not")


def test_converge_checks(ground: Ground) -> None:
    """With `-c` a deploy returns without waiting for convergence."""
    ground.deployer.deploy(ground.head, {})
    ground.converge()


def test_secret_values(ground: Ground) -> None:
    """`secret generate -m` prints the values, and we find them in it to blot them out."""
    ground.deployer.deploy(ground.head, {})
    ground.converge()
    value = ground.docker.exec(ground.container(), ["cat", "/run/secrets/token"]).output

    assert len(value) == 20
    assert ground.deployer.site.redactor.clean(value) != value


def test_secret_ls(ground: Ground) -> None:
    """`secret ls -m` prints a list with `name` (tolerated: we ask Docker)."""
    ground.deployer.deploy(ground.head, {})
    try:
        rows = ground.deployer.abra.app_secret_ls(ground.name.domain)
    except CLIError as error:
        pytest.xfail(error.message)
    if [row.get("name") for row in rows] != ["token"]:
        pytest.xfail(str(rows)[:200])


def test_env_in_container(ground: Ground) -> None:
    """The keys of the `.env` are in the environment of service `app`, `TYPE` among them (tolerated)."""
    ground.deployer.deploy(ground.head, {})
    (service,) = ground.docker.services(name=f"{ground.name.prefix}app")
    names = {entry.partition("=")[0] for entry in service["Spec"]["TaskTemplate"]["ContainerSpec"].get("Env") or []}

    assert "DOMAIN" in names
    if not names & {"TYPE", "RECIPE"}:
        pytest.xfail(f"only {sorted(names)}")


def test_undeploy(ground: Ground) -> None:
    """`undeploy` removes the services and leaves volumes and secrets; `volume rm` and `secret rm` take those."""
    abra, domain = ground.deployer.abra, ground.name.domain
    ground.deployer.deploy(ground.head, {})
    ground.converge()

    abra.app_undeploy(domain)
    ground.deployer._until_undeployed()
    kinds = {thing.kind for thing in owned(ground.docker, ground.name).things}
    assert {Kind.VOLUME, Kind.SECRET} <= kinds
    ground.deployer.undeploy()

    assert ground.deployer._remarks == []
    assert ground.left() == [f"config {ground.name.prefix}run"]


def test_backup(ground: Ground, docker: Docker) -> None:
    """`backup create` and `restore` go through backup-bot-two, whose container has restic (needs one deployed)."""
    try:
        BackupBot.find(docker)
    except Unverified as error:
        pytest.xfail(error.message)
    ground.deployer.deploy(ground.head, {})
    ground.converge()
    docker.put_file(ground.container(), "/var/www/planted", b"data")

    archive = ground.deployer.backup()
    docker.exec(ground.container(), ["rm", "/var/www/planted"])
    ground.deployer.restore(archive)

    assert docker.get_file(ground.container(), "/var/www/planted") == b"data"
    ground.deployer.discard()
