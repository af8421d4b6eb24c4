"""The dashboard with 10,000 runs of 200 recipes, as a server in a process of its own, asked over HTTP.

Prints what was measured beside what must hold, and fails where something does not.
"""

import contextlib
import http.client
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.dashboard.runs import make_run, many  # noqa: E402

RECIPES = 200
EACH = 50
ASKED = 300


@contextlib.contextmanager
def served(runs: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
    """Serve `runs`; yields the process, its port, and when it was started."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "CCCI_DASHBOARD_RESULTS_DIR": str(runs), "CCCI_DASHBOARD_PORT": str(port)}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "dashboard"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        yield process, port, began
    finally:
        process.terminate()
        process.wait()


def ask(port: int, address: str) -> tuple[int, bytes]:
    """Ask once, on a connection of its own as a browser's first."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", address)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def until(check: object, limit: float) -> float:
    """Wait until `check()` holds; a server gives no event for that to a process that measures it from outside."""
    began = time.monotonic()
    while time.monotonic() - began < limit:
        with contextlib.suppress(OSError):
            if check():  # type: ignore[operator]
                return time.monotonic() - began
        time.sleep(0.01)
    raise SystemExit(f"nothing after {limit:.0f} s")


def p95(port: int, addresses: list[str]) -> float:
    """Ask for each address and return the 95th percentile in milliseconds."""
    spent = []
    for address in addresses:
        began = time.perf_counter()
        status, _ = ask(port, address)
        spent.append((time.perf_counter() - began) * 1000)
        if status != 200:
            raise SystemExit(f"{address} answered {status}")
    return statistics.quantiles(spent, n=20)[18]


def memory(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of the server in MB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def main() -> int:
    """Measure, print, and say whether all of it holds."""
    folder = Path(tempfile.mkdtemp(prefix="coopcloud-bench-"))
    try:
        runs = folder / "runs"
        now = time.time()
        many(runs, recipes=RECIPES, each=EACH, now=now)
        names = sorted(
            {path.read_text().partition('"recipe":')[2].split('"')[1] for path in runs.glob("*/results.json")}
        )
        with served(runs) as (process, port, began):
            until(lambda: ask(port, "/healthz")[0] == 200, 60)
            first_index = time.monotonic() - began
            found = [("first index, with the start of the server", first_index, 10.0, "s")]
            front = [
                f"/?q={'abcdefgh'[index % 8] if index % 3 else ''}&sort={('attention', 'name', 'newest')[index % 3]}"
                for index in range(ASKED)
            ]
            found.append(("front page, p95", p95(port, front), 50.0, "ms"))
            found.append(
                ("badge, p95", p95(port, [f"/badge/{names[index % RECIPES]}.svg" for index in range(ASKED)]), 5.0, "ms")
            )
            found.append(
                ("recipe page, p95", p95(port, [f"/recipe/{names[index]}" for index in range(60)]), 250.0, "ms")
            )
            seen = make_run(runs, "newcomer", started_at=now, files=False)
            visible = until(lambda: ask(port, f"/run/{seen.run_id}")[0] == 200, 30)
            found.append(("a new result is visible", visible, 1.0, "s"))
            found.append(("memory", memory(process), 200.0, "MB"))
    finally:
        shutil.rmtree(folder)
    print(f"dashboard: {RECIPES * EACH} runs of {RECIPES} recipes")
    for what, value, limit, unit in found:
        print(f"  {what:<44} {value:8.2f} {unit:<3} (limit {limit:g} {unit}){'' if value < limit else '  TOO MUCH'}")
    return int(any(value >= limit for _, value, limit, _ in found))


if __name__ == "__main__":
    sys.exit(main())
