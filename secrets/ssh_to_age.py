"""Print the age recipient of an SSH ed25519 public key: `python3 ssh_to_age.py ssh_host_ed25519_key.pub`.

sops-nix turns the host's private SSH key into an age key on the host. This is the public half of the same conversion: the
point of the Edwards curve becomes a point of the Montgomery curve, u = (1 + y) / (1 - y), written in Bech32.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable
from pathlib import Path

P = 2**255 - 19
ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def recipient(public_key: str) -> str:
    """Return the age recipient of a line of an SSH public key file.

    Raises:
        ValueError: It is no ed25519 key.
    """
    kind, _, rest = public_key.strip().partition(" ")
    blob = base64.b64decode(rest.split(" ")[0]) if kind == "ssh-ed25519" else b""
    if len(blob) != 51:
        raise ValueError(f"{kind[:40]!r} is no ssh-ed25519 key: give the host's ssh_host_ed25519_key.pub")
    y = int.from_bytes(blob[-32:], "little") & (2**255 - 1)
    u = (1 + y) * pow(1 - y, P - 2, P) % P
    return bech32("age", u.to_bytes(32, "little"))


def bech32(prefix: str, data: bytes) -> str:
    """Return `data` in Bech32 (BIP 173)."""
    digits = list(_in_fives(data))
    expanded = [ord(letter) >> 5 for letter in prefix] + [0] + [ord(letter) & 31 for letter in prefix]
    checksum = _polymod([*expanded, *digits, *[0] * 6]) ^ 1
    digits += [checksum >> 5 * (5 - place) & 31 for place in range(6)]
    return prefix + "1" + "".join(ALPHABET[digit] for digit in digits)


def _in_fives(data: bytes) -> Iterable[int]:
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    return (int(bits[start : start + 5], 2) for start in range(0, len(bits), 5))


def _polymod(digits: Iterable[int]) -> int:
    value = 1
    for digit in digits:
        top = value >> 25
        value = (value & 0x1FFFFFF) << 5 ^ digit
        for place, generator in enumerate(GENERATORS):
            value ^= generator if top >> place & 1 else 0
    return value


if __name__ == "__main__":
    try:
        print(recipient(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except (IndexError, OSError, ValueError) as error:
        sys.exit(f"ssh_to_age: {error}")
