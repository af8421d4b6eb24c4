"""The deployer by itself, with the stand-in and a small recipe on a real engine: what it creates, checks and removes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_coopcloud.backupbot import BackupBot
from pytest_coopcloud.deployers import abra as deployer_module
from pytest_coopcloud.deployers import default_deployer
from pytest_coopcloud.docker import Docker
from pytest_coopcloud.errors import BadRecipeError, CLIError, CLITimeoutError, CoopCloudError, Unverified
from pytest_coopcloud.inventory import RUN_LABEL, Kind, owned
from pytest_coopcloud.ledger import Ledger
from pytest_coopcloud.results import CauseClass
from tests.abra.ground import Ground
from tests.swarm.killable import make_recipe

pytestmark = [pytest.mark.swarm]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, recipe_of: Callable[..., Path]) -> Path:
    recipe_of("hello")  # its images
    return make_recipe(tmp_path_factory.mktemp("recipes") / "killable")


@pytest.fixture
def ground(
    docker: Docker, recipe: Path, tmp_path: Path, standin: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Ground]]:
    made: list[Ground] = []
    monkeypatch.setenv("COOPCLOUD_CI_STATE", str(tmp_path / "state"))

    def make(
        version: str = "0.13",
        misbehave: str = "",
        *,
        at: Path = recipe,
        ref: str = "",
        secrets: dict[str, str] | None = None,
    ) -> Ground:
        monkeypatch.setenv("PATH", standin(version, misbehave))
        made.append(Ground.make(docker, tmp_path, at, ref=ref, secrets=secrets))
        return made[-1]

    yield make
    for one in made:
        one.end()


# What it creates


@pytest.mark.parametrize("version", ["0.9", "0.13"])
def test_the_head_is_deployed_as_this_commit_and_removed_without_a_rest(
    ground: Callable[..., Ground], version: str
) -> None:
    here = ground(version)

    deployment = here.deployer.deploy(here.head, {})

    assert here.labels()["chaos"] == "true"
    assert here.head.ref.startswith(here.labels()["chaos-version"].partition("+")[0])
    assert here.labels()["version"] == "1.1.0+1.1.0"
    assert [mount.volume for mount in deployment.mounts] == [f"{here.name.prefix}www"]
    (mark,) = here.docker.configs(name=f"{here.name.prefix}run")
    assert mark["Spec"]["Labels"][RUN_LABEL] == here.name.run_id
    owned_things = Ledger.read(here.deployer.site.folder).owned
    assert {f"config {here.name.prefix}run", f"service {here.name.prefix}app", f"volume {here.name.prefix}www",
            f"secret {here.name.prefix}token_v1"} <= set(owned_things)  # fmt: skip

    here.converge()
    here.deployer.undeploy()

    assert here.left() == [f"config {here.name.prefix}run"]
    assert not here.deployer.home.env_file.exists()
    assert here.verbs() == [
        "app new",
        "app secret generate",
        "app deploy",
        "app undeploy",
        "app volume rm",
        "app secret rm",
    ]


@pytest.mark.parametrize("version", ["0.9", "0.13"])
def test_a_published_version_is_deployed_untouched_then_the_head_in_place(
    ground: Callable[..., Ground], version: str
) -> None:
    here = ground(version)
    monitored = "at the recipe's own interval"

    before = here.deployer.deploy(here.published(), {})
    pinned = "TYPE=killable:1.0.0+1.0.0\n" in here.deployer.home.env_file.read_text()
    labels = here.labels()
    here.deployer.upgrade(here.head, {})

    assert (labels["chaos"], labels["version"]) == ("false", "1.0.0+1.0.0")
    assert pinned == (version != "0.9")
    assert monitored in before.note
    assert here.labels()["chaos"] == "true"
    deploys = [call for call in here.calls() if call[:2] == ["app", "deploy"]]
    assert deploys[0][-2:] == [here.name.domain, "1.0.0+1.0.0"]
    assert not {"--chaos", "--force"} & set(deploys[0])
    assert {"--chaos", "--force"} <= set(deploys[1])
    assert deploys[1][-1] == here.name.domain


def test_published_versions_are_moved_between_with_upgrade_and_rollback(
    ground: Callable[..., Ground], tmp_path: Path
) -> None:
    recipe = make_recipe(tmp_path / "killable")
    git = ["git", "-C", str(recipe), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "tag", "-a", "-m", "new", "1.1.0+1.1.0"], check=True)
    here = ground(at=recipe)

    here.deployer.deploy(here.published("1.0.0+1.0.0"), {})
    here.deployer.upgrade(here.published("1.1.0+1.1.0"), {})
    assert here.labels()["version"] == "1.1.0+1.1.0"
    here.deployer.upgrade(here.published("1.0.0+1.0.0"), {})

    assert here.labels()["version"] == "1.0.0+1.0.0"
    assert here.verbs()[-3:] == ["app deploy", "app upgrade", "app rollback"]


def test_two_at_once_deploy_their_own_commit_each(ground: Callable[..., Ground], recipe: Path) -> None:
    old = subprocess.run(["git", "-C", str(recipe), "rev-parse", "HEAD^"], check=True, capture_output=True, text=True)
    one, other = ground(), ground(ref=old.stdout.strip())

    one.deployer.deploy(one.head, {})
    other.deployer.deploy(replace(other.head, version="1.0.0+1.0.0"), {})

    assert one.head.ref != other.head.ref
    for here in (one, other):
        assert here.head.ref.startswith(here.labels()["chaos-version"].partition("+")[0])
    images = [here.docker.services(name=f"{here.name.prefix}app")[0]["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
              for here in (one, other)]  # fmt: skip
    assert images == ["coopcloud-lab/hello:1.1.0", "coopcloud-lab/hello:1.0.0"]


# Secrets


def test_a_secret_of_the_enrolment_goes_through_a_file(ground: Callable[..., Ground]) -> None:
    here = ground(secrets={"token": "a-token-of-the-enrolment"})

    here.deployer.deploy(here.head, {})

    assert "app secret insert" in here.verbs()
    assert "app secret generate" not in here.verbs()
    assert "a-token-of-the-enrolment" not in (here.folder / "calls").read_text()
    assert here.deployer.site.redactor.clean("a-token-of-the-enrolment") == "[secret token]"
    assert not (here.deployer.home.folder / "secret").exists()


def test_a_generated_secret_is_blotted_out(ground: Callable[..., Ground]) -> None:
    here = ground()

    here.deployer.deploy(here.head, {})

    here.converge()
    value = here.docker.exec(here.container(), ["cat", "/run/secrets/token"]).output
    assert len(value) == 20
    assert here.deployer.site.redactor.clean(f"token={value}") == "token=[secret generated by abra]"
    assert value not in here.deployer.site.log.read_text()


def test_a_secret_that_only_the_head_has_is_made_where_abra_reads_an_older_version(
    ground: Callable[..., Ground], tmp_path: Path
) -> None:
    recipe = make_recipe(tmp_path / "killable")
    compose = recipe / "compose.yml"
    text = compose.read_text().replace("secrets: [token]", "secrets: [token, second]")
    compose.write_text(
        text + "  second:\n    external: true\n    name: ${STACK_NAME}_second_${SECRET_SECOND_VERSION}\n"
    )
    with (recipe / ".env.sample").open("a") as sample:
        sample.write("SECRET_SECOND_VERSION=v1\n")
    here = ground("0.9", at=recipe)

    deployment = here.deployer.deploy(here.head, {})

    assert "secret " + f"{here.name.prefix}second_v1" in here.left()
    assert "abra generated no secret second" in deployment.note


def test_a_secret_that_may_not_be_invented_is_asked_for(ground: Callable[..., Ground], tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path / "killable")
    sample = recipe / ".env.sample"
    sample.write_text(sample.read_text().replace("# length=20", "# generate=false"))
    here = ground(at=recipe)

    with pytest.raises(BadRecipeError, match="secrets that are not generated: token"):
        here.deployer.deploy(here.head, {})


# Misbehaviour that the engine sees


def test_an_abra_that_fails_after_deploying_leaves_a_cause_and_nothing_for_the_next(
    ground: Callable[..., Ground], standin: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ground(misbehave="fails-after")

    with pytest.raises(CLIError, match="deploy timed out") as raised:
        here.deployer.deploy(here.head, {})
    assert raised.value.cause is CauseClass.INFRASTRUCTURE
    assert f"service {here.name.prefix}app" in here.left()

    monkeypatch.setenv("PATH", standin())
    here.deployer.deploy(here.head, {})
    here.deployer.undeploy()
    assert here.left() == [f"config {here.name.prefix}run"]


def test_an_abra_that_undeploys_nothing_is_named_and_all_is_removed(
    ground: Callable[..., Ground], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployer_module, "UNDEPLOY_TIMEOUT", 0.5)
    here = ground(misbehave="undeploys-nothing")
    here.deployer.deploy(here.head, {})

    with pytest.raises(CoopCloudError, match=r"ended with 0, and 0\.5 s later there are still the services app"):
        here.deployer.undeploy()

    assert here.left() == [f"config {here.name.prefix}run"]


def test_an_abra_that_deploys_another_version_is_found_out(ground: Callable[..., Ground]) -> None:
    here = ground(misbehave="moves-the-checkout")

    with pytest.raises(
        CoopCloudError, match=r"service app is coopcloud-lab/hello:1\.0\.0, not coopcloud-lab/hello:1\.1\.0"
    ):
        here.deployer.deploy(here.head, {})


def test_an_abra_that_hangs_when_it_deploys_ends_within_its_deadline(
    ground: Callable[..., Ground], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COOPCLOUD_ABRA_TIMEOUT", "2")
    here = ground(misbehave="hangs:app deploy")

    with pytest.raises(CLITimeoutError, match="did not end within 2 s"):
        here.deployer.deploy(here.head, {})


# Backups


def test_no_backup_bot_is_unverified_and_says_how_to_deploy_it(
    ground: Callable[..., Ground], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ground()
    here.deployer.adopt(here.head)
    monkeypatch.setattr(here.docker, "services", lambda **filters: [])

    with pytest.raises(Unverified, match="no backup-bot-two runs on this server") as raised:
        here.deployer.backup()

    assert "abra app new backup-bot-two" in raised.value.hint


def test_what_is_planted_comes_back_from_the_archive_alone(ground: Callable[..., Ground], backupbot: str) -> None:
    here = ground()
    here.deployer.deploy(here.head, {})
    here.converge()
    here.docker.put_file(here.container(), "/var/www/planted", b"data")
    archive = here.deployer.backup()
    here.deployer.undeploy(keep_secrets=True)
    assert f"secret {here.name.prefix}token_v1" in here.left()
    here.deployer.deploy(here.head, {})
    here.converge()
    assert here.docker.get_file(here.container(), "/var/www/planted") is None
    here.deployer.restore(archive)

    planted = f"/var/lib/docker/volumes/{here.name.prefix}www/_data/planted"
    assert archive.paths[planted] == 4
    assert here.docker.get_file(here.container(), "/var/www/planted") == b"data"

    bot = BackupBot.find(here.docker)
    assert [known for known in bot.snapshots(here.name) if known.startswith(archive.id)]
    here.deployer.discard()
    assert bot.snapshots(here.name) == []


# The stand-in against an engine


def test_the_stand_in_refuses_what_abra_refuses(ground: Callable[..., Ground], monkeypatch: pytest.MonkeyPatch) -> None:
    here = ground()
    abra, domain, checkout = here.deployer.abra, here.name.domain, here.deployer.home.checkout
    here.deployer._mark()
    here.deployer.home.lay(here.published())
    abra.app_new("killable", "1.0.0+1.0.0", server="default", domain=domain, chaos=False)

    def refused(*argv: str) -> str:
        done = abra._call(["app", *argv], 60, check=False)
        assert done.returncode == 1, done.stdout
        return done.stderr

    assert "already exists" in refused("new", "-n", "--server=default", f"--domain={domain}", "killable")
    assert "secret not generated: token" in refused("deploy", "-n", "-D", "-c", domain)
    abra.app_secret_generate(domain)
    assert "cannot go together" in refused("deploy", "-n", "-C", domain, "1.0.0+1.0.0")
    (checkout / "untracked").write_text("")
    assert "locally unstaged changes" in refused("deploy", "-n", "-D", "-c", domain)
    (checkout / "untracked").unlink()
    assert "is not deployed" in refused("undeploy", "-n", domain)
    abra.app_deploy(domain, version="1.0.0+1.0.0")
    assert "already deployed" in refused("deploy", "-n", "-D", "-c", domain, "1.0.0+1.0.0")
    assert "is not newer than" in refused("upgrade", "-n", "-D", "-c", domain, "1.0.0+1.0.0")
    assert "still deployed" in refused("volume", "rm", "-n", domain)
    here.converge()
    abra.app_undeploy(domain)
    kinds = {thing.kind for thing in owned(here.docker, here.name).things}
    assert {Kind.VOLUME, Kind.SECRET} <= kinds


# Which deployer


def test_abra_is_the_default_where_it_is_on_path(standin: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert default_deployer() == "swarm"

    monkeypatch.setenv("PATH", standin())
    assert default_deployer() == "abra"
