"""Whether a command may be carried out: whose comment it is, what it asks for, and which commit is meant.

All of it is asked of the forge itself, just before something is done; a webhook or a poll only said where to look.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge import commands
from bridge.clock import Clock
from bridge.commands import Command, Verb
from bridge.comments import Comment
from bridge.enrolment import Enrolment
from bridge.gitea import Gitea, Pull
from bridge.patience import LaterError
from bridge.replies import Reason
from bridge.settings import Settings
from bridge.triggers import Trigger, Triggers
from pytest_coopcloud.errors import BadNameError
from pytest_coopcloud.naming import check_recipe_name

__all__ = ["RefusalError", "Vetted", "Vetting"]


class RefusalError(Exception):
    """The command starts nothing, for `reason`; `hint` is outside text."""

    def __init__(self, reason: Reason, hint: str = "") -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True)
class Vetted:
    """A command that may be carried out.

    Attributes:
        command: What it asks for.
        repo: The repository, as the forge spells it now.
        sha: The commit that is meant; empty for what tests none.
    """

    command: Command
    repo: str
    sha: str


class Vetting:
    """Asks the forge about commands."""

    def __init__(
        self, settings: Settings, *, gitea: Gitea, triggers: Triggers, enrolment: Enrolment, clock: Clock
    ) -> None:
        self._settings = settings
        self._gitea = gitea
        self._triggers = triggers
        self._enrolment = enrolment
        self._clock = clock
        self._heads: dict[int, tuple[str, float]] = {}

    def forget(self, keep: set[int]) -> None:
        """Forget all rows but those with the keys `keep`."""
        for key in set(self._heads) - keep:
            del self._heads[key]

    async def vet(self, trigger: Trigger) -> Vetted:
        """Ask the forge whether this command may be carried out now, and which commit it means.

        Raises:
            RefusalError: It may not.
            LaterError: It is too early to know.
            ApiError: The forge did not say.
        """
        if self._clock.time() - trigger.seen_at > self._settings.comment_max_age:
            raise RefusalError(Reason.TOO_OLD)
        comment = await self._gitea.comment(trigger.repo, trigger.comment, trigger.created_at)
        command = await self._judge(trigger, comment)
        pull = await self._gitea.pull(trigger.repo, trigger.pr)
        if pull is None:
            raise RefusalError(Reason.PLAIN_ISSUE)
        if not pull.open:
            raise RefusalError(Reason.CLOSED)
        refusal: RefusalError | None = None
        sha = trigger.sha
        if command.verb is Verb.RUN:
            try:
                sha = await self._pin(trigger, pull)
            except RefusalError as error:
                refusal = error
        if not await self._may(trigger):
            raise RefusalError(Reason.NOT_MEMBER)
        if refusal is not None:
            raise refusal
        return Vetted(command, pull.repo, sha)

    async def _judge(self, trigger: Trigger, comment: Comment | None) -> Command:
        """Check the comment as the forge has it now against what was written down, and return its command."""
        if comment is None:
            raise RefusalError(Reason.GONE)
        ignored = {name.lower() for name in self._settings.ignore_users}
        if comment.author_id <= 0 or comment.imported or comment.author.lower() in ignored:
            raise RefusalError(Reason.BOT)
        if comment.author_id == await self._gitea.me():
            raise RefusalError(Reason.BOT)
        if comment.edited:
            raise RefusalError(Reason.EDITED)
        command = commands.parse(comment.body)
        if command is None or command.words != trigger.words or comment.author_id != trigger.author_id:
            raise RefusalError(Reason.CHANGED)
        if comment.pr != trigger.pr:
            raise RefusalError(Reason.PLAIN_ISSUE if comment.pr == 0 else Reason.CHANGED)
        if not self._enrolment.has(trigger.repo):
            if not self._enrolment.complete:
                raise LaterError(1.0)
            raise RefusalError(Reason.NOT_ENROLLED)
        if comment.author != trigger.author:
            self._triggers.change(trigger, author=comment.author)
        return command

    async def _pin(self, trigger: Trigger, pull: Pull) -> str:
        """Return the commit that was the head when the comment was made, or refuse where that is not certain."""
        try:
            check_recipe_name(trigger.recipe)
        except BadNameError:
            raise RefusalError(Reason.BAD_NAME, trigger.recipe) from None
        now = self._gitea.read.date or self._clock.time()
        if now - trigger.created_at > self._settings.comment_max_age:
            raise RefusalError(Reason.TOO_OLD)
        if trigger.sha:
            return trigger.sha
        ref = await self._gitea.pull_ref(pull.repo, pull.number)
        if await self._gitea.pushed_since(pull, trigger.created_at):
            raise RefusalError(Reason.HEAD_MOVED)
        if not pull.sha or (ref is not None and ref != pull.sha):
            # A push that the forge has not dealt with yet: once it has, the timeline tells of it.
            self._heads.pop(trigger.key, None)
            raise LaterError(1.0)
        head, since = self._heads.setdefault(trigger.key, (pull.sha, self._clock.monotonic()))
        if head != pull.sha:
            raise RefusalError(Reason.HEAD_MOVED)
        left = since + self._settings.settle - self._clock.monotonic()
        if left > 0:
            raise LaterError(left)
        return pull.sha

    async def _may(self, trigger: Trigger) -> bool:
        author = self._triggers.get(trigger.key).author
        if not await self._gitea.is_member(self._settings.members_org, author):
            return False
        # Logins change hands; the number does not.
        return await self._gitea.user_id(author) == trigger.author_id
