"""The command itself: what is written, what is read, and what becomes of an abra that misbehaves. No engine is needed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_coopcloud.abra import TABLE, Abra, AbraVersion, read_json
from pytest_coopcloud.errors import BadInputError, CLIError, CLITimeoutError
from pytest_coopcloud.redaction import Redactor
from pytest_coopcloud.results import CauseClass

DOMAIN = "a.ci.localhost"


@pytest.fixture
def abra(tmp_path: Path, standin: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Abra]:
    def make(version: str = "0.13", misbehave: str = "", *, timeout: float = 20, says: str = "") -> Abra:
        monkeypatch.setenv("PATH", standin(version, misbehave, says))
        (tmp_path / "home" / "servers" / "default").mkdir(parents=True, exist_ok=True)
        return Abra(tmp_path / "home", log=tmp_path / "log", timeout=timeout)

    return make


def calls(folder: Path) -> Iterator[list[str]]:
    for line in (folder / "calls").read_text().splitlines():
        yield json.loads(line)


# What is written


@pytest.mark.parametrize("version", ["0.9", "0.10", "0.13"])
def test_flags_stand_behind_the_verb_and_before_what_it_is_about(abra: Callable[..., Abra], version: str) -> None:
    argv = abra(version).argv("app deploy", DOMAIN, "1.0.0+1.0", no_input=True, no_domain_checks=True, chaos=False)

    assert argv == ["app", "deploy", "--no-input", "--no-domain-checks", DOMAIN, "1.0.0+1.0"]


def test_a_flag_that_help_does_not_name_is_not_given(abra: Callable[..., Abra], tmp_path: Path) -> None:
    assert "--chaos" not in abra("0.9").argv("app new", "x", chaos=True)
    assert "--chaos" in abra("0.13").argv("app new", "x", chaos=True)
    assert [call for call in calls(tmp_path) if "--help" in call] == [["app", "new", "--help"]] * 2


def test_help_is_asked_once_a_command(abra: Callable[..., Abra], tmp_path: Path) -> None:
    one = abra()
    for _ in range(3):
        one.argv("app new", "x", chaos=True, offline=True)

    assert len([call for call in calls(tmp_path) if "--help" in call]) == 1


@pytest.mark.parametrize("name", sorted(TABLE))
def test_the_stand_in_knows_every_command_with_all_its_flags(abra: Callable[..., Abra], name: str) -> None:
    one = abra()
    flags = {flag.long.replace("-", "_"): True for flag in TABLE[name].flags}

    done = one._call([*one.argv(name, **flags), "--help"], 20, check=False)

    assert done.returncode == 0, done.stderr


def test_abra_runs_in_c_in_a_home_of_its_own_without_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "abra"
    script.write_text(
        '#!/bin/sh\necho "abra version 0.13.0"\nenv\nread line && echo "got $line"\n[ -t 1 ] && echo terminal\nexit 0\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DRONE_TOKEN", "a token")

    said = Abra(tmp_path / "home")._call([], 10, check=False).stdout

    assert f"ABRA_DIR={tmp_path / 'home'}" in said
    assert "LANG=C\n" in said
    assert "DRONE_TOKEN" not in said
    assert "got" not in said
    assert "terminal" not in said


# What is read


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("abra version 0.13.0-beta-06a57de\n", (0, 13, 0)),
        ("abra version 0.9.0-beta", (0, 9, 0)),
        ("INFO new version!\nabra version 0.10.2", (0, 10, 2)),
        ("abra version 0.14.1-beta", (0, 14, 1)),
    ],
)
def test_a_version_is_read(said: str, number: tuple[int, int, int]) -> None:
    assert AbraVersion.parse(said).number == number


def test_a_newer_version_is_driven_and_named() -> None:
    assert str(AbraVersion.parse("abra version 0.14.1-beta")) == "0.14.1-beta (newer than 0.13, the newest known)"


@pytest.mark.parametrize(("said", "message"), [("abra version 0.8.1-beta", "abra is 0.8.1-beta"), ("hi", "says 'hi'")])
def test_a_version_that_is_too_old_or_none_is_refused(said: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as raised:
        AbraVersion.parse(said)
    assert raised.value.cause is CauseClass.INFRASTRUCTURE


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ("[]", []),
        ('WARN [0000] {odd} text\n[{"name": "default"}]\n', [{"name": "default"}]),
        ('INFO [1] then\n{"a": [1, 2]}\nbye', {"a": [1, 2]}),
    ],
)
def test_json_is_found_among_other_lines(text: str, value: object) -> None:
    assert read_json(text) == value


def test_no_json_is_an_error() -> None:
    with pytest.raises(ValueError, match="no JSON"):
        read_json("FATA [nothing here")


def test_secrets_are_blotted_out_of_the_log(tmp_path: Path, abra: Callable[..., Abra]) -> None:
    blot = Redactor()
    blot.add("hunter2-hunter2", "token")
    one = abra()
    one.redact = blot.clean

    with pytest.raises(CLIError) as raised:
        one.app_new("x", "hunter2-hunter2", server="default", domain=DOMAIN, chaos=False)

    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in (tmp_path / "log").read_text()
    assert "[secret token]" in (tmp_path / "log").read_text()


def test_what_secret_generate_prints_is_kept_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "abra"
    script.write_text(
        '#!/bin/sh\ncase "$*" in\n--version) echo abra version 0.13.0;;\n'
        '*--help) ;;\n*) echo "| NAME | VALUE |"; echo "| token | correct-horse-battery |"; exit ${ABRA_EXIT:-0};;\nesac\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    one = Abra(tmp_path / "home", log=tmp_path / "log")

    assert one.app_secret_generate(DOMAIN) == ["token", "correct-horse-battery"]
    script.write_text(script.read_text().replace("${ABRA_EXIT:-0}", "1"))
    with pytest.raises(CLIError) as raised:
        one.app_secret_generate(DOMAIN)

    assert "correct-horse" not in str(raised.value) + raised.value.stdout
    assert "correct-horse" not in (tmp_path / "log").read_text()
    assert "app secret generate" in (tmp_path / "log").read_text()


# Misbehaviour


def test_an_abra_that_hangs_is_killed_at_its_deadline(abra: Callable[..., Abra]) -> None:
    one = abra(misbehave="hangs:app ls", timeout=1)
    began = time.monotonic()

    with pytest.raises(CLITimeoutError, match="did not end within 1 s and was killed; it printed nothing") as raised:
        one.app_ls()

    assert time.monotonic() - began < 3
    assert "does it ask a question?" in raised.value.hint
    assert raised.value.cause is CauseClass.INFRASTRUCTURE


def test_a_warning_before_the_json_does_no_harm(abra: Callable[..., Abra], tmp_path: Path) -> None:
    one = abra(misbehave="warns:app ls")
    (tmp_path / "home" / "servers" / "default" / f"{DOMAIN}.env").write_text("TYPE=x\n")

    assert one.app_ls()["default"]["apps"][0]["domain"] == DOMAIN


def test_fatal_text_with_exit_code_0_is_a_failure(abra: Callable[..., Abra]) -> None:
    with pytest.raises(CLIError, match="ended with 0, and says: FATA unable to reach the server"):
        abra(misbehave="fatal-and-0").app_undeploy(DOMAIN)


def test_an_unknown_version_is_refused_before_anything_is_done(abra: Callable[..., Abra], tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"abra is 0\.7\.2.*supported from 0\.9"):
        abra(says="abra version 0.7.2-beta")
    with pytest.raises(BadInputError, match="names no version, it says 'abracadabra'"):
        abra(says="abracadabra")

    assert list(calls(tmp_path)) == [["--version"]] * 2


def test_an_abra_that_cannot_be_executed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "abra").write_bytes(b"\x7fELF of another machine")
    (tmp_path / "abra").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BadInputError, match="abra cannot be asked for its version: `abra` cannot be started"):
        Abra(tmp_path / "home")


def test_an_abra_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "abra").write_text("#!/bin/sh\n")
    (tmp_path / "abra").chmod(0o644)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BadInputError, match="cannot be started") as raised:
        Abra(tmp_path / "home")
    assert raised.value.hint


def test_output_of_100_mb_is_cut(abra: Callable[..., Abra], tmp_path: Path) -> None:
    with pytest.raises(CLIError, match="the end of a long story") as raised:
        abra(misbehave="noise").app_undeploy(DOMAIN)

    assert len(str(raised.value)) < 4000
    assert (tmp_path / "log").stat().st_size < 20e6


def test_an_abra_that_is_killed_is_named_with_its_signal(abra: Callable[..., Abra]) -> None:
    with pytest.raises(CLIError, match="was killed by SIGKILL"):
        abra(misbehave="killed").app_undeploy(DOMAIN)


def test_a_question_gets_no_answer_and_is_shown(abra: Callable[..., Abra]) -> None:
    with pytest.raises(CLIError, match=r"Proceed with the deployment\?"):
        abra(misbehave="asks").app_undeploy(DOMAIN)


@pytest.mark.parametrize(
    ("version", "argv", "said"),
    [
        ("0.9", ["app", "undeploy", DOMAIN, "-n"], "flags come first"),
        ("0.9", ["-n", "app", "undeploy", DOMAIN], "unknown command"),
        ("0.10", ["app", "undeploy", "--wrong", DOMAIN], "unknown flag: --wrong"),
        ("0.13", ["app", "upgrade", "-C", DOMAIN], "unknown flag: -C"),
        ("0.13", ["app", DOMAIN, "undeploy"], "unknown command"),
    ],
)
def test_the_stand_in_refuses_what_abra_refuses(
    abra: Callable[..., Abra], version: str, argv: list[str], said: str
) -> None:
    done = abra(version)._call(argv, 10, check=False)

    assert done.returncode == 1
    assert f"FATA {said}" in done.stderr or said in done.stderr
