"""Whether virtual IPs route on this engine.

Swarm gives each service a virtual IP that the kernel's IPVS spreads over its tasks. A kernel without IPVS (some containers
and micro-VMs) has the address and no route behind it, so services of a stack do not reach each other. Then, and only then,
services are deployed with `endpoint_mode: dnsrr`, where a name leads to the tasks themselves.

It is asked by doing it: one service, one client, on a network of their own. The answer is kept for the engine.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from pytest_coopcloud.docker import Docker
from pytest_coopcloud.errors import EngineError
from pytest_coopcloud.inventory import run_labels
from pytest_coopcloud.naming import RunName

__all__ = ["virtual_ips_route"]

PORT = 8080
CLIENT_TIMEOUT = 15
START_TIMEOUT = 30.0
#: Seconds that an answer is good for.
KEEP = 86400.0


def virtual_ips_route(docker: Docker, name: RunName, cache: Path, image: str) -> bool:
    """Tell whether a service's virtual IP leads to its task.

    Args:
        docker: The engine.
        name: The run, which owns what the probe creates.
        cache: A folder in which the answer is kept.
        image: An image of Traefik, which can be both the server and the client here.
    """
    key = f"{docker.info.get('ID')} {docker.info.get('KernelVersion')} {docker.info.get('ServerVersion')}"
    file = cache / "virtual-ips.json"
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(file.read_text())
        if known["engine"] == key and time.time() - known["asked_at"] < KEEP:
            return bool(known["route"])
    route = _ask(docker, name, image)
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"engine": key, "asked_at": time.time(), "route": route}))
    return route


def _ask(docker: Docker, name: RunName, image: str) -> bool:
    probe = f"{name.run_id}-vip"
    labels = run_labels(name.run_id)
    api = docker.api
    ping = ["--ping=true", "--ping.entryPoint=ping", "--global.checkNewVersion=false"]
    network = docker.create_network(probe, labels)
    service = ""
    try:
        template: dict[str, Any] = {
            "ContainerSpec": {
                "Image": image,
                "Args": [*ping, f"--entryPoints.ping.address=:{PORT}"],
                "Labels": labels,
                "StopGracePeriod": 0,
            },
            "Networks": [{"Target": network}],
        }
        service = api.create_service(
            template, name=probe, labels=labels, mode={"Replicated": {"Replicas": 1}}, endpoint_spec={"Mode": "vip"}
        )["ID"]
        _until_running(docker, service)
        return _client(docker, name, image, ["healthcheck", *ping, f"--entryPoints.ping.address={probe}:{PORT}"], probe)
    finally:
        if service:
            docker.remove("service", service)
            deadline = time.monotonic() + START_TIMEOUT
            filters = f"com.docker.swarm.service.name={probe}"
            while time.monotonic() < deadline and (found := docker.containers(label=filters)):
                for container in found:
                    docker.remove("container", container["Id"])
        deadline = time.monotonic() + START_TIMEOUT
        while not docker.remove("network", network) and time.monotonic() < deadline:
            time.sleep(0.05)


def _until_running(docker: Docker, service: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not any(task["Status"]["State"] == "running" for task in docker.tasks(service=service)):
        if time.monotonic() > deadline:
            errors = {
                str(task["Status"].get("Err") or task["Status"]["State"]) for task in docker.tasks(service=service)
            }
            raise EngineError(f"a probe service did not start in {START_TIMEOUT:g} s: {', '.join(errors) or 'no task'}")
        time.sleep(0.05)  # tasks have no events


def _client(docker: Docker, name: RunName, image: str, argv: list[str], network: str) -> bool:
    api = docker.api
    made = api.create_container(
        image,
        command=argv,
        name=f"{name.run_id}-vip-client",
        labels=run_labels(name.run_id),
        networking_config=api.create_networking_config({network: api.create_endpoint_config()}),
    )
    try:
        api.start(made["Id"])
        # The client is Traefik's own: it gives up after 5 s.
        return int(api.wait(made["Id"], timeout=CLIENT_TIMEOUT)["StatusCode"]) == 0
    finally:
        docker.remove("container", made["Id"])
