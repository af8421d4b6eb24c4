"""abra: one method per command that a trial uses, by abra's own names.

What is known of abra is not all known equally well, so `TABLE` says for each flag whether it is documented (or seen in
use), or only believed; the latter is given only where `abra <command> --help` names it. Flags stand directly after the
verb: all supported versions read them there (0.9 reads them nowhere else).

Example:
    >>> abra = Abra(Path("run/abra"))                                       # doctest: +SKIP
    >>> abra.app_deploy("a.ci.localhost", version="1.7.1+1.27.2")           # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_coopcloud.cli import Completed, run
from pytest_coopcloud.docker import client_environment
from pytest_coopcloud.errors import BadInputError, CLIError, CLITimeoutError
from pytest_coopcloud.results import CauseClass

__all__ = ["NEWEST", "OLDEST", "TABLE", "Abra", "AbraVersion", "Command", "Flag", "read_json"]

#: The versions whose commands stand in `TABLE`.
OLDEST, NEWEST = (0, 9), (0, 13)

#: Seconds for `--version` and `--help`.
ASK_TIMEOUT = 30.0
#: What is quoted of a command's output: so many lines, so many characters.
QUOTED_LINES, QUOTED = 15, 1500


# What abra understands


@dataclass(frozen=True)
class Flag:
    """One flag of a command.

    Attributes:
        long: Its long spelling, without dashes.
        short: Its letter, taken where `--help` names that alone.
        sure: Whether it is documented or seen in use; else it is given only where `--help` names it.
        since: The first version that has it.
    """

    long: str
    short: str = ""
    sure: bool = True
    since: tuple[int, int] = OLDEST


@dataclass(frozen=True)
class Command:
    """One command: its words, its flags in the order in which they are given, its deadline in seconds."""

    words: tuple[str, ...]
    flags: tuple[Flag, ...]
    timeout: float = 120.0

    def flag(self, long: str) -> Flag:
        """Return a flag by its long spelling."""
        return next(flag for flag in self.flags if flag.long == long)


_NO_INPUT = Flag("no-input", "n")
_OFFLINE = Flag("offline", "o", sure=False)
#: On commands other than deploy: leave the recipe's checkout where it is.
_STAY = Flag("chaos", "C", sure=False)
_DEPLOY = (
    _NO_INPUT,
    Flag("no-domain-checks", "D"),
    Flag("no-converge-checks", "c"),
    Flag("chaos", "C"),
    Flag("force", "f"),
    _OFFLINE,
)
_MOVE = (_NO_INPUT, Flag("no-domain-checks", "D"), Flag("no-converge-checks", "c"), _OFFLINE)

#: Every command that is used. A deploy pulls images where they are missing, so it is given longer.
TABLE: Mapping[str, Command] = {
    "app backup create": Command(
        ("app", "backup", "create"), (Flag("no-input", "n", sure=False), _STAY, _OFFLINE), 600.0
    ),
    "app deploy": Command(("app", "deploy"), _DEPLOY, 300.0),
    "app ls": Command(("app", "ls"), (Flag("machine", "m"),)),
    "app new": Command(("app", "new"), (_NO_INPUT, Flag("server", "s"), Flag("domain"), _STAY, _OFFLINE)),
    "app ps": Command(("app", "ps"), (Flag("machine", "m"), _STAY)),
    "app restore": Command(
        ("app", "restore"),
        (Flag("no-input", "n", sure=False), Flag("snapshot", "s", sure=False), _STAY, _OFFLINE),
        600.0,
    ),
    "app rollback": Command(("app", "rollback"), _MOVE, 300.0),
    "app secret generate": Command(
        ("app", "secret", "generate"), (_NO_INPUT, Flag("machine", "m"), Flag("all", "a"), _STAY, _OFFLINE)
    ),
    "app secret insert": Command(("app", "secret", "insert"), (_NO_INPUT, Flag("file", "f"), _STAY, _OFFLINE)),
    "app secret ls": Command(("app", "secret", "ls"), (Flag("machine", "m"), _STAY, _OFFLINE)),
    "app secret rm": Command(("app", "secret", "rm"), (_NO_INPUT, Flag("all", "a"), _STAY, _OFFLINE)),
    "app undeploy": Command(("app", "undeploy"), (_NO_INPUT,), 300.0),
    "app upgrade": Command(("app", "upgrade"), _MOVE, 300.0),
    "app volume rm": Command(("app", "volume", "rm"), (_NO_INPUT, Flag("force", "f", sure=False))),
    "recipe versions": Command(("recipe", "versions"), (Flag("machine", "m"), _OFFLINE)),
    "server ls": Command(("server", "ls"), (Flag("machine", "m"),)),
}


@dataclass(frozen=True)
class AbraVersion:
    """What `abra --version` said: the whole text, and its numbers."""

    text: str
    number: tuple[int, int, int]

    @classmethod
    def parse(cls, said: str) -> AbraVersion:
        """Read `abra version 0.13.0-beta-06a57de`.

        Raises:
            BadInputError: There is no version in it, or one that is too old.
        """
        found = re.search(r"(\d+)\.(\d+)\.(\d+)\S*", said)
        if found is None:
            raise BadInputError(
                f"`abra --version` names no version, it says {said.strip()[:200]!r}",
                hint="is the `abra` on PATH the one of Co-op Cloud? or choose `--deployer=swarm`",
                cause=CauseClass.INFRASTRUCTURE,
            )
        number = (int(found.group(1)), int(found.group(2)), int(found.group(3)))
        if number[:2] < OLDEST:
            raise BadInputError(
                f"abra is {found.group()}, and is supported from {OLDEST[0]}.{OLDEST[1]} on",
                hint="run `abra upgrade`, or choose `--deployer=swarm`",
                cause=CauseClass.INFRASTRUCTURE,
            )
        return cls(found.group(), number)

    @property
    def known(self) -> bool:
        """Whether it is a version whose commands are known; a newer one is driven as the newest known."""
        return self.number[:2] <= NEWEST

    def __str__(self) -> str:
        return self.text if self.known else f"{self.text} (newer than {NEWEST[0]}.{NEWEST[1]}, the newest known)"


# The command


@dataclass
class Abra:
    """The `abra` on PATH, with a home of the run's own.

    Attributes:
        home: Its `ABRA_DIR`.
        host: The engine's address, as in `DOCKER_HOST`; None for the default.
        log: The file that commands and their output are appended to.
        redact: Blots secrets out of all output.
        timeout: Seconds for every call, instead of those in `TABLE`; 0 for those.

    Raises:
        BadInputError: abra is too old, or cannot be asked.
    """

    home: Path
    host: str | None = None
    log: Path | None = None
    redact: Callable[[str], str] | None = None
    timeout: float = 0.0
    version: AbraVersion = field(init=False)
    _help: dict[tuple[str, ...], str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        try:
            done = self._call(["--version"], ASK_TIMEOUT)
        except CLIError as error:
            raise BadInputError(
                f"abra cannot be asked for its version: {error.message}",
                hint="put a working `abra` on PATH, or choose `--deployer=swarm`",
                cause=CauseClass.INFRASTRUCTURE,
            ) from error
        self.version = AbraVersion.parse(done.stdout + done.stderr)

    def app_backup_create(self, domain: str) -> str:
        """Have backup-bot-two back an app up, and return what it printed."""
        done = self._run("app backup create", domain, no_input=True, chaos=True, offline=True)
        return f"{done.stdout}\n{done.stderr}"

    def app_deploy(self, domain: str, *, version: str = "", force: bool = False) -> None:
        """Deploy a published version, or (where none is given) the checkout as it lies; return without waiting."""
        chaos = not version
        words = [domain, *([version] if version else [])]
        flags = {"no_domain_checks": True, "no_converge_checks": True, "chaos": chaos, "force": chaos or force}
        self._run("app deploy", *words, no_input=True, offline=True, **flags)

    def app_ls(self) -> Any:
        """Return what `app ls` knows of all apps."""
        return self._json("app ls")

    def app_new(self, recipe: str, version: str = "", *, server: str, domain: str, chaos: bool) -> None:
        """Make the `.env` of a new app."""
        words = [recipe, *([version] if version else [])]
        self._run("app new", *words, no_input=True, server=server, domain=domain, chaos=chaos, offline=True)

    def app_ps(self, domain: str) -> Any:
        """Return what runs of an app."""
        return self._json("app ps", domain, chaos=True)

    def app_restore(self, domain: str, *, snapshot: str) -> None:
        """Have backup-bot-two restore a snapshot; the newest one where this abra cannot be told which."""
        self._run("app restore", domain, no_input=True, snapshot=snapshot, chaos=True, offline=True)

    def app_rollback(self, domain: str, version: str) -> None:
        """Move a deployed app to an older published version."""
        flags = {"no_domain_checks": True, "no_converge_checks": True}
        self._run("app rollback", domain, version, no_input=True, offline=True, **flags)

    def app_secret_generate(self, domain: str, name: str = "", version: str = "") -> list[str]:
        """Generate one secret, or all of an app's; return every text in the answer, of which some are the values."""
        words = [domain, name, version] if name else [domain]
        done = self._run(
            "app secret generate",
            *words,
            no_input=True,
            machine=True,
            all=not name,
            chaos=True,
            offline=True,
            mute=True,
        )
        try:
            return _texts(read_json(done.stdout))
        except ValueError:
            # A table, then: the cells of its rows, without its heading.
            rows = [line for line in _plain(done.stdout).splitlines() if re.search("[|│┃]", line)]
            return [cell for row in rows[1:] for cell in re.split(r"[\s|│┃]+", row) if cell]

    def app_secret_insert(self, domain: str, name: str, version: str, file: Path) -> None:
        """Insert the content of a file as a secret."""
        self._run(
            "app secret insert", domain, name, version, str(file), no_input=True, file=True, chaos=True, offline=True
        )

    def app_secret_ls(self, domain: str) -> Any:
        """Return what is known of an app's secrets."""
        return self._json("app secret ls", domain, chaos=True, offline=True)

    def app_secret_rm(self, domain: str) -> None:
        """Remove all secrets of an app."""
        self._run("app secret rm", domain, no_input=True, all=True, chaos=True, offline=True)

    def app_undeploy(self, domain: str) -> None:
        """Remove an app's services; its volumes and secrets stay."""
        self._run("app undeploy", domain, no_input=True)

    def app_upgrade(self, domain: str, version: str) -> None:
        """Move a deployed app to a newer published version."""
        flags = {"no_domain_checks": True, "no_converge_checks": True}
        self._run("app upgrade", domain, version, no_input=True, offline=True, **flags)

    def app_volume_rm(self, domain: str) -> None:
        """Remove all volumes of an app that is not deployed."""
        self._run("app volume rm", domain, no_input=True, force=True)

    def recipe_versions(self, recipe: str) -> Any:
        """Return the published versions of a recipe."""
        return self._json("recipe versions", recipe, offline=True)

    def server_ls(self) -> Any:
        """Return the servers."""
        return self._json("server ls")

    # How it is called

    def help(self, *words: str) -> str:
        """Return what `abra <words> --help` says, asked once; empty where it does not answer."""
        if words not in self._help:
            try:
                done = self._call([*words, "--help"], ASK_TIMEOUT, check=False, keep=False)
            except CLIError:
                self._help[words] = ""
            else:
                self._help[words] = f"{done.stdout}\n{done.stderr}"
        return self._help[words]

    def argv(self, name: str, *words: str, **flags: bool | str) -> list[str]:
        """Return the arguments of a command of `TABLE`: its flags first, then what it is about.

        Args:
            name: The command, for example `app deploy`.
            words: Its arguments.
            flags: Its flags with `_` for `-`; False and the empty text leave a flag out.
        """
        command = TABLE[name]
        given = {key.replace("_", "-"): value for key, value in flags.items() if value}
        unknown = given.keys() - {flag.long for flag in command.flags}
        assert not unknown, f"{name} has no flag {unknown}"
        written = []
        for flag in command.flags:
            spelled = self._spelling(command, flag) if flag.long in given else ""
            if spelled:
                value = given[flag.long]
                written += [spelled] if value is True else [spelled, str(value)]
        return [*command.words, *written, *words]

    def _spelling(self, command: Command, flag: Flag) -> str:
        """Return how a flag is written here; empty where this abra has none."""
        if self.version.number[:2] < flag.since:
            return ""
        if flag.sure:
            return f"--{flag.long}"
        text = self.help(*command.words)
        if re.search(rf"(?<![\w-])--{flag.long}(?![\w-])", text):
            return f"--{flag.long}"
        return f"-{flag.short}" if flag.short and re.search(rf"(?m)^\s*-{flag.short}(?!\w)", text) else ""

    def _run(self, name: str, *words: str, mute: bool = False, **flags: bool | str) -> Completed:
        """Run a command of `TABLE`.

        Args:
            name: The command.
            words: Its arguments.
            mute: Whether its output is kept out of the log and of errors, since secrets stand in it.
            flags: Its flags, as for `argv`.

        Raises:
            CLIError: It ended badly, by its exit code or by a line that begins with `FATA`.
            CLITimeoutError: It took longer than its deadline.
        """
        argv = self.argv(name, *words, **flags)
        done = self._call(argv, TABLE[name].timeout, mute=mute)
        fatal = _FATAL.search(f"{done.stderr}\n{done.stdout}")
        if fatal:
            said = _plain(fatal.group())
            raise CLIError(
                done.argv,
                0,
                done.stdout,
                done.stderr,
                message=f"`{' '.join(done.argv)}` ended with 0, and says: {said.strip()[:QUOTED]}",
                cause=_cause(said),
            )
        return done

    def _json(self, name: str, *words: str, **flags: bool) -> Any:
        done = self._run(name, *words, machine=True, **flags)
        try:
            return read_json(done.stdout)
        except ValueError:
            raise CLIError(
                done.argv,
                0,
                done.stdout,
                done.stderr,
                message=f"`{' '.join(done.argv)}` printed no JSON: {_quote(done.stdout) or '(nothing)'}",
            ) from None

    def _call(
        self, argv: list[str], timeout: float, *, check: bool = True, mute: bool = False, keep: bool = True
    ) -> Completed:
        self.home.mkdir(parents=True, exist_ok=True)
        environment = {
            **client_environment(self.host),
            "ABRA_DIR": str(self.home),
            "LANG": "C",
            "LC_ALL": "C",
            "NO_COLOR": "1",
            "TERM": "dumb",
        }
        kept = self.log if keep and not mute else None
        try:
            done = run(
                ["abra", *argv],
                timeout=self.timeout or timeout,
                cwd=self.home,
                env=environment,
                redact=self.redact,
                check=False,
                log=kept,
            )
        except CLITimeoutError as error:
            said = "" if mute else _quote(f"{error.stdout}\n{error.stderr}")
            raise CLITimeoutError(
                error.argv,
                None,
                error.stdout,
                error.stderr,
                message=f"`{' '.join(error.argv)}` did not end within {self.timeout or timeout:g} s and was killed; "
                f"it printed {said or 'nothing'}",
                hint="does it ask a question? what it printed is in commands.log; run the command by hand to see",
            ) from error
        if mute and self.log is not None:
            _note(self.log, done)
        if check and done.returncode != 0:
            output = f"{done.stdout}\n{done.stderr}"
            said = _quote("\n".join(_FATAL.findall(output)) if mute else output)
            ended = (
                f"was killed by {_signal(-done.returncode)}" if done.returncode < 0 else f"ended with {done.returncode}"
            )
            raise CLIError(
                done.argv,
                done.returncode,
                "" if mute else done.stdout,
                "" if mute else done.stderr,
                message=f"`{' '.join(done.argv)}` {ended}: {said or '(it printed nothing)'}",
                hint=_hint(said),
                cause=_cause(said),
            )
        return done


