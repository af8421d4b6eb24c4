"""The host's services, brought up on a real swarm by the programs that its units run."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nix.host import Host, docker

pytestmark = pytest.mark.swarm


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path / "host")
    try:
        yield host
    finally:
        host.remove()


@pytest.mark.slow
def test_blank_host_converges_and_stays_as_it_is(host: Host) -> None:
    first = host.converge()
    tasks = host.tasks()

    second = host.converge()

    assert first.count("converged") == 4
    assert second.count("as wished, nothing changed") == 4
    assert host.tasks() == tasks
    assert len(tasks) == 3


@pytest.mark.slow
def test_each_drift_is_repaired(host: Host) -> None:
    host.converge()
    image = "coopcloud-lab/hello:1.1.0"

    docker("service", "rm", f"{host.stack('drone')}_app")
    assert f"the service {host.stack('drone')}_app is gone" in host.run("drone").stderr
    docker("service", "update", "--quiet", "--detach", "--image", image, f"{host.stack('bridge')}_app")
    assert "was changed by hand" in host.run("bridge").stderr
    (host.folder / "abra/servers/default" / f"drone.{host.base}.env").unlink()
    assert ".env is not there" in host.run("drone").stderr

    spec = json.loads(docker("service", "inspect", f"{host.stack('bridge')}_app"))[0]["Spec"]
    assert spec["TaskTemplate"]["ContainerSpec"]["Image"] != image
    assert host.converge().count("nothing changed") == 4


@pytest.mark.slow
def test_deleted_overlay_is_made_again(host: Host) -> None:
    host.converge()
    old = docker("network", "inspect", "--format", "{{.ID}}", host.network)
    host.remove()

    host.converge()

    assert docker("network", "inspect", "--format", "{{.ID}}", host.network) != old


@pytest.mark.slow
def test_new_certificate_is_served(host: Host) -> None:
    host.converge("swarm", "proxy")
    old = host.served_certificate()
    host.new_certificate()

    said = host.converge("proxy")

    served = host.served_certificate()
    assert served != old
    assert served in (host.folder / "fullchain.pem").read_text()
    assert "a secret has changed" in said
    secrets = docker(
        "secret", "ls", "--format", "{{.Name}}", "--filter", f"name={host.stack('proxy')}_ssl_cert"
    ).split()
    assert len(secrets) == 1, "the old certificate's secret stays"


def test_failing_predecessor_stops_the_chain_with_its_reason(host: Host) -> None:
    host.converge("swarm")
    (host.folder / "privkey.pem").write_text("")

    proxy, drone = host.run("proxy"), host.run("drone")

    assert proxy.returncode == drone.returncode == 1
    assert "the secret ssl_key" in proxy.stderr
    assert "proxy comes first and has failed: the secret ssl_key" in drone.stderr
    assert not docker("stack", "services", "--quiet", host.stack("drone"))


def test_predecessor_that_broke_since_stops_the_chain(host: Host) -> None:
    host.converge("swarm", "proxy")
    docker("service", "rm", f"{host.stack('proxy')}_app")

    drone = host.run("drone")

    assert drone.returncode == 1
    assert "proxy comes first and is not well" in drone.stderr


def test_image_that_is_missing_ends_the_wait_at_once(host: Host) -> None:
    host.converge("swarm")
    (host.folder / "bridge.json").write_text(
        (host.folder / "bridge.json").read_text().replace("hello:1.0.0", "nowhere:9")
    )

    bridge = host.run("bridge", RECONCILE_AFTER="swarm", RECONCILE_TIMEOUT="600")

    assert bridge.returncode == 1
    assert "No such image" in bridge.stderr


def test_second_run_waits_for_the_first(host: Host) -> None:
    host.converge("swarm")

    first, second = (host.start("bridge", RECONCILE_AFTER="swarm") for _ in range(2))
    said = first.communicate(timeout=100)[1], second.communicate(timeout=100)[1]

    assert (first.returncode, second.returncode) == (0, 0), said
    assert sorted("another run holds the lock" in text for text in said) == [False, True]
    assert sorted("bridge: converged" in text for text in said) == [False, True]
    assert sorted("nothing changed" in text for text in said) == [False, True]
