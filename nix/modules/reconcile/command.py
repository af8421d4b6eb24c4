"""The one call to other programs: argument lists, a deadline, secrets by file or stdin."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from .errors import CommandError

__all__ = ["run"]


def run(
    argv: Sequence[str],
    *,
    timeout: float = 120.0,
    env: Mapping[str, str] | None = None,
    input: bytes | None = None,
) -> str:
    """Run a program and return what it wrote to stdout.

    Raises:
        CommandError: It failed, is not there or took more than `timeout` seconds; both streams are shown.
    """
    try:
        done = subprocess.run(
            list(argv),
            env=dict(os.environ) | dict(env or {}),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=timeout,
            check=True,
        )
    except FileNotFoundError:
        raise CommandError(
            f"there is no program `{argv[0]}`", hint="the unit's `path` in nix/modules names it"
        ) from None
    except subprocess.TimeoutExpired as error:
        shown = _shown(error.stdout, error.stderr)
        raise CommandError(f"`{' '.join(argv)}` took more than {timeout:.0f} s: {shown}") from None
    except subprocess.CalledProcessError as error:
        shown = _shown(error.stdout, error.stderr)
        raise CommandError(f"`{' '.join(argv)}` ended with {error.returncode}: {shown}") from None
    return done.stdout.decode(errors="replace")


def _shown(stdout: bytes | None, stderr: bytes | None) -> str:
    text = b"\n".join(stream.strip() for stream in (stdout, stderr) if stream and stream.strip())
    return text.decode(errors="replace")[-4000:] or "it wrote nothing"
