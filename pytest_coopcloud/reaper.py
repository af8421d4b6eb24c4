"""What takes a run's app down when the run is dead.

A process of its own, in a session of its own, started before the first object is created. While it waits it is this file
alone on a bare interpreter: it holds the run's lock (the same open file) and listens to a pipe and to the run's pidfd, so
the kernel wakes it the moment the run dies, however it dies. Then it becomes `python -m pytest_coopcloud reap`, which does
what the run would have done: `teardown.take_down`, from the ledger.

It also knows when the stage and the run must have ended. A run that outlives that by a grace is asked to end, then killed.

Messages on the pipe, one a line: `deadline <monotonic seconds> <stage>`, `done`.
"""

from __future__ import annotations

# Nothing but the bare interpreter here: this process waits through every run.
import os
import select
import signal
import sys
import time

#: A run that is past its deadline has so long (seconds) to notice it by itself, and so long to end when it is asked to.
GRACE = float(os.environ.get("COOPCLOUD_REAPER_GRACE") or 20.0)
ASKED = float(os.environ.get("COOPCLOUD_REAPER_PATIENCE") or 15.0)
DIED_FILE = "died"
LOG_FILE = "reaper.log"


class Watch:
    """The waiting part."""

    def __init__(self, folder: str, pid: int, pipe: int) -> None:
        self.folder, self.pid, self.pipe = folder, pid, pipe
        self.pidfd = os.pidfd_open(pid)
        self.deadline, self.stage = 0.0, ""
        self._rest = b""

    def wait(self) -> bool:
        """Wait for the run. True when it ended in order, False when it is dead and its app is ours to take down."""
        poll = select.poll()
        poll.register(self.pipe, select.POLLIN)
        poll.register(self.pidfd, select.POLLIN)
        while True:
            left = None
            if self.deadline:
                left = max(0, int((self.deadline + GRACE - time.monotonic()) * 1000))
            ready = dict(poll.poll(left))
            if self.pipe in ready and self._read():
                return True
            if self.pidfd in ready or (self.pipe in ready and self._closed):
                return False
            if self.deadline and time.monotonic() >= self.deadline + GRACE:
                self._end()
                return False

    _closed = False

    def _read(self) -> bool:
        data = os.read(self.pipe, 65536)
        self._closed = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            if word == "done":
                return True
            if word == "deadline":
                moment, _, self.stage = rest.partition(" ")
                self.deadline = float(moment)
        return False

    def _end(self) -> None:
        """End a run that is past its deadline."""
        with open(os.path.join(self.folder, DIED_FILE), "w") as stream:  # noqa: PTH118, PTH123 - no pathlib here
            stream.write(f"timed out in {self.stage}")
        for number, patience in ((signal.SIGTERM, ASKED), (signal.SIGKILL, ASKED)):
            say(f"the run is past its deadline in {self.stage}: {number.name}")
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                return
            if select.select([self.pidfd], [], [], patience)[0]:
                return


def say(text: str) -> None:
    """Write a line into the reaper's log."""
    print(time.strftime("%Y-%m-%dT%H:%M:%S"), text, flush=True)


def main(argv: list[str]) -> None:
    """Wait for a run, then become the one who takes its app down."""
    folder, pid, pipe = argv[0], int(argv[1]), int(argv[2])
    os.chdir("/")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        watch = Watch(folder, pid, pipe)
        if os.getppid() != pid:
            raise ProcessLookupError(pid)
    except ProcessLookupError:
        orderly = False
    else:
        orderly = watch.wait()
    if orderly:
        return
    say(f"run {os.path.basename(folder)} (pid {pid}) is dead")  # noqa: PTH119 - no pathlib here
    os.execv(sys.executable, [sys.executable, "-m", "pytest_coopcloud", "reap", folder, *argv[3:]])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