# What it says

_FATAL = re.compile(r"(?m)^[^\S\n]*(?:\x1b\[[0-9;]*m)*FATA\b.*")


def read_json(text: str) -> Any:
    """Return the JSON in a text that other lines may stand before or after.

    Raises:
        ValueError: There is none.

    Example:
        >>> read_json('WARN [0000] old config\\n{"default": {}}')
        {'default': {}}
    """
    decoder = json.JSONDecoder()
    best: tuple[int, Any] | None = None
    position = 0
    while (found := re.compile(r"[\[{]").search(text, position)) is not None:
        try:
            value, end = decoder.raw_decode(text, found.start())
        except ValueError:
            position = found.end()
            continue
        if best is None or end - found.start() > best[0]:
            best = (end - found.start(), value)
        position = end
    if best is None:
        raise ValueError("no JSON")
    return best[1]


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for entry in value.values() for text in _texts(entry)]
    if isinstance(value, list):
        return [text for entry in value for text in _texts(entry)]
    return []


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def _quote(text: str) -> str:
    """Return the last lines of what abra printed."""
    lines = [line.rstrip() for line in _plain(text[-20 * QUOTED :]).splitlines() if line.strip()]
    return "\n".join(lines[-QUOTED_LINES:])[-QUOTED:]


def _note(log: Path, done: Completed) -> None:
    try:
        with log.open("a", encoding="utf-8") as stream:
            stream.write(
                f"$ {' '.join(done.argv)}\n# exit {done.returncode}; its output is not kept: secrets stand in it\n"
            )
    except OSError:
        return


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


