"""What is done about a command: look, start, follow, and keep our comment and the commit status true.

    seen ──look──▶ authorised ──start──▶ triggering ──▶ triggered ──follow──▶ ended ──deliver──▶ final
      └── no ──▶ ended (answered) or final (silent)

Each arrow is written to disk before or after the one request that it is about, so that a worker killed at any
point is followed by one that finds out what has happened instead of doing it again: a build by the comment's id
among its parameters, our comment by its marker and author.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import statistics
from collections.abc import Iterable
from typing import Any

from bridge import commands
from bridge.api import ApiError, AwayError
from bridge.clock import Clock
from bridge.commands import Command, Verb
from bridge.delivery import Delivery
from bridge.drone import Build, BuildRequest, BuildStatus, Drone
from bridge.enrolment import Enrolment
from bridge.gitea import CommitState, Gitea
from bridge.metrics import Metrics
from bridge.patience import LaterError, Patience, Work
from bridge.replies import ONCE, SILENT, Note, Reason, Replies
from bridge.runs import Runs
from bridge.settings import Settings
from bridge.triggers import Outcome, ReplyState, State, Trigger, Triggers
from bridge.vetting import RefusalError, Vetting
from pytest_coopcloud.errors import BadInputError, CoopCloudError
from pytest_coopcloud.results import RunResult, Verdict

__all__ = ["Worker"]

#: An answer of the members endpoint that is older than this is asked for again before a build is started.
FRESH = 5.0
AT_ONCE = 20
HOUR = 3600.0

_VERDICTS = {
    Verdict.PASSED: Outcome.PASSED,
    Verdict.FAILED: Outcome.FAILED,
    Verdict.UNVERIFIED: Outcome.UNVERIFIED,
    Verdict.RUNNING: Outcome.UNVERIFIED,
}
_COMMIT_STATES = {Outcome.PASSED: CommitState.SUCCESS, Outcome.FAILED: CommitState.FAILURE}
_RUN_STATES = (State.SEEN, State.AUTHORISED, State.TRIGGERING, State.TRIGGERED)

_log = logging.getLogger(__name__)


class Worker:
    """Brings every row of the table to its end."""

    def __init__(
        self,
        settings: Settings,
        *,
        gitea: Gitea,
        drone: Drone,
        triggers: Triggers,
        enrolment: Enrolment,
        runs: Runs,
        replies: Replies,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.wake = asyncio.Event()
        self._settings = settings
        self._gitea = gitea
        self._drone = drone
        self._triggers = triggers
        self._runs = runs
        self._replies = replies
        self._clock = clock
        self._metrics = metrics
        self._patience = Patience(clock, parallel=settings.poll_parallel, in_doubt=settings.in_doubt)
        self._vetting = Vetting(settings, gitea=gitea, triggers=triggers, enrolment=enrolment, clock=clock)
        self._delivery = Delivery(
            settings, gitea=gitea, triggers=triggers, patience=self._patience, clock=clock, metrics=metrics
        )
        self._fresh: dict[int, float] = {}
        self._watched_at: float | None = None
        self._restarts_seen = 0

    @property
    def stuck(self) -> list[str]:
        """Why rows that have gone wrong again and again do not come further."""
        return self._patience.stuck

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set; `wake` says that there is something new."""
        while not stopping.is_set():
            self.wake.clear()
            try:
                delay = await self.tick()
            except CoopCloudError as error:
                _log.warning("could not go on", extra={"reason": error.message})
                delay = 2.0
            await self._clock.wait(self.wake, delay)

    async def tick(self) -> float:
        """Do what can be done now; return after how many seconds there is more to do."""
        await self._patience.each(Work.ADVANCE, self._look_at, self._due(State.SEEN))
        more = await self._start_all()
        await self._watch()
        await self._deliver_all()
        rows = self._triggers.unfinished()
        self._metrics.active.set(len(rows))
        self._forget(rows)
        return 0.0 if more else self._delay(rows)

    # Look: whose comment is it, what does it ask for, and which commit is meant.

    async def _look_at(self, trigger: Trigger) -> None:
        try:
            await self._look(trigger)
        except RefusalError as refusal:
            self._refuse(trigger, refusal.reason, refusal.hint)

    async def _look(self, trigger: Trigger) -> Trigger:
        """Have a command vetted and carry it out, but for a build: that is only authorised."""
        vetted = await self._vetting.vet(trigger)
        command = vetted.command
        if command.verb is Verb.RUN:
            self._fresh[trigger.key] = self._clock.monotonic()
            return self._triggers.change(trigger, state=State.AUTHORISED, sha=vetted.sha, repo=vetted.repo)
        if command.verb is Verb.CANCEL:
            await self._cancel(trigger)
            return trigger
        raise RefusalError(Reason.HELP if command.verb is Verb.HELP else Reason.UNKNOWN_WORD, hint=command.unknown)

    def _refuse(self, trigger: Trigger, reason: Reason, hint: str = "") -> None:
        self._metrics.refusals.labels(reason.value).inc()
        _log.info(
            "started nothing",
            extra={"repo": trigger.repo, "pr": trigger.pr, "comment": trigger.comment, "reason": reason.value},
        )
        answered = reason in ONCE and any(
            row.reason == reason.value and row.outcome is Outcome.REFUSED for row in self._answered(trigger)
        )
        trigger = self._triggers.get(trigger.key)
        if (reason in SILENT or answered) and not trigger.wanted:
            self._triggers.change(trigger, state=State.FINAL, outcome=Outcome.IGNORED, reason=reason.value)
            return
        self._triggers.change(
            trigger,
            state=State.ENDED,
            outcome=Outcome.REFUSED,
            reason=reason.value,
            ended_at=self._clock.time(),
            wanted=self._replies.refused(trigger, reason, hint=hint),
            status_wanted=self._status(trigger, CommitState.ERROR, "not started") if trigger.status_wanted else "",
        )

    def _answered(self, trigger: Trigger) -> list[Trigger]:
        """The other commands on this pull request that a refusal has answered already, the limits within the hour."""
        since = self._clock.time() - HOUR
        return [
            row
            for row in self._triggers.on_pull(trigger.repo, trigger.pr)
            if row.key != trigger.key and (row.reason == Reason.NOT_MEMBER.value or row.seen_at >= since)
        ]

    async def _cancel(self, trigger: Trigger) -> None:
        stopped = False
        for row in self._triggers.on_pull(trigger.repo, trigger.pr):
            if row.key == trigger.key or row.created_at > trigger.created_at or _command(row).verb is not Verb.RUN:
                continue
            if row.state in _RUN_STATES:
                self._triggers.change(row, stop=Outcome.CANCELLED.value, stop_by=trigger.author)
                stopped = True
            elif row.stop_by == trigger.author and (row.ended_at or 0.0) >= trigger.seen_at:
                stopped = True
        if not stopped:
            raise RefusalError(Reason.NOTHING_TO_CANCEL)
        await self._acknowledge(trigger, Outcome.DONE)

    async def _acknowledge(self, trigger: Trigger, outcome: Outcome) -> None:
        """End a command whose effect shows in another comment of ours; a reaction says that it was seen."""
        self._triggers.change(trigger, state=State.FINAL, outcome=outcome, ended_at=self._clock.time())
        try:
            await self._gitea.react(trigger.repo, trigger.comment, "eyes")
        except ApiError as error:
            _log.info("no reaction", extra={"comment": trigger.comment, "reason": error.message})

    # Start: one build, and one only.

    async def _start_all(self) -> bool:
        """Start what is authorised, the oldest first; say whether there is more that could be started now."""
        rows = self._due(State.AUTHORISED, State.TRIGGERING)
        for trigger in rows[:AT_ONCE]:
            await self._patience.guard(Work.ADVANCE, self._start_one, trigger)
            if self._drone.api.resumes_in:
                self._say_waiting()
                return False
        return len(rows) > AT_ONCE

    async def _start_one(self, trigger: Trigger) -> None:
        try:
            await self._start(trigger)
        except RefusalError as refusal:
            self._refuse(trigger, refusal.reason, refusal.hint)
        except AwayError as error:
            if not self._drone.api.resumes_in:
                raise
            # Drone is left alone for a while, whoever asks: this row keeps its place in front of the younger ones.
            _log.info("wait for Drone", extra={"comment": trigger.comment, "reason": error.message})
            raise LaterError(0.0) from error

    async def _start(self, trigger: Trigger) -> None:
        if trigger.state is State.TRIGGERING:
            trigger = await self._recover(trigger)
            if trigger.state is not State.AUTHORISED:
                return
        trigger = self._triggers.get(trigger.key)
        if newer := self._newer(trigger):
            trigger = self._triggers.change(trigger, stop=Outcome.SUPERSEDED.value, stop_by=newer.author)
        if trigger.stop:
            self._end(trigger, Outcome(trigger.stop))
            return
        builds = await self._drone.builds()
        if mine := [build for build in builds if build.comment == trigger.comment]:
            self._started(trigger, min(mine, key=lambda build: build.number), how="found")
            return
        if self._clock.monotonic() - self._fresh.get(trigger.key, -FRESH) >= FRESH:
            trigger = await self._look(trigger)
            if trigger.stop:
                self._end(trigger, Outcome(trigger.stop))
                return
        if await self._join(trigger):
            return
        self._check_limits(trigger)
        command = _command(trigger)
        try:
            request = BuildRequest(
                recipe=trigger.recipe,
                ref=trigger.sha,
                pr=trigger.pr,
                src=trigger.repo,
                comment=trigger.comment,
                stages=command.stages,
            )
        except BadInputError:
            raise RefusalError(Reason.BAD_NAME, trigger.recipe) from None
        for other in self._others(trigger):
            if other.sha != trigger.sha and not other.stop:
                self._triggers.change(other, stop=Outcome.SUPERSEDED.value, stop_by=trigger.author)
        floor = max((build.number for build in builds), default=0)
        trigger = self._triggers.change(trigger, state=State.TRIGGERING, floor=floor)
        try:
            build = await self._drone.create(request)
        except AwayError as error:
            if error.doubtful:
                self._patience.doubt(trigger, Work.ADVANCE)
            else:
                self._triggers.change(trigger, state=State.AUTHORISED)
            raise
        except ApiError:
            self._triggers.change(trigger, state=State.AUTHORISED)
            raise
        self._started(trigger, build, how="asked")

    async def _recover(self, trigger: Trigger) -> Trigger:
        """Find out whether a build that was asked for was made."""
        found = await self._drone.find(trigger.comment, newer_than=trigger.floor or 0)
        if found is not None:
            return self._started(trigger, found, how="found")
        self._patience.wait_in_doubt(trigger, Work.ADVANCE)
        return self._triggers.change(trigger, state=State.AUTHORISED)

    def _started(self, trigger: Trigger, build: Build | None, *, how: str) -> Trigger:
        self._patience.settled(trigger, Work.ADVANCE)
        self._watched_at = None
        if build is None:
            return self._end(trigger, Outcome.ERROR, note=Note.NO_PIPELINE)
        self._metrics.builds.labels(how).inc()
        now = self._clock.time()
        self._metrics.start_seconds.observe(max(0.0, now - trigger.seen_at))
        _log.info(
            "started a build",
            extra={
                "repo": trigger.repo,
                "pr": trigger.pr,
                "comment": trigger.comment,
                "build": build.number,
                "by": how,
            },
        )
        return self._triggers.change(trigger, state=State.TRIGGERED, build=build.number, triggered_at=now)

    def _others(self, trigger: Trigger) -> list[Trigger]:
        """The other builds of this pull request that have not ended."""
        return [
            row
            for row in self._triggers.on_pull(trigger.repo, trigger.pr)
            if row.key != trigger.key and row.state in (State.TRIGGERING, State.TRIGGERED)
        ]

    def _newer(self, trigger: Trigger) -> Trigger | None:
        """A newer command on this pull request that waits to be started with another commit."""
        rows = self._triggers.on_pull(trigger.repo, trigger.pr)
        later = [row for row in rows if (row.created_at, row.key) > (trigger.created_at, trigger.key)]
        return next((row for row in later if row.state is State.AUTHORISED and row.sha != trigger.sha), None)

    async def _join(self, trigger: Trigger) -> bool:
        wanted = _command(trigger).stages
        for other in self._others(trigger):
            if other.sha == trigger.sha and not other.stop and commands.covers(_command(other).stages, wanted):
                if other.reply_state is ReplyState.GONE:
                    # Somebody deleted our comment, and somebody asks again: show it anew.
                    self._triggers.change(other, reply_state=ReplyState.NONE, reply_id=None, reply_text="")
                await self._acknowledge(trigger, Outcome.JOINED)
                return True
        return False

    def _check_limits(self, trigger: Trigger) -> None:
        since = self._clock.time() - HOUR
        limits = self._settings
        if self._triggers.count(State.TRIGGERING, State.TRIGGERED) >= limits.limit_active:
            raise RefusalError(Reason.ACTIVE_LIMIT)
        if self._triggers.started_since(since, author_id=trigger.author_id) >= limits.limit_user_hour:
            raise RefusalError(Reason.USER_LIMIT)
        if self._triggers.started_since(since, repo=trigger.repo) >= limits.limit_repo_hour:
            raise RefusalError(Reason.REPO_LIMIT)

    def _say_waiting(self) -> None:
        for trigger in self._triggers.unfinished(State.AUTHORISED):
            self._want(trigger, self._replies.waiting(trigger), CommitState.PENDING, "waiting for Drone")

    # Follow: what Drone and the results say.

    async def _watch(self) -> None:
        """Look at the builds, where it is time for it."""
        rows = self._triggers.unfinished(State.TRIGGERED)
        interval = self._settings.progress_interval if rows else self._settings.poll_interval
        if self._watched_at is not None and self._clock.monotonic() - self._watched_at < interval:
            return
        self._watched_at = self._clock.monotonic()
        try:
            builds = await self._drone.builds()
        except ApiError as error:
            _log.warning("cannot see the builds", extra={"reason": error.message})
            self._give_up(rows)
            return
        now = self._drone.api.date or self._clock.time()
        self._adopt_restarts(builds)
        by_number = {build.number: build for build in builds}

        async def follow(trigger: Trigger) -> None:
            assert trigger.build is not None
            build = by_number.get(trigger.build) or await self._drone.build(trigger.build)
            await self._follow(trigger, build, builds, now)

        rows = self._triggers.unfinished(State.TRIGGERED)
        await self._patience.each(Work.FOLLOW, follow, rows)
        self._runs.forget({row.run_id for row in rows})

    async def _follow(self, trigger: Trigger, build: Build | None, builds: list[Build], now: float) -> None:
        if build is None:
            self._end(trigger, Outcome.ERROR, note=Note.BUILD_GONE)
            return
        result = self._result(trigger, build)
        if build.status.is_final:
            await self._finish(trigger, build, result, now)
        elif trigger.stop:
            await self._drone.cancel(build.number)
            self._end(trigger, Outcome(trigger.stop), build=build, result=result)
        elif build.status.is_queued:
            if build.created and now - build.created > self._settings.queue_deadline:
                await self._drone.cancel(build.number)
                self._end(trigger, Outcome.TIMED_OUT, build=build)
                return
            ahead = [one for one in builds if not one.status.is_final and one.number < build.number]
            text = self._replies.queued(
                trigger,
                ahead=len(ahead),
                starts_in=self._starts_in(trigger, ahead, now),
                blocked=build.status is BuildStatus.BLOCKED,
            )
            self._want(trigger, text, CommitState.PENDING, "queued")
        else:
            await self._progress(trigger, build, result, now)

    async def _progress(self, trigger: Trigger, build: Build, result: RunResult | None, now: float) -> None:
        began = build.started or build.created
        if began and now - began > self._settings.run_deadline:
            await self._drone.cancel(build.number)
            self._end(trigger, Outcome.TIMED_OUT, build=build, result=result)
            return
        if result is not None and result.finished_at is not None:
            if self._clock.time() - result.finished_at > self._settings.zombie_grace:
                await self._drone.cancel(build.number)
                self._end(trigger, _VERDICTS[result.verdict], build=build, result=result, note=Note.RUNNER_LOST)
            return
        if result is None:
            build = await self._drone.build(build.number) or build
        changes: dict[str, Any] = {}
        if trigger.started_at is None and build.started:
            changes["started_at"] = build.started
        if result is not None and result.run_id != trigger.run_id:
            changes["run_id"] = result.run_id
        if changes:
            trigger = self._triggers.change(trigger, **changes)
        self._want(trigger, self._replies.running(trigger, result, build.steps), CommitState.PENDING, "running")

    async def _finish(self, trigger: Trigger, build: Build, result: RunResult | None, now: float) -> None:
        """Say how a build ended: Drone knows that it did, the results know what was found."""
        unfinished = result is not None and result.finished_at is None
        if unfinished and build.finished and now - build.finished < self._settings.result_grace:
            # Somebody is still taking the run down, and will write how it died.
            return
        note: Note | None = None
        status = build.status
        if status is BuildStatus.KILLED:
            outcome = Outcome(trigger.stop) if trigger.stop else await self._killed(build)
        elif status is BuildStatus.DECLINED:
            outcome = Outcome.DECLINED
        elif status in (BuildStatus.SUCCESS, BuildStatus.FAILURE) and result is not None:
            outcome = _VERDICTS[result.verdict]
            if outcome is Outcome.PASSED and status is BuildStatus.FAILURE:
                outcome, note = Outcome.ERROR, Note.CONTRADICTION
        elif status is BuildStatus.SUCCESS:
            outcome = Outcome.PASSED
            if self._runs.seen_here:
                outcome, note = Outcome.ERROR, Note.NO_RESULT
        elif status is BuildStatus.FAILURE:
            outcome = Outcome.FAILED
            if self._runs.seen_here:
                outcome, note = Outcome.ERROR, Note.NOT_BEGUN
        else:
            outcome = Outcome.ERROR
        self._end(trigger, outcome, build=build, result=result, note=note)

    async def _killed(self, build: Build) -> Outcome:
        """Tell a timeout from a person's hand: Drone uses one word for both."""
        if build.duration is None:
            return Outcome.KILLED
        return Outcome.TIMED_OUT if build.duration >= await self._drone.timeout() else Outcome.KILLED

    def _result(self, trigger: Trigger, build: Build) -> RunResult | None:
        return self._runs.of_build(
            build=build.number,
            comment=trigger.comment,
            recipe=trigger.recipe,
            since=trigger.triggered_at or 0.0,
            run_id=trigger.run_id,
        )

    def _end(
        self,
        trigger: Trigger,
        outcome: Outcome,
        *,
        build: Build | None = None,
        result: RunResult | None = None,
        note: Note | None = None,
    ) -> Trigger:
        run_id = result.run_id if result is not None else trigger.run_id
        took = build.duration if build is not None else None
        if took is None and result is not None:
            took = result.duration_seconds
        ended = dataclasses.replace(trigger, outcome=outcome, duration=took, run_id=run_id)
        self._metrics.verdicts.labels(outcome.value).inc()
        _log.info(
            "a test ended",
            extra={"repo": trigger.repo, "pr": trigger.pr, "comment": trigger.comment, "outcome": outcome.value},
        )
        level = f", level {result.level}" if result is not None and result.stages else ""
        return self._triggers.change(
            trigger,
            state=State.ENDED,
            outcome=outcome,
            ended_at=self._clock.time(),
            duration=took,
            run_id=run_id,
            wanted=self._replies.ended(ended, result, build, note=note),
            status_wanted=self._status(
                ended, _COMMIT_STATES.get(outcome, CommitState.ERROR), f"{outcome.value}{level}"
            ),
        )

    def _give_up(self, rows: Iterable[Trigger]) -> None:
        """End what Drone has been silent about for longer than a test may take."""
        longest = self._settings.run_deadline
        for trigger in rows:
            began = None if trigger.started_at is None else max(trigger.started_at, trigger.triggered_at or 0.0)
            if began is not None and self._clock.time() - began > longest:
                self._end(trigger, Outcome.ERROR, note=Note.DRONE_AWAY)

    def _adopt_restarts(self, builds: list[Build]) -> None:
        """Follow a build that somebody restarted in Drone: a new number, with the parameters of ours."""
        for build in sorted(builds, key=lambda one: one.number):
            if build.number <= self._restarts_seen or build.comment is None:
                continue
            self._restarts_seen = build.number
            trigger = self._triggers.by_comment(build.comment)
            if trigger is None or trigger.build is None or build.number <= trigger.build:
                continue
            if trigger.recipe != build.params.get("RECIPE") or trigger.sha != build.params.get("REF"):
                continue
            _log.info("follow a restart", extra={"comment": trigger.comment, "build": build.number})
            self._metrics.builds.labels("restarted").inc()
            self._triggers.change(
                trigger,
                state=State.TRIGGERED,
                build=build.number,
                outcome=None,
                stop="",
                stop_by="",
                started_at=None,
                ended_at=None,
                duration=None,
                run_id="",
            )

    def _starts_in(self, trigger: Trigger, ahead: list[Build], now: float) -> float | None:
        past = self._triggers.durations(trigger.repo)
        if not past:
            return None
        usual = statistics.median(past)
        return sum(max(0.0, usual - (now - one.started)) if one.started else usual for one in ahead)

    # Deliver: make the comment and the status say what they should.

    def _want(self, trigger: Trigger, text: str, state: CommitState, description: str) -> None:
        status = self._status(trigger, state, description)
        if trigger.wanted != text or trigger.status_wanted != status:
            self._triggers.change(trigger, wanted=text, status_wanted=status)

    def _status(self, trigger: Trigger, state: CommitState, description: str) -> str:
        if not self._settings.commit_status or not trigger.sha:
            return trigger.status_text
        links = self._replies.links
        url = links.run_url(trigger.run_id) or (links.build_url(trigger.build) if trigger.build else "")
        return f"{state.value}|{description}|{url}"

    async def _deliver_all(self) -> None:
        rows = [row for row in self._triggers.unfinished() if row.undelivered or row.state is State.ENDED]
        await self._patience.each(
            Work.DELIVER, self._delivery.deliver, [row for row in rows if self._patience.is_due(row, Work.DELIVER)]
        )

    # When to come back, and what to forget.

    def _due(self, *states: State) -> list[Trigger]:
        return [row for row in self._triggers.unfinished(*states) if self._patience.is_due(row, Work.ADVANCE)]

    def _delay(self, rows: list[Trigger]) -> float:
        """Seconds until one of `rows` can be brought further."""
        delays = [self._settings.poll_interval]
        for row in rows:
            if row.state in (State.SEEN, State.AUTHORISED, State.TRIGGERING):
                server = self._gitea.read if row.state is State.SEEN else self._drone.api
                delays.append(max(self._patience.left(row, Work.ADVANCE), server.resumes_in))
            elif row.state is State.TRIGGERED:
                delays.append(self._settings.progress_interval)
            if row.undelivered:
                delays.append(
                    max(
                        self._patience.left(row, Work.DELIVER),
                        self._delivery.edit_wait(row),
                        self._gitea.write.resumes_in,
                    )
                )
        return max(0.02, min(delays))

    def _forget(self, rows: list[Trigger]) -> None:
        """Drop what was remembered of rows that are final."""
        keys = {row.key for row in rows}
        self._patience.forget(keys)
        self._vetting.forget(keys)
        for key in set(self._fresh) - keys:
            del self._fresh[key]


def _command(trigger: Trigger) -> Command:
    command = commands.parse(f"{commands.WORD} {trigger.words}")
    assert command is not None
    return command
