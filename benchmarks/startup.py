"""What the installed plugin costs a pytest that tests no recipe: `pytest --collect-only` with it and without it.

Run it with `./dev bench startup`. Each side is run alternately, and the medians are compared; the last line gives the
difference in milliseconds.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 15


def collect(folder: Path, *arguments: str) -> float:
    """Return the seconds of one collection, with other plugins left out."""
    quiet = [
        "-p",
        "no:playwright",
        "-p",
        "no:xdist",
        "-p",
        "no:anyio",
        "-p",
        "no:hypothesispytest",
        "-p",
        "no:cacheprovider",
    ]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *quiet, *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
        collect(folder)
        pairs = [(collect(folder), collect(folder, "-p", "no:coopcloud")) for _ in range(ROUNDS)]
    with_it, without = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
    print(f"with the plugin: {with_it:.0f} ms, without: {without:.0f} ms (medians of {ROUNDS})")
    print(f"ratio: {with_it / without:.3f}")
    print(f"added: {with_it - without:.1f} ms")


if __name__ == "__main__":
    main()
