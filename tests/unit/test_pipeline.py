"""What a build may say, and what its test is given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pytest_coopcloud import pipeline
from pytest_coopcloud.errors import BadInputError

ROOT = Path(__file__).parents[2]
SHA = "0123456789abcdef0123456789abcdef01234567"
GOOD = {"RECIPE": "guestbook", "REF": SHA, "PR": "7", "SRC": "recipe-maintainers/guestbook", "COMMENT": "12"}
HOST = {"PATH": "/host/bin", "HOME": "/home/runner", "COOPCLOUD_CI_STATE": "/state", "DRONE_RPC_SECRET": "canary"}


@pytest.fixture(autouse=True)
def _keep_environment():
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_check_turns_parameters_into_arguments():
    arguments = pipeline.check({**GOOD, "STAGES": "install,upgrade", "PATH": "/host/bin", "DRONE_REPO": "x"}, HOST)

    assert arguments == [
        "--recipe=guestbook",
        f"--recipe-ref={SHA}",
        "--recipe-src=recipe-maintainers/guestbook",
        "--recipe-pr=7",
        "--stages=install,upgrade",
    ]


@pytest.mark.parametrize("name", ["RECIPE", "REF", "PR", "SRC"])
def test_check_names_what_is_missing(name):
    given = {key: value for key, value in GOOD.items() if key != name}

    with pytest.raises(BadInputError, match=f"the parameter {name} is missing"):
        pipeline.check(given, HOST)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECIPE", "x; touch /tmp/pwned"),
        ("RECIPE", "../../etc"),
        ("RECIPE", "-rf"),
        ("RECIPE", ".x"),
        ("RECIPE", "a b"),
        ("RECIPE", "a\nb"),
        ("RECIPE", "guestbook\n"),
        ("RECIPE", "$(id)"),
        ("RECIPE", "`id`"),
        ("RECIPE", "x" * 10_000),
        ("REF", "main"),
        ("REF", "--upload-pack=touch /tmp/pwned"),
        ("REF", SHA[:-1]),
        ("REF", SHA.upper()),
        ("REF", f"{SHA}\n"),
        ("PR", "0"),
        ("PR", "-1"),
        ("PR", "7#c1"),
        ("PR", "9" * 40),
        ("SRC", "http://169.254.169.254/x"),
        ("SRC", "--upload-pack=x/y"),
        ("SRC", "a/b/c"),
        ("SRC", "../x"),
        ("SRC", "owner/..name"),
        ("COMMENT", "1;2"),
        ("COMMENT", "1\n"),
        ("STAGES", "install,teardown"),
        ("STAGES", "install;id"),
        ("STAGES", ","),
    ],
)
def test_check_refuses_hostile_values(name, value):
    with pytest.raises(BadInputError):
        pipeline.check({**GOOD, name: value}, HOST)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/tmp/evil:/host/bin"),
        ("LD_PRELOAD", "/tmp/evil.so"),
        ("PYTHONPATH", "/tmp/evil"),
        ("DOCKER_HOST", "tcp://evil:2375"),
        ("COOPCLOUD_FORGE_URL", "http://evil"),
        ("COOPCLOUD_CI_STATE", "/tmp/evil"),
        ("GIT_SSH_COMMAND", "touch /tmp/pwned"),
        ("CCCI_JANITOR_MAX_AGE", "99999999"),
        ("recipe", "guestbook"),
        ("PYTEST_ADDOPTS", "-p evil"),
    ],
)
def test_check_refuses_names_that_no_test_has(name, value):
    with pytest.raises(BadInputError, match="no parameters of a test"):
        pipeline.check({**GOOD, name: value}, HOST)


def test_run_gets_the_host_s_settings_and_no_token():
    clean = pipeline.clean_environment({**GOOD, "DRONE_BUILD_NUMBER": "3", "DRONE_NETRC_PASSWORD": "canary"}, HOST)

    assert clean == {
        "PATH": "/host/bin",
        "HOME": "/home/runner",
        "COOPCLOUD_CI_STATE": "/state",
        "COMMENT": "12",
        "DRONE_BUILD_NUMBER": "3",
    }


@pytest.mark.parametrize(("code", "mapped"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 2), (5, 2), (78, 2), (255, 2)])
def test_exit_codes_are_three(code, mapped):
    assert pipeline.main(GOOD, host=HOST, pytest_main=lambda _: code) == mapped


def test_refusal_is_one_line_and_starts_nothing(capsys):
    started = []

    code = pipeline.main({**GOOD, "RECIPE": "x; touch /tmp/pwned"}, host=HOST, pytest_main=started.append)

    assert (code, started) == (2, [])
    assert capsys.readouterr().err.splitlines() == ["coopcloud-ci: refused: 'x; touch /tmp/pwned' is no recipe name"]


def test_program_tells_a_parameter_from_the_runner_s_own_value():
    environ = {"PATH": os.environ["PATH"], "DOCKER_HOST": "tcp://127.0.0.1:9", **GOOD}
    argv = [sys.executable, "-m", "pytest_coopcloud.pipeline"]

    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "coopcloud-ci: refused: these are no parameters of a test: 'DOCKER_HOST'\n"


def _pipelines():
    return list(yaml.safe_load_all((ROOT / ".drone.yml").read_text(encoding="utf-8")))


def test_drone_yml_has_nothing_for_the_runner_to_paste():
    assert "${" not in (ROOT / ".drone.yml").read_text(encoding="utf-8")


def test_drone_yml_runs_recipes_on_custom_builds_only():
    triggers = {one["name"]: one["trigger"]["event"] for one in _pipelines()}

    assert triggers == {"recipe-ci": ["custom"], "self-test": ["push"]}


def test_drone_yml_ends_in_our_process_with_what_it_was_told():
    (step,) = next(one for one in _pipelines() if one["name"] == "recipe-ci")["steps"]

    assert step["commands"] == ["exec python3 -m pytest_coopcloud.pipeline"]
    assert not [value for value in step["environment"].values() if not isinstance(value, str)]
    assert pipeline.check({**GOOD, **step["environment"], "PATH": HOST["PATH"]}, HOST)
