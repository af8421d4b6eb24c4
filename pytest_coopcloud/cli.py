"""The one door to other programs.

An argument list, never a shell string; secrets go through `input` or files, never through arguments. A child runs in a
session of its own with no terminal and no standard input, from `/` (the working directory may be deleted under a run), and
is killed with everything it started when its deadline passes or the run is interrupted.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pytest_coopcloud.errors import CLIError, CLITimeoutError

__all__ = ["OUTPUT_LIMIT", "RUN_ID_VARIABLE", "Completed", "run"]

#: Of more output than this, in bytes, only the beginning and the end are kept.
OUTPUT_LIMIT = 4 * 1024 * 1024

#: Every process of a run carries this variable, so that the reaper finds those that outlive it.
RUN_ID_VARIABLE = "COOPCLOUD_RUN_ID"


@dataclass(frozen=True)
class Completed:
    """A command that ended.

    Attributes:
        argv: The command, secrets blotted out.
        returncode: Its exit code; negative for a signal.
        stdout: What it printed, as UTF-8, secrets blotted out.
        stderr: What it complained about, likewise.
        duration_seconds: How long it took.
    """

    argv: list[str]
    returncode: int
    stdout: str
    stderr: str
    duration_seconds: float


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str | bytes | None = None,
    redact: Callable[[str], str] | None = None,
    check: bool = True,
    log: Path | None = None,
) -> Completed:
    """Run a command and return what it printed.

    Args:
        argv: The command and its arguments.
        timeout: Seconds until it is killed.
        cwd: Where it runs; `/` by default.
        env: Its whole environment; that of this process by default.
        input: What it reads on standard input; by default that is empty.
        redact: Blots secrets out of everything that is returned, raised or logged.
        check: Whether an exit code other than 0 raises.
        log: A file that the command, its exit code and its output are appended to.

    Raises:
        CLIError: It ended with another code than 0 (and `check`), or could not be started.
        CLITimeoutError: It took longer than `timeout`.

    Example:
        >>> run(["git", "--version"], timeout=10).stdout.startswith("git version")
        True
    """
    clean = redact or (lambda text: text)
    words = [os.fspath(word) for word in argv]
    shown = [clean(word) for word in words]
    environment = None if env is None else dict(env)
    if environment is not None and RUN_ID_VARIABLE in os.environ:
        environment[RUN_ID_VARIABLE] = os.environ[RUN_ID_VARIABLE]
    data = input.encode() if isinstance(input, str) else input
    began = time.monotonic()
    # Files instead of pipes: a grandchild that keeps the pipe open cannot hold us, and no output is too much to hold.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            child = subprocess.Popen(
                words,
                cwd=cwd or Path("/"),
                env=environment,
                stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        except OSError as error:
            raise CLIError(
                shown, None, "", "", message=f"`{words[0]}` cannot be started: {error.strerror}", hint=_hint(words[0])
            ) from error
        timed_out = False
        try:
            child.communicate(data, timeout=timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            if child.poll() is None:
                _kill_session(child)
        completed = Completed(
            argv=shown,
            returncode=child.returncode,
            stdout=clean(_read(out)),
            stderr=clean(_read(err)),
            duration_seconds=time.monotonic() - began,
        )
    if log is not None:
        _append(log, completed, timed_out=timed_out)
    if timed_out:
        raise CLITimeoutError(
            shown,
            None,
            completed.stdout,
            completed.stderr,
            message=f"`{' '.join(shown)}` did not end within {timeout:g} s and was killed:\n"
            f"{completed.stderr.strip() or completed.stdout.strip() or '(it printed nothing)'}",
        )
    if check and completed.returncode != 0:
        raise CLIError(shown, completed.returncode, completed.stdout, completed.stderr)
    return completed


def _hint(command: str) -> str:
    return f"install `{command}`, or put it on PATH"


def _kill_session(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _read(stream: IO[bytes]) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if size <= OUTPUT_LIMIT:
        return stream.read().decode("utf-8", "replace")
    half = OUTPUT_LIMIT // 2
    head = stream.read(half)
    stream.seek(size - half)
    tail = stream.read(half)
    return f"{head.decode('utf-8', 'replace')}\n[... {size - 2 * half} bytes left out ...]\n{tail.decode('utf-8', 'replace')}"


def _append(log: Path, completed: Completed, *, timed_out: bool) -> None:
    ended = "killed at its deadline" if timed_out else f"exit {completed.returncode}"
    lines = [f"$ {shlex.join(completed.argv)}", f"# {ended}, {completed.duration_seconds:.2f} s"]
    lines += [f"  {line}" for line in completed.stdout.splitlines()]
    lines += [f"! {line}" for line in completed.stderr.splitlines()]
    # A log that cannot be written (full disk) must not end the run.
    with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