#: What abra and the engine's client say where the recipe is at fault.
_RECIPE = re.compile(
    r"only updates to Labels|secret not (?:generated|inserted)|\blint\b|R0\d\d|invalid (?:compose|reference|spec)|"
    r"undefined (?:volume|network|config|secret)|additional propert|unset variable|hook",
    re.IGNORECASE,
)


def _cause(said: str) -> CauseClass:
    return CauseClass.RECIPE if _RECIPE.search(said) else CauseClass.INFRASTRUCTURE


def _hint(said: str) -> str:
    if "only updates to Labels are allowed" in said:
        return "the file of a config changed and its version did not: raise its `export ..._VERSION` in abra.sh"
    if "R014" in said:
        return "versions are annotated tags: make them with `abra recipe release`"
    return "see commands.log"


def environment_timeout() -> float:
    """Return `COOPCLOUD_ABRA_TIMEOUT`, the seconds for every call of abra; 0 where it is not set.

    Raises:
        BadInputError: It is no number.
    """
    text = os.environ.get("COOPCLOUD_ABRA_TIMEOUT", "")
    try:
        return float(text or 0)
    except ValueError:
        raise BadInputError(
            f"COOPCLOUD_ABRA_TIMEOUT is {text[:40]!r}", hint="give seconds", cause=CauseClass.TEST
        ) from None
