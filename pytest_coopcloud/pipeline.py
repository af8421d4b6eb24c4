"""What a Drone build runs: read the parameters, refuse what is not expected, and test the recipe in a clean environment.

Drone turns every parameter of a build into an environment variable of its steps, whatever its name. So what comes from a
parameter is told from what comes from the host: the host's values are those of the runner, our parent process, which no
parameter can reach. A variable that differs from the runner's and is neither Drone's own nor one of `PARAMETERS` is refused.

The exit codes are 0 (passed), 1 (did not pass) and 2 (could not be tried), and no other: Drone's exec runner takes 78 for a
success.

Example, the last command of a step:
    exec python3 -m pytest_coopcloud.pipeline
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pytest_coopcloud.errors import BadInputError, BadNameError
from pytest_coopcloud.naming import check_recipe_name
from pytest_coopcloud.results import Stage
from pytest_coopcloud.sources import check_pr, check_ref, check_src

__all__ = ["PARAMETERS", "check", "clean_environment", "main"]

#: The parameters of a build: all are needed but `COMMENT` and `STAGES`.
PARAMETERS = ("RECIPE", "REF", "PR", "SRC", "COMMENT", "STAGES")
_OPTIONAL = ("COMMENT", "STAGES")

#: What of the host's environment a run is given. No token is among them.
_HOST = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"),
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "NIX_SSL_CERT_FILE", "LD_LIBRARY_PATH", "NIX_LD"),
    *("PLAYWRIGHT_BROWSERS_PATH", "MAX_TESTS"),
)
_HOST_PREFIX = "COOPCLOUD_"

#: What Drone's runner sets for each step. Parameters cannot replace these.
_DRONE = re.compile(
    r"DRONE|DRONE_[A-Z0-9_]+|CI|CI_[A-Z0-9_]+|GIT_(AUTHOR|COMMITTER)_(NAME|EMAIL|DATE)|GIT_TERMINAL_PROMPT"
)
_RUNNER = frozenset({"HOME", "HOMEPATH", "USERPROFILE", "GIT_SSL_NO_VERIFY", "http_proxy", "https_proxy", "no_proxy"})
#: What a shell sets by itself.
_SHELL = frozenset({"_", "PWD", "OLDPWD", "SHLVL"})
#: What `.drone.yml` sets, with the only values that it may have there.
_STEP = {"CCCI_JANITOR_MAX_AGE": "0"}
#: What Python sets where the host names no locale.
_LOCALES = frozenset({"C.UTF-8", "C.utf8", "UTF-8"})
#: What `.drone.yml` sets to nothing, so that no parameter can name a program or a library to load before this one.
_EMPTIED = frozenset({"BASH_ENV", "ENV", "LD_AUDIT", "LD_PRELOAD", "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP"})

_COMMENT = re.compile(r"[1-9][0-9]{0,17}")


def main(
    environ: Mapping[str, str] | None = None,
    *,
    host: Mapping[str, str] | None = None,
    pytest_main: Callable[[list[str]], int] | None = None,
) -> int:
    """Test the recipe that the environment names; return 0, 1 or 2.

    Args:
        environ: The step's environment; that of this process by default.
        host: The environment of the runner; that of the parent process by default.
        pytest_main: What runs pytest with these arguments.
    """
    environ = dict(os.environ if environ is None else environ)
    try:
        host = _parent_environment() if host is None else host
        arguments = check(environ, host)
    except BadInputError as error:
        print(f"coopcloud-ci: refused: {error.args[0]}", file=sys.stderr, flush=True)
        return 2
    os.environ.clear()
    os.environ.update(clean_environment(environ, host))
    code = (pytest_main or _pytest)(arguments)
    # Tests that failed are 1; interrupted, broken, wrongly called and nothing to run are all "could not be tried".
    return code if code in (0, 1) else 2


def check(environ: Mapping[str, str], host: Mapping[str, str]) -> list[str]:
    """Return pytest's arguments for these parameters.

    Raises:
        BadInputError: One is missing, malformed or unknown; nothing has been created.
    """
    unknown = [name for name in sorted(environ) if not _is_expected(name, environ[name], host)]
    if unknown:
        names = ", ".join(repr(name[:40]) for name in unknown[:5]) + (" ..." if len(unknown) > 5 else "")
        raise BadInputError(f"these are no parameters of a test: {names}")
    given = {name: environ[name] for name in PARAMETERS if environ.get(name)}
    missing = [name for name in PARAMETERS if name not in given and name not in _OPTIONAL]
    if missing:
        raise BadInputError(f"the parameter {missing[0]} is missing")
    arguments = [
        f"--recipe={check_recipe_name(given['RECIPE'])}",
        f"--recipe-ref={check_ref(given['REF'], pinned=True)}",
        f"--recipe-src={check_src(given['SRC'])}",
        f"--recipe-pr={check_pr(given['PR'])}",
    ]
    if "COMMENT" in given and not _COMMENT.fullmatch(given["COMMENT"]):
        raise BadNameError(f"{given['COMMENT'][:80]!r} is no comment's number")
    if "STAGES" in given:
        arguments.append(f"--stages={','.join(_check_stages(given['STAGES']))}")
    return arguments


def _is_expected(name: str, value: str, host: Mapping[str, str]) -> bool:
    if name in PARAMETERS or name in _RUNNER or name in _SHELL or _DRONE.fullmatch(name):
        return True
    if name in _STEP:
        return value == _STEP[name]
    if (name in _EMPTIED and not value) or (name == "LC_CTYPE" and value in _LOCALES):
        return True
    return host.get(name) == value


def _check_stages(text: str) -> list[str]:
    known = [stage.value for stage in Stage if stage is not Stage.TEARDOWN]
    words = text.split(",")
    for word in words:
        if word not in known:
            raise BadInputError(f"{word[:80]!r} is no stage, known are {', '.join(known)}")
    return words


def clean_environment(environ: Mapping[str, str], host: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that a run gets: what the host sets for it, and who asked."""
    clean = {name: value for name, value in host.items() if name in _HOST or name.startswith(_HOST_PREFIX)}
    clean.update({name: value for name, value in _STEP.items() if name in environ})
    for name in ("COMMENT", "CI", "DRONE_BUILD_NUMBER", "DRONE_BUILD_LINK"):
        if environ.get(name):
            clean[name] = environ[name]
    return clean


def _parent_environment() -> dict[str, str]:
    """Return the environment that the parent process was started with.

    Raises:
        BadInputError: It may not be read, so a parameter cannot be told from a value of the host.
    """
    file = Path(f"/proc/{os.getppid()}/environ")
    try:
        items = file.read_bytes().split(b"\0")
    except OSError as error:
        raise BadInputError(f"the environment of the runner cannot be read: {error}") from error
    pairs = (os.fsdecode(item).partition("=") for item in items if item)
    return {name: value for name, _, value in pairs}


def _pytest(arguments: Sequence[str]) -> int:
    import pytest

    # In this process, not in a child: a runner that gives up kills one process, and that is to be the one that cleans up.
    # So the plugin's package is imported already; its asserts need no rewriting. Said where it does not become a part of the
    # command that repeats the run.
    os.environ["PYTEST_ADDOPTS"] = "'-Wignore:Module already imported:pytest.PytestAssertRewriteWarning'"
    return int(pytest.main(list(arguments)))


if __name__ == "__main__":
    sys.exit(main())
