"""A whole round: a comment under a pull request, and the bot's answer until it is final."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lab import samples
from lab.control import Say
from lab.gitea import Forge
from lab.processes import LabError
from lab.state import ORG, Lab

__all__ = ["Answer", "answer_to", "ask", "follow", "testme"]

BOT = "testme-bot"
#: How the first line of an answer begins that is not the last word yet.
_OPEN = ("### ⏳ waiting", "### 🕓 queued", "### 🔄 running")
_PAUSE = 0.25


@dataclass(frozen=True)
class Answer:
    """What the bot's comment says now: its text, and the seconds since it was asked."""

    text: str
    seconds: float

    @property
    def title(self) -> str:
        """The first line, without its marks of a heading."""
        return self.text.partition("\n")[0].lstrip("# ")

    @property
    def final(self) -> bool:
        """Whether it stays so."""
        return not self.text.startswith(_OPEN)

    @property
    def passed(self) -> bool:
        """Whether the commit passed."""
        return self.text.startswith("### ✅ passed")


def ask(forge: Forge, full_name: str, number: int, *, text: str = "!testme", by: str = samples.MAINTAINER) -> int:
    """Comment on a pull request, and return the comment's id."""
    return int(forge.comment(full_name, number, text, by=by)["id"])


def answer_to(forge: Forge, full_name: str, number: int, comment: int) -> dict[str, Any] | None:
    """Return the bot's comment that answers `comment`, or None where there is none yet."""
    marked = f"<!-- coopcloud-ci:{comment} -->"
    found = [one for one in forge.comments(full_name, number) if one["user"]["login"] == BOT and marked in one["body"]]
    if len(found) > 1:
        raise LabError(f"{len(found)} comments answer the comment {comment} of {full_name}#{number}")
    return found[0] if found else None


def follow(forge: Forge, full_name: str, number: int, comment: int, *, timeout: float) -> Iterator[Answer]:
    """Give each text of the answer as it changes, the final one last.

    Raises:
        LabError: It is not final after `timeout` seconds.
    """
    began = time.monotonic()
    last = ""
    while True:
        found = answer_to(forge, full_name, number, comment)
        seconds = time.monotonic() - began
        if found and found["body"] != last:
            last = found["body"]
            yield Answer(last, seconds)
            if Answer(last, seconds).final:
                return
        if seconds > timeout:
            raise LabError(
                f"the answer to comment {comment} of {full_name}#{number} is not final after {timeout:.0f} s: "
                f"{Answer(last, seconds).title or 'there is none'}\n\nhint: `./dev lab logs bridge`"
            )
        time.sleep(_PAUSE)


def testme(lab: Lab, recipe: str, *, variant: str, sha: str, timeout: float, say: Say) -> int:
    """Comment `!testme` as a maintainer, follow the answer, print it; return 0 where it passed, else 1."""
    if recipe not in lab.pulls:
        raise LabError(f"the lab has no recipe {recipe!r}.\n\nhint: one of {', '.join(lab.pulls)}")
    full_name = f"{ORG}/{recipe}"
    with Forge(lab) as forge:
        if variant:
            pull = samples.open_pull(lab, forge, recipe, variant)
        else:
            pull = forge.call("GET", f"/repos/{full_name}/pulls/{lab.pulls[recipe]}")
        head, number = pull["head"]["sha"], pull["number"]
        if sha and not head.startswith(sha):
            raise LabError(f"{full_name}#{number} is at {head[:12]}, and not at {sha[:12]}")
        comment = ask(forge, full_name, number)
        say(f"!testme · {lab.url('gitea')}/{full_name}/pulls/{number} at {head[:12]}")
        answer = Answer("", 0.0)
        for answer in follow(forge, full_name, number, comment, timeout=timeout):
            ticks = _ticks(answer.text)
            say(f"{answer.seconds:6.1f} s  {answer.title}" + (f"  [{ticks}]" if ticks and not answer.final else ""))
        say("")
        say(answer.text)
        return 0 if answer.passed else 1


def _ticks(text: str) -> str:
    """Return the stages of the answer's table with their marks, in one line."""
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return " ".join(f"{row[1].strip()} {row[2].strip()}" for row in rows[1:] if len(row) > 3)
