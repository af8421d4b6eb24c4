"""Whoever has the plugin installed and tests no recipe pays next to nothing for it."""

import json
import subprocess
import sys

PROBE = """
import json, sys
import pytest

class Probe:
    def pytest_collection_finish(self, session):
        print("LOADED " + json.dumps(sorted(sys.modules)))

code = pytest.main(["--collect-only", "-q", *sys.argv[1:]], plugins=[Probe()])
sys.exit(0 if code in (0, 5) else code)
"""
OTHERS = [
    f"-pno:{name}" for name in ("playwright", "xdist", "xdist.looponfail", "anyio", "hypothesispytest", "base_url")
]
HEAVY = ("pydantic", "docker", "requests", "jinja2", "yaml", "trustme", "fastapi")


def loaded(environment, tmp_path, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *OTHERS, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("LOADED ")).split(" ", 1)[1])


def test_nothing_heavy_is_loaded_without_a_recipe(environment, tmp_path):
    found = loaded(environment, tmp_path)

    assert not [name for name in HEAVY if name in found]
    ours = [name for name in found if name.startswith("pytest_coopcloud.")]
    assert ours == ["pytest_coopcloud.hookspecs", "pytest_coopcloud.plugin"]


def test_the_probe_sees_what_a_recipe_loads(environment, tmp_path, make_recipe):
    make_recipe("tiny")

    found = loaded(environment, tmp_path, "--recipe=./tiny")

    assert {"pydantic", "docker", "requests"} <= set(found)


def test_a_suite_of_somebody_else_runs_as_before(run_pytest, tmp_path):
    (tmp_path / "test_theirs.py").write_text("def test_app():\n    assert True\n")

    done = run_pytest("-q", "-Werror")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert "recipe" not in done.stdout
    assert not (tmp_path / "state").exists()
