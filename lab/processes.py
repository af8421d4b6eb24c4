"""Start and stop the lab's processes: each is a line of `lab/Procfile`, run by honcho, with its own settings and log.

Whatever belongs to a lab carries the lab's folder in its environment (`COOPCLOUD_LAB`), its children included, so that the
remains of a lab that was killed are found without pid files. Nothing else is ever signalled.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from lab.state import Lab, write_private

__all__ = ["MARK", "LabError", "Process", "await_answer", "find", "kill", "log_file", "start", "stop", "stop_all"]

MARK = "COOPCLOUD_LAB"
NAMED = "COOPCLOUD_LAB_PROCESS"
PROCFILE = Path(__file__).parent / "Procfile"
CHECKOUT = Path(__file__).parent.parent


class LabError(Exception):
    """The lab cannot do what it was asked; the message says what to look at."""


@dataclass(frozen=True)
class Process:
    """A living process of a lab: its id, which line of the Procfile it belongs to, and its command."""

    pid: int
    name: str
    command: str

    @property
    def is_honcho(self) -> bool:
        """Whether it is the manager of its line, and not the program itself."""
        return "honcho" in self.command


def log_file(lab: Lab, name: str) -> Path:
    """Where a process's output goes."""
    return lab.folder / "logs" / f"{name}.log"


def start(lab: Lab, name: str, settings: dict[str, str]) -> None:
    """Start one line of the Procfile with `settings`; return before it answers (see `await_answer`)."""
    # Quoted as honcho's reader wants it; none of our values holds a quote or a line's end.
    text = "".join(f"{key}='{value}'\n" for key, value in sorted(settings.items()))
    env_file = write_private(lab.folder / "env" / f"{name}.env", text)
    log = log_file(lab, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(lab.folder / "home"),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        MARK: str(lab.folder),
        NAMED: name,
    }
    (lab.folder / "home").mkdir(exist_ok=True)
    with log.open("ab") as output:
        # A child of nobody here: it is to live on when we end, and to leave no zombie while we do not.
        subprocess.run(
            [
                *("setsid", "--fork", sys.executable, "-m", "honcho", "start", "--no-colour", "--no-prefix"),
                *("-d", str(CHECKOUT), "-f", str(PROCFILE), "-e", str(env_file), name),
            ],
            cwd=CHECKOUT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=True,
        )


def find(lab: Lab, name: str = "") -> list[Process]:
    """List the living processes of a lab, or of one line of its Procfile, the oldest first."""
    mark = f"{MARK}={lab.folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # A process may end, or belong to somebody else, while it is looked at.
        with contextlib.suppress(OSError):
            environ = (entry / "environ").read_bytes().split(b"\0")
            if mark not in environ:
                continue
            own = next((item for item in environ if item.startswith(f"{NAMED}=".encode())), b"=").decode()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if command and (not name or own == f"{NAMED}={name}"):
                found.append(Process(int(entry.name), own.partition("=")[2], command))
    return sorted(found, key=lambda process: process.pid)


def stop(lab: Lab, name: str = "", *, timeout: float = 20.0) -> list[Process]:
    """End the processes of one line, or all: SIGTERM, and after `timeout` seconds SIGKILL; 0: SIGKILL at once."""
    ended = []
    steps = [(signal.SIGTERM, timeout)] if timeout else []
    for sign, patience in (*steps, (signal.SIGKILL, 5.0)):
        with contextlib.ExitStack() as stack:
            # A handle holds the process itself: its id may be another's by the time the signal is sent.
            handles = {}
            for process in find(lab, name):
                with contextlib.suppress(ProcessLookupError):
                    handles[os.pidfd_open(process.pid)] = process
            for handle, process in handles.items():
                stack.callback(os.close, handle)
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, sign)
                ended.append(process)
            deadline = time.monotonic() + patience
            waiting = set(handles)
            while waiting and (left := deadline - time.monotonic()) > 0:
                waiting -= set(select.select(list(waiting), [], [], left)[0])
        if not find(lab, name):
            return ended
    left_over = ", ".join(f"{process.pid} ({process.command[:60]})" for process in find(lab, name))
    raise LabError(f"these processes of the lab do not end: {left_over}")


def kill(lab: Lab, name: str) -> None:
    """End the processes of one line at once, as a crash does."""
    stop(lab, name, timeout=0.0)


def stop_all(lab: Lab) -> None:
    """End all, in the order that lets each finish: nobody starts a build, then nobody runs one, then the servers."""
    for name in ("bridge", "runner", "dashboard", "drone", "gitea", ""):
        stop(lab, name)


def await_answer(
    lab: Lab, name: str, path: str, *, timeout: float = 60.0, accept: Callable[[httpx.Response], bool] | None = None
) -> float:
    """Wait until a server answers at `path`; return the seconds it took.

    A server tells nobody when it begins to listen, so it is asked, ever more rarely.

    Raises:
        LabError: It ended, or did not answer in time; the message ends with its log.
    """
    began = time.monotonic()
    pause = 0.02
    last = "nothing listens"
    accept = accept or (lambda response: response.status_code == 200)
    with httpx.Client(timeout=5.0, trust_env=False) as client:
        while (waited := time.monotonic() - began) < timeout:
            try:
                response = client.get(f"{lab.url(name)}{path}")
                if accept(response):
                    return waited
                last = f"it answers {response.status_code}"
            except httpx.HTTPError as error:
                last = f"{type(error).__name__}: {error}"
            if not find(lab, name):
                raise LabError(f"{name} ended before it answered.\n{tail(lab, name)}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)
    raise LabError(f"{name} does not answer at {lab.url(name)}{path} after {timeout:.0f} s: {last}.\n{tail(lab, name)}")


def tail(lab: Lab, name: str, lines: int = 15) -> str:
    """Return the end of a process's log."""
    log = log_file(lab, name)
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:] if log.exists() else []
    return f"--- the end of {log}\n" + "\n".join(text)
