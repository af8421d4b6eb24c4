"""The modules, evaluated against declared options by nix itself; and that a mistake in one is found."""

import importlib.machinery
import importlib.util
import itertools
import json
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("nix-instantiate") is None, reason="no nix here: `./dev nix` installs it")

SITE = {
    "domain": "ci.example.org",
    "forgeUrl": "https://git.example.org",
    "repository": "maintainers/recipe-ci",
    "membersOrganisation": "maintainers",
}


def evaluate(what: str, module: str = "{}") -> subprocess.CompletedProcess[str]:
    expression = f'(import {ROOT}/nix/checks/stubs {{ root = "/stub"; modules = [ ({module}) ]; }}).{what}'
    return subprocess.run(
        ["nix-instantiate", "--eval", "--strict", "--json", "--expr", expression],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def value(what: str, module: str = "{}") -> Any:
    done = evaluate(what, module)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def compose_of(services: dict[str, Any], name: str) -> str:
    path: str = services[f"coopcloud-ci-{name}"]["environment"]["RECONCILE_COMPOSE"]
    return path.removeprefix("/text/")


@pytest.fixture(scope="module")
def check() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("nix_check", str(ROOT / "nix" / "check"))
    spec = importlib.util.spec_from_loader("nix_check", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_outputs_of_the_flake() -> None:
    assert value("inputs") == ["nixpkgs", "sops-nix"]
    assert sorted(value("hosts")) == ["cc-ci", "cc-ci-hetzner", "cc-ci-incus"]
    assert {"bridge-image", "cc-ci-run", "dashboard-image", "pytest-coopcloud"} < set(value("packages"))


def test_hosts_fail_no_assertion() -> None:
    assert {name: host["failures"] for name, host in value("hosts").items() if host["failures"]} == {}


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        ("{ coopcloud-ci.swarm.enabel = true; }", "`coopcloud-ci.swarm.enabel` does not exist"),
        ("{ systemd.services.x.serviceconfig = {}; }", "`systemd.services.x.serviceconfig` does not exist"),
        ("{ coopcloud-ci.swarm.subnet = 16; }", "wants a string like"),
        ('{ coopcloud-ci.swarm = { enable = true; subnet = "10.0.0.0/24"; }; }', "wants a string like"),
        (
            "{ lib, ... }: { options.x = lib.mkOption { type = lib.types.bool; default = true; }; }",
            "`x` has no description",
        ),
        ("{ coopcloud-ci.droneRunner.enable = true; }", "`coopcloud-ci.repository` has no value"),
    ],
)
def test_mistake_is_found(module: str, complaint: str) -> None:
    force = "{ config, ... }: { warnings = builtins.deepSeq [ config.coopcloud-ci.swarm (config.x or null) ] []; }"

    done = evaluate("extra", f"{{ imports = [ ({module}) ({force}) ]; }}")

    assert done.returncode != 0
    assert complaint in done.stderr


def test_assertion_names_the_way_out() -> None:
    site = " ".join(f'{key} = "{value}";' for key, value in SITE.items())

    failures = value("extra.failures", f"{{ coopcloud-ci = {{ {site} proxy.enable = true; }}; }}")

    assert failures == ["coopcloud-ci.proxy needs a swarm: set coopcloud-ci.swarm.enable = true"]


def test_chain_is_in_order_and_each_waits_for_the_former() -> None:
    services = value("hosts.cc-ci.units.services")
    chain = ["swarm", "proxy", "drone", "bridge", "dashboard", "backupbot"]

    for former, name in itertools.pairwise(chain):
        unit = services[f"coopcloud-ci-{name}"]
        assert f"coopcloud-ci-{former}.service" in unit["requires"]
        assert f"coopcloud-ci-{former}.service" in unit["after"]
        assert unit["environment"]["RECONCILE_AFTER"] == former
        assert "RemainAfterExit" not in unit["serviceConfig"]


def test_runner_has_the_settings_of_the_checklist() -> None:
    unit = value("hosts.cc-ci.units.services.drone-runner-exec")

    environment = unit["environment"]
    assert environment["DRONE_LIMIT_EVENTS"] == "custom,push"
    assert environment["DRONE_LIMIT_REPOS"] == "recipe-maintainers/recipe-ci"
    assert environment["DRONE_RUNNER_CAPACITY"] == environment["MAX_TESTS"] == "1"
    assert environment["DRONE_HTTP_BIND"].startswith("127.0.0.1:")
    assert "DRONE_RPC_SECRET" not in environment
    assert int(environment["COOPCLOUD_RUN_TIMEOUT"]) < 60 * 60


def test_settings_of_bridge_and_dashboard_exist() -> None:
    from bridge.settings import setting_rows as bridge_rows
    from dashboard.settings import setting_rows as dashboard_rows

    services = value("hosts.cc-ci.units.services")

    for name, rows in (("bridge", bridge_rows()), ("dashboard", dashboard_rows())):
        compose = json.loads(compose_of(services, name))
        assert set(compose["services"]["app"]["environment"]) <= {row.name for row in rows}


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker client here")
@pytest.mark.parametrize("name", ["bridge", "dashboard"])
def test_docker_reads_the_compose_file(name: str) -> None:
    services = value("hosts.cc-ci.units.services")

    done = subprocess.run(
        ["docker", "stack", "config", "-c", "-"],
        input=compose_of(services, name),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "traefik.http.routers" in done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here: `./dev nix` installs it")
def test_units_are_read_by_systemd(check: ModuleType) -> None:
    assert "units" in check.check_units()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck here: `./dev nix` installs it")
def test_scripts_pass_shellcheck(check: ModuleType) -> None:
    assert "scripts" in check.check_scripts()
