"""Every sentence the bot says, and the one way in which text from outside gets into it.

Text from outside (names, versions, log lines, Drone's errors) is put into code spans (`code`) or a fenced block (`fence`), where
the forge shows it as it is: no Markdown, no HTML, no mention, no reference, no end of the block from within.
"""

from __future__ import annotations

import enum
import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from bridge.commands import WORD
from bridge.drone import Build, BuildStatus, Step
from bridge.triggers import Outcome, Trigger
from pytest_coopcloud.redaction import Redactor
from pytest_coopcloud.results import LADDER, CauseClass, RunResult, StageResult
from pytest_coopcloud.results import Outcome as StageOutcome

__all__ = [
    "ONCE",
    "SILENT",
    "Links",
    "Note",
    "Reason",
    "Replies",
    "code",
    "duration",
    "fence",
    "marker",
]

LOG_LINES = 10
LINE_LENGTH = 300
ROWS = 24

_MEANING = {
    CauseClass.RECIPE: "in the recipe",
    CauseClass.TEST: "in the tests",
    CauseClass.INFRASTRUCTURE: "in the test system, not in the recipe",
}
_ICONS = {
    StageOutcome.PASS: "✅",
    StageOutcome.FAIL: "❌",
    StageOutcome.SKIP: "⏭️",
    StageOutcome.UNVERIFIED: "❔",
}
_STEP_ICONS = {BuildStatus.SUCCESS: "✅", BuildStatus.FAILURE: "❌", BuildStatus.RUNNING: "⏳"}


class Reason(enum.Enum):
    """Why a command started nothing. Those in `SILENT` are not answered."""

    EDITED = "edited"
    GONE = "gone"
    PLAIN_ISSUE = "plain_issue"
    CLOSED = "closed"
    BOT = "bot"
    CHANGED = "changed"
    NOT_ENROLLED = "not_enrolled"
    TOO_OLD = "too_old"
    NOT_MEMBER = "not_member"
    HEAD_MOVED = "head_moved"
    BAD_NAME = "bad_name"
    USER_LIMIT = "user_limit"
    REPO_LIMIT = "repo_limit"
    ACTIVE_LIMIT = "active_limit"
    UNKNOWN_WORD = "unknown_word"
    NOTHING_TO_CANCEL = "nothing_to_cancel"
    HELP = "help"


class Note(enum.Enum):
    """What is to be said of an end that explains itself badly."""

    NO_PIPELINE = (
        "Drone found no pipeline for this build. Whoever keeps the CI repository: its `.drone.yml` needs a pipeline with "
        "`trigger: event: [custom]`."
    )
    NO_RESULT = "The build ended well and left no results, so nothing is known about the recipe."
    NOT_BEGUN = "The build failed before the test began; its log says why."
    CONTRADICTION = "The test ended well, and the build failed after it; its log says why."
    BUILD_GONE = "The build is gone from Drone, so how it ended cannot be known."
    DRONE_AWAY = "Drone has not answered for longer than a test may take, so how it ended cannot be known."
    RUNNER_LOST = "The test ended, and Drone was never told: its runner is gone. The build was cancelled."


SILENT = frozenset(
    {
        Reason.EDITED,
        Reason.GONE,
        Reason.PLAIN_ISSUE,
        Reason.CLOSED,
        Reason.BOT,
        Reason.CHANGED,
        Reason.NOT_ENROLLED,
    }
)

#: Answered once on a pull request, however often it happens there.
ONCE = frozenset({Reason.NOT_MEMBER, Reason.USER_LIMIT, Reason.REPO_LIMIT, Reason.ACTIVE_LIMIT, Reason.BAD_NAME})


@dataclass(frozen=True)
class Links:
    """Where things are for people. Empty addresses make no link."""

    forge: str
    drone: str
    drone_repo: str
    dashboard: str

    def commit(self, repo: str, sha: str) -> str:
        """A commit, linked by its first ten digits."""
        return f"[`{sha[:10]}`]({self.forge}/{repo}/commit/{sha})"

    def build_url(self, number: int) -> str:
        """The page of a build."""
        return f"{self.drone}/{self.drone_repo}/{number}"

    def build(self, number: int) -> str:
        """A build, linked."""
        return f"[build {number}]({self.build_url(number)})"

    def run_url(self, run_id: str) -> str:
        """The page of a run; empty without a dashboard."""
        return f"{self.dashboard}/run/{run_id}" if self.dashboard and run_id else ""


def marker(comment: int) -> str:
    """Return the hidden line by which our answer to a comment is found again. It is the last line of the answer."""
    return f"<!-- coopcloud-ci:{comment} -->"


def code(text: str, *, limit: int = 80) -> str:
    """Return outside text as a code span of one line."""
    shown = _plain(" ".join(text.split()), limit).replace("`", "'").replace("|", "¦").strip()
    return f"`{shown}`" if shown else "`(empty)`"


