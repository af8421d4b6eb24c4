"""No secret material is in git."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Written in pieces, so that this file does not find itself.
FORBIDDEN = {
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE " + rb"KEY-----\s*\n[A-Za-z0-9+/=\s]{40}"),
    "an age key": re.compile(rb"AGE-SECRET-" + rb"KEY-1[0-9A-Z]{58}"),
    "a forge or cloud token": re.compile(rb"\b(?:ghp|gho|glpat|xoxb|AKIA)" + rb"[_-]?[A-Za-z0-9]{20,}"),
}
NAMES = re.compile(r"(^|/)(key\.txt|privkey\.pem|id_(rsa|ed25519)|[^/]*\.(key|p12|pfx|kdbx))$")


def found_in(content: bytes) -> list[str]:
    return [what for what, pattern in FORBIDDEN.items() if pattern.search(content)]


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=60)
    return [name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_file_holds_secret_material() -> None:
    assert {name: found for name in tracked() if (found := found_in((ROOT / name).read_bytes()))} == {}


def test_no_file_is_named_like_a_key() -> None:
    assert [name for name in tracked() if NAMES.search(name)] == []


@pytest.mark.parametrize(
    "content",
    [
        "-----BEGIN OPENSSH PRIVATE " + "KEY-----\n" + "b3BlbnNzaC1rZXktdjE" * 4,
        "AGE-SECRET-" + "KEY-1" + "Q" * 58,
        "ghp_" + "a1B2" * 9,
    ],
)
def test_secret_material_is_recognised(content: str) -> None:
    assert found_in(content.encode())
