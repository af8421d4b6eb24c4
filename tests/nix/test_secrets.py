"""The secrets of a host, encrypted and decrypted for real with sops and age."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives import serialization

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coopcloud-ci" / "nix"


@pytest.fixture(scope="module")
def path_with_sops() -> str:
    found = [str(path.parent) for path in sorted(CACHE.glob("sops-*/sops"))]
    if not found and shutil.which("sops") is None:
        pytest.skip("no sops here: `./dev nix` builds it")
    return ":".join([*found, os.environ["PATH"]])


@dataclass(frozen=True)
class Made:
    """What bootstrap has made."""

    file: Path
    key: Path
    ssh_key: Path
    path: str

    def decrypt(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sops", "--decrypt", "--extract", '["drone_rpc_secret"]', str(self.file)],
            env={"PATH": self.path, "HOME": str(self.key.parent / "nobody"), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, path_with_sops: str) -> Made:
    folder = tmp_path_factory.mktemp("secrets")
    ssh_key = folder / "ssh_host_ed25519_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh_key)], check=True, timeout=60)
    bootstrap = [str(ROOT / "secrets" / "bootstrap"), "--output", str(folder / "out"), "--host", "cc-ci"]
    subprocess.run(
        [*bootstrap, "--ssh-host-key", f"{ssh_key}.pub"],
        env=os.environ | {"PATH": path_with_sops},
        check=True,
        capture_output=True,
        timeout=60,
    )
    return Made(file=folder / "out" / "cc-ci.yaml", key=folder / "out.key", ssh_key=ssh_key, path=path_with_sops)


def ssh_to_age() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ssh_to_age", ROOT / "secrets" / "ssh_to_age.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def age_key_of(ssh_key: Path) -> str:
    """The private half of the conversion, as sops-nix does it on the host."""
    private = serialization.load_ssh_private_key(ssh_key.read_bytes(), password=None)
    seed = private.private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )
    scalar = hashlib.sha512(seed).digest()[:32]
    return str(ssh_to_age().bech32("age-secret-key-", scalar)).upper()


def test_bootstrap_key_decrypts(made: Made) -> None:
    done = made.decrypt(SOPS_AGE_KEY_FILE=str(made.key))

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 64


def test_ssh_host_key_decrypts(made: Made) -> None:
    done = made.decrypt(SOPS_AGE_KEY=age_key_of(made.ssh_key))

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 64


def test_wrong_key_is_refused(made: Made, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    subprocess.run(["age-keygen", "-o", str(other)], check=True, capture_output=True, timeout=60)

    done = made.decrypt(SOPS_AGE_KEY_FILE=str(other))

    assert done.returncode != 0
    assert done.stdout == ""


def test_made_file_has_the_keys_of_the_example_and_no_plain_value(made: Made) -> None:
    def keys(text: str) -> set[str]:
        return {line.partition(":")[0] for line in text.splitlines() if line[:1].isalpha()}

    text = made.file.read_text()

    assert keys(text) - {"sops"} == keys((ROOT / "secrets" / "example.yaml").read_text())
    assert text.count("ENC[") >= len(keys(text)) - 1
    assert made.key.stat().st_mode & 0o077 == 0


def test_second_bootstrap_changes_nothing(made: Made) -> None:
    before = made.file.read_bytes()
    bootstrap = [str(ROOT / "secrets" / "bootstrap"), "--output", str(made.file.parent), "--host", "cc-ci"]

    done = subprocess.run(bootstrap, env=os.environ | {"PATH": made.path}, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "is there already" in done.stderr
    assert made.file.read_bytes() == before


def test_example_has_every_secret_that_the_module_asks_for(made: Made) -> None:
    module = (ROOT / "nix" / "modules" / "secrets.nix").read_text()
    example = (ROOT / "secrets" / "example.yaml").read_text()

    names = {line.partition(":")[0] for line in example.splitlines() if line[:1].isalpha()}

    assert [name for name in names if name not in module] == []
