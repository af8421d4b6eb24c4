"""Making our comment and the commit status say what they should.

A comment is written once, at most one edit in ten seconds after that, and never again where a person deleted it.
"""

from __future__ import annotations

import logging

from bridge.api import ApiError, AwayError, RefusedError
from bridge.clock import Clock
from bridge.gitea import CommitState, Gitea
from bridge.metrics import Metrics
from bridge.patience import Patience, Work
from bridge.replies import marker
from bridge.settings import Settings
from bridge.triggers import ReplyState, State, Trigger, Triggers

__all__ = ["Delivery"]

_log = logging.getLogger(__name__)


class Delivery:
    """Brings the comment and the status of a row to what is wanted."""

    def __init__(
        self,
        settings: Settings,
        *,
        gitea: Gitea,
        triggers: Triggers,
        patience: Patience,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._gitea = gitea
        self._triggers = triggers
        self._patience = patience
        self._clock = clock
        self._metrics = metrics

    async def deliver(self, trigger: Trigger) -> None:
        """Write what is wanted, as far as it may be written now; a row that has ended and says so is final.

        Raises:
            ApiError: The forge did not take it.
            LaterError: It is not known yet whether it did.
        """
        if trigger.wanted != trigger.reply_text and self.edit_wait(trigger) <= 0:
            trigger = await self._deliver_comment(trigger)
        if trigger.status_wanted != trigger.status_text:
            trigger = await self._deliver_status(trigger)
        if trigger.state is State.ENDED and not trigger.undelivered:
            self._triggers.change(trigger, state=State.FINAL)

    async def _deliver_comment(self, trigger: Trigger) -> Trigger:
        if trigger.reply_state is ReplyState.POSTING:
            trigger = await self._recover_comment(trigger)
        try:
            if trigger.reply_state is ReplyState.NONE:
                return await self._post(trigger)
            if trigger.reply_state is ReplyState.POSTED and self.edit_wait(trigger) <= 0:
                return await self._edit(trigger)
        except RefusedError as error:
            if error.status == 401:
                raise
            # Locked, blocked or archived: the test goes on without a comment.
            _log.warning("no comment", extra={"comment": trigger.comment, "reason": error.message})
            return self._triggers.change(trigger, reply_state=ReplyState.REFUSED)
        return trigger

    async def _post(self, trigger: Trigger) -> Trigger:
        trigger = self._triggers.change(trigger, reply_state=ReplyState.POSTING)
        try:
            number = await self._gitea.post_comment(trigger.repo, trigger.pr, trigger.wanted)
        except AwayError as error:
            if error.doubtful:
                self._patience.doubt(trigger, Work.DELIVER)
            else:
                self._triggers.change(trigger, reply_state=ReplyState.NONE)
            raise
        except ApiError:
            self._triggers.change(trigger, reply_state=ReplyState.NONE)
            raise
        return self._delivered(trigger, number)

    async def _edit(self, trigger: Trigger) -> Trigger:
        assert trigger.reply_id is not None
        if await self._gitea.edit_comment(trigger.repo, trigger.reply_id, trigger.wanted):
            return self._delivered(trigger, trigger.reply_id)
        _log.info("our comment was deleted", extra={"comment": trigger.comment})
        return self._triggers.change(trigger, reply_state=ReplyState.GONE)

    async def _recover_comment(self, trigger: Trigger) -> Trigger:
        """Find out whether a comment that was sent was written."""
        number = await self._gitea.find_comment(
            trigger.repo,
            trigger.pr,
            marker=marker(trigger.comment),
            author_id=await self._gitea.me(),
            since=trigger.created_at,
        )
        if number is None:
            self._patience.wait_in_doubt(trigger, Work.DELIVER)
            return self._triggers.change(trigger, reply_state=ReplyState.NONE)
        self._patience.settled(trigger, Work.DELIVER)
        return self._triggers.change(
            trigger, reply_state=ReplyState.POSTED, reply_id=number, reply_text="", reply_at=self._clock.time()
        )

    def _delivered(self, trigger: Trigger, number: int) -> Trigger:
        self._metrics.writes.labels("comment").inc()
        return self._triggers.change(
            trigger,
            reply_state=ReplyState.POSTED,
            reply_id=number,
            reply_text=trigger.wanted,
            reply_at=self._clock.time(),
        )

    async def _deliver_status(self, trigger: Trigger) -> Trigger:
        state, description, url = trigger.status_wanted.split("|", 2)
        try:
            await self._gitea.set_status(
                trigger.repo,
                trigger.sha,
                CommitState(state),
                context=self._settings.status_context,
                description=description,
                url=url,
            )
        except RefusedError as error:
            if error.status == 401:
                raise
            # The bot may not write there, or the commit is gone: the comment has to do.
            _log.warning("no commit status", extra={"comment": trigger.comment, "reason": error.message})
        else:
            self._metrics.writes.labels("status").inc()
        return self._triggers.change(trigger, status_text=trigger.status_wanted)

    def edit_wait(self, trigger: Trigger) -> float:
        """Seconds until our comment may be changed again."""
        if trigger.reply_at is None or trigger.reply_state is not ReplyState.POSTED:
            return 0.0
        left = trigger.reply_at + self._settings.edit_interval - self._clock.time()
        # The clock was set back: rather one edit too early than none for hours.
        return left if left <= self._settings.edit_interval else 0.0
