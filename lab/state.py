"""What a lab is made of: its folder, its ports, who can log in, and the secrets made for it when it was first started.

Everything lies in one folder outside the checkout: `$COOPCLOUD_LAB_STATE`, or `$XDG_STATE_HOME/coopcloud-ci/lab`. One
file, `lab.json`, says all; it is written before what it names is made, so that a start which was cut off goes on where it was.
"""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

from pydantic import BaseModel, Field

__all__ = ["CI_REPO", "HOST", "ORG", "UPSTREAM", "Account", "Lab", "default_folder"]

HOST = "127.0.0.1"
#: The organisation whose members may start a test; it owns the recipes' mirrors and the CI repository.
ORG = "recipe-maintainers"
#: The organisation that published versions come from.
UPSTREAM = "coop-cloud"
CI_REPO = f"{ORG}/ci"

_PORTS = ("gitea", "drone", "runner", "bridge", "dashboard")


class Account(BaseModel):
    """Somebody who can log in to the forge.

    Attributes:
        role: What this account is for, in words.
        tokens: The account's API tokens, by what they are for.
    """

    login: str
    role: str
    password: str = Field(default_factory=lambda: secrets.token_urlsafe(12))
    tokens: dict[str, str] = Field(default_factory=dict)


def _accounts() -> dict[str, Account]:
    people = (
        Account(login="keeper", role="administrator of the forge and of Drone"),
        Account(login="maya", role=f"maintainer, member of {ORG}: may say !testme"),
        Account(login="sam", role="stranger: may not"),
        Account(login="testme-bot", role="the bridge on the forge"),
        Account(login="testme-builds", role="the bridge in Drone"),
    )
    return {account.login: account for account in people}


class Lab(BaseModel):
    """One lab, as `lab.json` holds it.

    Attributes:
        folder: Where all of it lies.
        pulls: The number of the open pull request of each sample recipe.
        linked: Whether forge, Drone and runner have been introduced to each other.
        bridge: More settings of the bridge.
    """

    folder: Path
    ports: dict[str, int] = Field(default_factory=dict)
    accounts: dict[str, Account] = Field(default_factory=_accounts)
    rpc_secret: str = Field(default_factory=lambda: secrets.token_hex(24))
    cookie_secret: str = Field(default_factory=lambda: secrets.token_hex(24))
    webhook_secret: str = Field(default_factory=lambda: secrets.token_hex(24))
    forge_secret: str = Field(default_factory=lambda: secrets.token_hex(24))
    # The forge wants 32 bytes in this form.
    oauth_signing_secret: str = Field(default_factory=lambda: secrets.token_urlsafe(32))
    drone_admin_token: str = Field(default_factory=lambda: secrets.token_hex(16))
    drone_bridge_token: str = ""
    oauth_id: str = ""
    oauth_secret: str = ""
    pulls: dict[str, int] = Field(default_factory=dict)
    linked: bool = False
    bridge: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> Lab:
        """Return the lab in `folder`, a new one where there is none."""
        file = folder / "lab.json"
        if file.exists():
            return cls.model_validate_json(file.read_text(encoding="utf-8"))
        return cls(folder=folder)

    def save(self) -> None:
        """Write `lab.json`, for its owner's eyes only."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self.folder / "lab.json", self.model_dump_json(indent=1))

    def url(self, name: str) -> str:
        """Where a server of this lab answers."""
        return f"http://{HOST}:{self.ports[name]}"

    @property
    def state(self) -> Path:
        """The runs' own state folder, `$COOPCLOUD_CI_STATE`."""
        return self.folder / "ci"

    def choose_ports(self) -> None:
        """Keep the ports that are still free, and choose others for those that are not."""
        # All sockets stay open until all ports are chosen, so that no two are the same.
        held: list[socket.socket] = []
        try:
            for name in _PORTS:
                listener = socket.socket()
                held.append(listener)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    listener.bind((HOST, self.ports.get(name, 0)))
                except OSError:
                    listener.bind((HOST, 0))
                self.ports[name] = listener.getsockname()[1]
        finally:
            for listener in held:
                listener.close()


def write_private(path: Path, text: str) -> Path:
    """Write a file that only its owner can read; a reader sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path


def default_folder() -> Path:
    """Where the lab of this user lies."""
    given = os.environ.get("COOPCLOUD_LAB_STATE")
    if given:
        return Path(given).absolute()
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "coopcloud-ci" / "lab"
