"""A host in a folder: the reconcile programs with their settings, on the engine of this machine, under names of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
HELLO = "coopcloud-lab/hello:1.0.0"


def docker(*argv: str) -> str:
    return subprocess.run(["docker", *argv], capture_output=True, text=True, check=True, timeout=60).stdout


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Host:
    """The chain swarm, proxy, drone, bridge; drone and bridge are the image hello."""

    folder: Path
    base: str = field(default_factory=lambda: f"nixt-{secrets.token_hex(2)}.test")
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        shutil.copytree(HERE / "recipes", self.folder / "abra" / "recipes")
        self.network = self.base.replace(".", "-")
        (self.folder / "token").write_text("a-token-of-no-worth\n")
        (self.folder / "bridge.json").write_text(json.dumps(self._compose()))
        self.new_certificate()

    def new_certificate(self) -> None:
        cert = trustme.CA().issue_cert(self.base, f"*.{self.base}")
        cert.cert_chain_pems[0].write_to_path(self.folder / "fullchain.pem")
        cert.private_key_pem.write_to_path(self.folder / "privkey.pem")

    def stack(self, name: str) -> str:
        return f"{name}.{self.base}".replace(".", "_")

    def environment(self, name: str, **more: str) -> dict[str, str]:
        (self.folder / f"{name}.env").write_text("".join(f"{k}={v}\n" for k, v in self._app_env(name).items()))
        return {
            "PATH": f"{HERE / 'standin' / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT / "nix" / "modules"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "ABRA_DIR": str(self.folder / "abra"),
            "CREDENTIALS_DIRECTORY": str(self.folder),
            "RECONCILE_NAME": name,
            "RECONCILE_STATE_DIR": str(self.folder / "state"),
            "RECONCILE_NETWORK": self.network,
            "RECONCILE_ADVERTISE": "127.0.0.1",
            "RECONCILE_DOMAIN": f"{name}.{self.base}",
            "RECONCILE_APP_ENV": str(self.folder / f"{name}.env"),
            "RECONCILE_TIMEOUT": "40",
            **self._special(name),
            **more,
        }

    def command(self, name: str) -> list[str]:
        command = {"swarm": "swarm", "bridge": "stack"}.get(name, "app")
        return [sys.executable, "-m", "reconcile", command]

    def start(self, name: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(name),
            env=self.environment(name, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(name),
            env=self.environment(name, **more),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def converge(self, *names: str) -> str:
        """Run the units in order, as systemd does; return all they said."""
        said = ""
        for name in names or ("swarm", "proxy", "drone", "bridge"):
            done = self.run(name)
            assert done.returncode == 0, done.stderr
            said += done.stderr
        return said

    def tasks(self) -> set[str]:
        return {
            task
            for name in ("proxy", "drone", "bridge")
            for task in docker("stack", "ps", "--quiet", "--filter", "desired-state=running", self.stack(name)).split()
        }

    def served_certificate(self) -> str:
        """The certificate that openssl is shown, PEM."""
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", "-servername", f"drone.{self.base}"],
            input="",
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        begin = done.stdout.index("-----BEGIN")
        return done.stdout[begin : done.stdout.index("-----END CERTIFICATE-----") + len("-----END CERTIFICATE-----")]

    def remove(self) -> None:
        """Take down all that it may have made."""
        stacks = [self.stack(name) for name in ("proxy", "drone", "bridge")]
        subprocess.run(["docker", "stack", "rm", *stacks], capture_output=True, check=True, timeout=60)
        with subprocess.Popen(
            ["docker", "events", "--filter", "type=container", "--format", "{{.Action}}"], stdout=subprocess.PIPE
        ) as events:
            for stack in stacks:
                for container in docker("ps", "-aq", "--filter", f"label=com.docker.stack.namespace={stack}").split():
                    subprocess.run(["docker", "rm", "-f", container], capture_output=True, check=False, timeout=60)
            events.kill()
        for secret in docker("secret", "ls", "--format", "{{.Name}}").split():
            if secret.startswith(tuple(f"{stack}_" for stack in stacks)):
                docker("secret", "rm", secret)
        # A network goes when its last task is gone: the engine says when by refusing until then.
        for _ in range(200):
            if self.network not in docker("network", "ls", "--format", "{{.Name}}").split():
                return
            subprocess.run(["docker", "network", "rm", self.network], capture_output=True, check=False, timeout=60)
        raise AssertionError(f"the network {self.network} does not go")

    def _app_env(self, name: str) -> dict[str, str]:
        if name == "proxy":
            image = docker(
                "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "label=coopcloud.pytest.tool=traefik"
            )
            return {
                "LETS_ENCRYPT_ENV": "",
                "WILDCARDS_ENABLED": "1",
                "COMPOSE_FILE": "compose.yml:compose.wildcard.yml",
                "PORT": str(self.port),
                "TRAEFIK_IMAGE": image.split()[0],
            }
        return {"NETWORK": self.network}

    def _special(self, name: str) -> dict[str, str]:
        if name == "swarm":
            octet = int(self.base[5:7], 16)
            return {"RECONCILE_SUBNET": f"10.{180 + octet % 40}.{octet & 0xF0}.0/20"}
        if name == "proxy":
            return {
                "RECONCILE_AFTER": "swarm",
                "RECONCILE_RECIPE": "traefik",
                "RECONCILE_SECRETS": "ssl_cert:SECRET_WILDCARD_CERT_VERSION:fullchain.pem "
                "ssl_key:SECRET_WILDCARD_KEY_VERSION:privkey.pem",
                "RECONCILE_PROBE": f"tls://drone.{self.base}",
                "RECONCILE_PROBE_ADDRESS": f"127.0.0.1:{self.port}",
                "RECONCILE_PROBE_CERTIFICATE": "fullchain.pem",
            }
        token = {"RECONCILE_SECRETS": "token:TOKEN_VERSION:token"}
        if name == "drone":
            return token | {"RECONCILE_AFTER": "proxy", "RECONCILE_RECIPE": "hello"}
        return token | {
            "RECONCILE_AFTER": "drone",
            "RECONCILE_COMPOSE": str(self.folder / "bridge.json"),
            "RECONCILE_IMAGE": HELLO,
        }

    def _compose(self) -> dict[str, Any]:
        return {
            "version": "3.8",
            "services": {
                "app": {
                    "image": HELLO,
                    "init": True,
                    "stop_grace_period": "1s",
                    "networks": [self.network],
                    "secrets": ["token"],
                }
            },
            "networks": {self.network: {"external": True}},
            "secrets": {"token": {"external": True, "name": "${STACK_NAME}_token_${TOKEN_VERSION}"}},
        }