def fence(lines: Iterable[str], *, language: str = "text") -> str:
    """Return outside text as a block that nothing in it can end."""
    shown = [_plain(line, LINE_LENGTH) for text in lines for line in text.splitlines()]
    ticks = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", "\n".join(["", *shown]))), 3)
    return "\n".join([f"{ticks}{language}", *shown, ticks])


def duration(seconds: float) -> str:
    """Return a duration as people say it."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Replies:
    """What our comment says about a trigger, at each point of its way.

    Args:
        org: Whose members may start a test.
        secrets: Values that must be in no comment, wherever they come from.
    """

    def __init__(self, links: Links, *, org: str, secrets: Iterable[str] = ()) -> None:
        self.links = links
        self._org = org
        self._redactor = Redactor()
        for secret in secrets:
            self._redactor.add(secret)

    def refused(self, trigger: Trigger, reason: Reason, *, hint: str = "") -> str:
        """Say why nothing was started, and what to do; `hint` is outside text."""
        return self._comment(trigger, self._refusal(reason, hint))

    def waiting(self, trigger: Trigger) -> str:
        """Say that Drone cannot be reached."""
        return self._comment(
            trigger,
            f"### ⏳ waiting · {self._what(trigger)}",
            "Drone does not answer. The test starts by itself when it does; there is no need to ask again.",
        )

    def queued(self, trigger: Trigger, *, ahead: int, starts_in: float | None, blocked: bool = False) -> str:
        """Say that the build waits, behind how many others, and about how long."""
        assert trigger.build is not None
        if blocked:
            place = "It waits for somebody to approve it in Drone."
        elif ahead == 0:
            place = "It is next."
        else:
            place = f"{ahead} {'build is' if ahead == 1 else 'builds are'} ahead of it."
        if starts_in is not None and ahead:
            place += f" It should start in about {duration(math.ceil(starts_in / 60) * 60)}."
        return self._comment(
            trigger, f"### 🕓 queued · {self._what(trigger)}", f"{place} {self.links.build(trigger.build)}"
        )

    def running(self, trigger: Trigger, result: RunResult | None, steps: tuple[Step, ...]) -> str:
        """Say which stages are done, and which one is going on."""
        assert trigger.build is not None
        if result is not None:
            table = _table(result.stages)
        else:
            table = "\n".join(f"- {_STEP_ICONS.get(step.status, '▫️')} {code(step.name)}" for step in steps[:ROWS])
        return self._comment(
            trigger,
            f"### 🔄 running · {self._what(trigger)}",
            table,
            self._where(trigger),
        )

    def ended(
        self, trigger: Trigger, result: RunResult | None, build: Build | None, *, note: Note | None = None
    ) -> str:
        """Say how it ended: level, stages, the first cause, and the command that repeats it."""
        assert trigger.outcome is not None
        passed = trigger.outcome is Outcome.PASSED
        title = f"### {'✅' if passed else '❌'} {trigger.outcome.value}"
        if result is not None and result.stages:
            title += f" · level {result.level} of {len(LADDER)}"
        parts = [f"{title} · {self._what(trigger)}", self._ending(trigger), note.value if note else ""]
        if result is not None:
            parts += [_table(result.stages), _cause(result)]
        if build is not None and build.error:
            parts.append(fence([build.error[:LINE_LENGTH]]))
        took = f" · took {duration(trigger.duration)}" if trigger.duration is not None else ""
        parts.append(f"{self._where(trigger)}{took}")
        if trigger.outcome in (Outcome.PASSED, Outcome.FAILED, Outcome.UNVERIFIED, Outcome.ERROR):
            parts.append(self._repeat(trigger, result))
        return self._comment(trigger, *parts)

    def _comment(self, trigger: Trigger, *parts: str) -> str:
        return self._redactor.clean("\n\n".join([*(part for part in parts if part), marker(trigger.comment)]))

    def _what(self, trigger: Trigger) -> str:
        sha = f" at {self.links.commit(trigger.repo, trigger.sha)}" if trigger.sha else ""
        words = f" · only {code(trigger.words.partition('=')[2])}" if trigger.words.startswith("stages=") else ""
        return f"{code(trigger.recipe)}{sha}{words}"

    def _where(self, trigger: Trigger) -> str:
        links = []
        if url := self.links.run_url(trigger.run_id):
            links.append(f"[{'Report' if trigger.outcome else 'Follow the run'}]({url})")
        if trigger.build is not None:
            links.append(self.links.build(trigger.build))
        return " · ".join(links)

    def _ending(self, trigger: Trigger) -> str:
        by = f" by {code(trigger.stop_by)}" if trigger.stop_by else ""
        return {
            Outcome.CANCELLED: f"It was cancelled{by}.",
            Outcome.SUPERSEDED: f"A newer commit of this pull request is tested instead; asked for{by}.",
            Outcome.TIMED_OUT: "It took longer than it may and was stopped.",
            Outcome.KILLED: "It was stopped in Drone.",
            Outcome.DECLINED: "It was declined in Drone.",
        }.get(trigger.outcome or Outcome.DONE, "")

    def _repeat(self, trigger: Trigger, result: RunResult | None) -> str:
        command = result.command if result is not None else ""
        if not command:
            source = f"{self.links.forge}/{trigger.repo}.git"
            command = "\n".join(
                [
                    f"git clone {source} && cd {trigger.recipe}",
                    f"git fetch origin {trigger.sha} && git checkout {trigger.sha}",
                    "pip install pytest-coopcloud && pytest --recipe=.",
                ]
            )
        block = fence([command], language="sh")
        return f"<details><summary>Repeat it on your own machine</summary>\n\n{block}\n\n</details>"

    def _refusal(self, reason: Reason, hint: str) -> str:
        about = code(hint) if hint else ""
        words = {
            Reason.TOO_OLD: f"This comment is too old to be acted on. Comment `{WORD}` again to test the commit of now.",
            Reason.NOT_MEMBER: f"Only members of {code(self._org)} may start a test, since it runs what the commit holds. "
            "Ask one of them to read the commit and to comment.",
            Reason.HEAD_MOVED: "Somebody pushed to this pull request at about the time of the comment, so it is not "
            f"certain which commit was meant. Read the newest one and comment `{WORD}` again.",
            Reason.BAD_NAME: f"{about} cannot be tested: a recipe's name has 1 to 63 characters of `a-z`, `0-9`, `-` "
            "and `_`, and begins with a letter or digit.",
            Reason.USER_LIMIT: "You have started as many tests in the last hour as one person may. Comment again later.",
            Reason.REPO_LIMIT: "This repository has had as many tests in the last hour as it may. Comment again later.",
            Reason.ACTIVE_LIMIT: "As many tests are waiting as may wait. Comment again when some of them are done.",
            Reason.NOTHING_TO_CANCEL: "There is no test of this pull request to cancel.",
        }
        if reason in SILENT:
            # Only said where our comment stands there already, waiting for Drone.
            return "### ⛔ not started\n\nThe comment that asked for it, or its pull request, was changed or closed meanwhile."
        if reason in words:
            return f"### ⛔ not started\n\n{words[reason]}"
        unknown = f"{about} is not understood, so nothing was started.\n\n" if about else ""
        return (
            f"{unknown}Write one of these on a line of its own:\n\n"
            f"- `{WORD}` tests the commit that is the head of this pull request now\n"
            f"- `{WORD} stages=install,upgrade` runs only these stages; there are `install`, `upgrade`, `backup`, "
            "`restore` and `recipe`\n"
            f"- `{WORD} cancel` stops the test of this pull request\n"
            f"- `{WORD} help` shows this\n\n"
            f"Members of {code(self._org)} may. The answer is one comment, which changes as the test goes on."
        )


def _table(stages: list[StageResult]) -> str:
    rows = ["| | stage | time | version | |", "| --- | --- | --- | --- | --- |"]
    for stage in stages[:ROWS]:
        if stage.outcome is not None:
            icon, took = _ICONS[stage.outcome], duration(stage.duration_seconds)
        else:
            icon, took = ("⏳", "…") if stage.running else ("▫️", "")
        if stage.outcome is StageOutcome.SKIP:
            took = ""
        name = stage.stage.value if not stage.variant else f"{stage.stage.value} from {code(stage.variant, limit=40)}"
        reason = code(stage.reason, limit=120) if stage.reason else ""
        rows.append(f"| {icon} | {name} | {took} | {_versions(stage)} | {reason} |")
    if len(stages) > ROWS:
        rows.append(f"| | {len(stages) - ROWS} more | | | |")
    return "\n".join(rows) if stages else ""


def _versions(stage: StageResult) -> str:
    versions = [version for version in (stage.version_before, stage.version_after) if version]
    return " → ".join(code(version, limit=40) for version in dict.fromkeys(versions))


def _cause(result: RunResult) -> str:
    parts = []
    if (first := result.first_cause) is not None:
        stage, cause = first
        lines = [cause.summary[:1000], *(["", *cause.log[:LOG_LINES]] if cause.log else [])]
        parts.append(f"**First cause**, stage {code(stage.title)}, {_MEANING[cause.kind]}:\n\n{fence(lines)}")
        if cause.hint:
            parts.append(f"What to do: {code(cause.hint, limit=300)}")
    if result.leaks:
        shown = [
            *result.leaks[:LOG_LINES],
            *([f"and {len(result.leaks) - LOG_LINES} more"][: len(result.leaks) > LOG_LINES]),
        ]
        parts.append(f"**Left behind:**\n\n{fence(shown)}")
    if result.died:
        parts.append(f"The run did not end by itself: {code(result.died, limit=200)}")
    return "\n\n".join(parts)


def _plain(text: str, limit: int) -> str:
    """Take out what changes how text is shown or whom it calls: control and format characters, mentions, comments."""
    kept = "".join(
        char if char == "\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else " "
        for char in text[: limit * 4]
    )
    # A sign that looks like one, and calls nobody.
    kept = kept.replace("@", "\uff20").replace("<!--", "<! --")
    return kept if len(kept) <= limit else f"{kept[: limit - 1]}…"
