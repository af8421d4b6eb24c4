"""The `abra` verbs that the host needs. Flags stand right after the verb: every generation of abra reads them there."""

from __future__ import annotations

import os
from pathlib import Path

from .command import run

__all__ = ["Abra"]

SERVER = "default"


class Abra:
    """abra for the engine of this host, which it calls the server `default`."""

    def __init__(self, home: Path | None = None) -> None:
        """Use `home`, or `ABRA_DIR`, or `~/.abra`."""
        self.home = home or Path(os.environ.get("ABRA_DIR") or Path.home() / ".abra")
        self._env = {"ABRA_DIR": str(self.home), "LANG": "C"}

    def env_file(self, domain: str) -> Path:
        """Return where the `.env` of an app is."""
        return self.home / "servers" / SERVER / f"{domain}.env"

    def app_deploy(self, domain: str, version: str, *, force: bool, timeout: float) -> None:
        """Deploy an app; whether it became healthy is for the caller to see."""
        options = ["-n", "-D", "-c", *(["-f"] if force else [])]
        self._abra("app", "deploy", *options, domain, *([version] if version else []), timeout=timeout)

    def app_new(self, domain: str, recipe: str, version: str) -> None:
        """Make the `.env` of an app from its recipe."""
        self._abra(
            "app",
            "new",
            "-n",
            "--server",
            SERVER,
            "--domain",
            domain,
            recipe,
            *([version] if version else []),
            timeout=300,
        )

    def secret_insert(self, domain: str, name: str, version: str, file: Path) -> None:
        """Create a secret from a file."""
        self._abra("app", "secret", "insert", "-n", "-f", domain, name, version, str(file))

    def server_add_local(self) -> None:
        """Make the server `default`, where it is not there yet."""
        if not (self.home / "servers" / SERVER).is_dir():
            self._abra("server", "add", "--local")

    def _abra(self, *arguments: str, timeout: float = 120.0) -> str:
        return run(["abra", *arguments], timeout=timeout, env=self._env)
