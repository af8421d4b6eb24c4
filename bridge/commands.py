"""The text of a comment -> what it asks for, or None.

A command is a line that is `!testme`, alone or with declared words, in a paragraph of the person's own: not in a quote, a
code block, a list, an HTML comment or inside a sentence. The first such line counts.

Example:
    >>> parse("Looks good.\\n\\n!testme stages=upgrade")
    Command(verb=<Verb.RUN: 'run'>, stages=(<Stage.UPGRADE: 'upgrade'>,), unknown='')
    >>> parse("> !testme") is None
    True
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from pytest_coopcloud.results import Stage

__all__ = ["BODY_LIMIT", "WORD", "Command", "Verb", "covers", "parse"]

WORD = "!testme"
BODY_LIMIT = 64 * 1024

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_CHOOSABLE = tuple(stage for stage in Stage if stage is not Stage.TEARDOWN)


class Verb(enum.Enum):
    """What a person may ask for."""

    RUN = "run"
    CANCEL = "cancel"
    HELP = "help"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Command:
    """What a comment asks for.

    Attributes:
        verb: What to do.
        stages: The stages to run, in their order; empty means all.
        unknown: The word that was not understood, for `Verb.UNKNOWN`. Outside text: never print it bare.
    """

    verb: Verb
    stages: tuple[Stage, ...] = ()
    unknown: str = ""

    @property
    def words(self) -> str:
        """The words after `!testme` that mean this command."""
        if self.verb is Verb.RUN:
            return f"stages={','.join(stage.value for stage in self.stages)}" if self.stages else ""
        return self.unknown or str(self.verb.value)


def parse(body: str) -> Command | None:
    """Return what `body` asks for, or None where it asks for nothing.

    A body over 64 KiB is no command. A line may be indented by three spaces at most, four make a code block.
    """
    if len(body) > BODY_LIMIT or WORD not in body:
        return None
    if (alone := body.strip(" \t\r\n")) and "\n" not in alone:
        # Nothing but the command: blanks in front of it were typed by accident, not to show code.
        body = alone
    for line in _own_lines(body):
        words = re.split(r"[ \t]+", line)
        if words[0] == WORD:
            return _command(words[1:])
    return None


def covers(running: tuple[Stage, ...], wanted: tuple[Stage, ...]) -> bool:
    """Say whether a run of the stages `running` answers who asked for `wanted`."""
    return not running or (bool(wanted) and set(wanted) <= set(running))


def _own_lines(body: str) -> list[str]:
    """The lines that are a paragraph of the writer's own, not shown to him by someone or as code."""
    lines: list[str] = []
    fence = ""
    hidden = False
    quoted = False
    for line in body.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if fence:
            closing = _FENCE.fullmatch(line)
            if closing and closing[1].startswith(fence) and not closing[2].strip():
                fence = ""
            continue
        if hidden:
            hidden = "-->" not in line
            continue
        if not line.strip(" \t"):
            quoted = False
            continue
        opening = _FENCE.fullmatch(line)
        if opening and not (opening[1][0] == "`" and "`" in opening[2]):
            fence = opening[1]
            continue
        if "<!--" in line:
            hidden = "-->" not in line.split("<!--", 1)[1]
            quoted = True
            continue
        if re.match(r" {0,3}(>|<[A-Za-z/!?]|[-+*] |\d{1,9}[.)] )", line):
            # What follows a quote, a list or HTML without an empty line in between still belongs to it.
            quoted = True
            continue
        if quoted or re.match(r"( {4}| {0,3}\t)", line):
            continue
        lines.append(line.strip(" \t"))
    return lines


def _command(words: list[str]) -> Command:
    if not words:
        return Command(Verb.RUN)
    if len(words) == 1:
        word = words[0]
        if word in (Verb.CANCEL.value, Verb.HELP.value):
            return Command(Verb(word))
        if word.startswith("stages="):
            names = word.removeprefix("stages=").split(",")
            known = {stage.value: stage for stage in _CHOOSABLE}
            if all(name in known for name in names):
                return Command(Verb.RUN, stages=tuple(stage for stage in _CHOOSABLE if stage.value in names))
    return Command(Verb.UNKNOWN, unknown=" ".join(words)[:80])
