"""The bridge as a web application: routes only, and the two loops that live as long as it does.

GET  /healthz   how the bridge, the forge and Drone are
GET  /metrics   numbers for Prometheus
POST /hook      a webhook of the forge
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from bridge.api import Api, Server
from bridge.clock import Clock, SystemClock
from bridge.drone import Drone
from bridge.enrolment import Enrolment
from bridge.gitea import Gitea
from bridge.metrics import Metrics
from bridge.poller import Poller
from bridge.replies import Links, Replies
from bridge.runs import Runs
from bridge.settings import Settings
from bridge.triggers import State, StoreError, Triggers
from bridge.webhooks import IgnoredError, is_signed, read_event
from bridge.worker import Worker

__all__ = ["Bridge", "build_bridge", "create_app"]

#: A cycle in which nothing could be read may be late by this many intervals before the bridge says it is degraded.
LATE_CYCLES = 4

_log = logging.getLogger(__name__)


@dataclass
class Bridge:
    """The parts of one bridge, put together."""

    settings: Settings
    gitea: Gitea
    drone: Drone
    triggers: Triggers
    poller: Poller
    worker: Worker
    metrics: Metrics

    def health(self) -> dict[str, Any]:
        """Say how things are, in words that hold no secret."""
        forge = self.gitea.read.problem or self.gitea.write.problem
        drone = self.drone.api.problem
        late = self.poller.lag > LATE_CYCLES * self.settings.poll_interval
        stuck, failing = self.worker.stuck, self.poller.failing
        return {
            "status": "degraded" if forge or drone or late or stuck or failing else "ok",
            "forge": forge or "ok",
            "drone": drone or "ok",
            "poll_lag_seconds": round(self.poller.lag, 1),
            "repositories_failing": len(failing),
            "stuck": len(stuck),
            "stuck_because": stuck[0] if stuck else "",
            "waiting": self.triggers.count(State.SEEN, State.AUTHORISED, State.TRIGGERING),
            "active": self.triggers.count(State.TRIGGERED),
        }


def build_bridge(settings: Settings, *, client: httpx.AsyncClient, clock: Clock, triggers: Triggers) -> Bridge:
    """Put the parts together. Nothing is asked and nothing is started."""
    metrics = Metrics()

    def forge(token: str) -> Api:
        return Api(
            Server.FORGE,
            f"{settings.forge_url}/api/v1",
            authorization=f"token {token}",
            client=client,
            clock=clock,
            metrics=metrics,
            timeout=settings.api_timeout,
            limit=settings.response_limit,
        )

    write = forge(settings.forge_token.get_secret_value())
    split = settings.read_token != settings.forge_token
    gitea = Gitea(forge(settings.read_token.get_secret_value()) if split else write, write)
    drone = Drone(
        Api(
            Server.DRONE,
            f"{settings.drone_url}/api",
            authorization=f"Bearer {settings.drone_token.get_secret_value()}",
            client=client,
            clock=clock,
            metrics=metrics,
            timeout=settings.api_timeout,
            limit=settings.response_limit,
        ),
        repo=settings.drone_repo,
        branch=settings.drone_branch,
    )
    enrolment = Enrolment(
        gitea,
        clock,
        repos=settings.poll_repos,
        file=settings.poll_repos_file,
        orgs=settings.poll_orgs,
        topic=settings.poll_topic,
        interval=settings.enrol_interval,
    )
    links = Links(
        forge=settings.forge_public_url or settings.forge_url,
        drone=settings.drone_public_url or settings.drone_url,
        drone_repo=settings.drone_repo,
        dashboard=settings.dashboard_url,
    )
    worker = Worker(
        settings,
        gitea=gitea,
        drone=drone,
        triggers=triggers,
        enrolment=enrolment,
        runs=Runs(settings.runs_dir),
        replies=Replies(links, org=settings.members_org, secrets=settings.secrets),
        clock=clock,
        metrics=metrics,
    )
    poller = Poller(
        gitea,
        triggers,
        enrolment,
        clock=clock,
        metrics=metrics,
        found=worker.wake.set,
        parallel=settings.poll_parallel,
        interval=settings.poll_interval,
    )
    metrics.poll_lag.set_function(lambda: poller.lag)
    return Bridge(settings, gitea, drone, triggers, poller, worker, metrics)


def create_app(
    settings: Settings, *, transport: httpx.AsyncBaseTransport | None = None, clock: Clock | None = None
) -> FastAPI:
    """Make the application. It starts with the forge or Drone away, and says so in `/healthz` and its log.

    Args:
        transport: What carries requests, where that is not the network.
        clock: What time is, where that is not the machine's.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        triggers = Triggers(settings.database)
        limits = httpx.Limits(max_connections=settings.poll_parallel * 2 + 4)
        client = httpx.AsyncClient(
            transport=transport, timeout=settings.api_timeout, limits=limits, follow_redirects=False, trust_env=False
        )
        bridge = build_bridge(settings, client=client, clock=clock or SystemClock(), triggers=triggers)
        app.state.bridge = bridge
        stopping = asyncio.Event()
        loops = [
            asyncio.create_task(bridge.worker.run(stopping), name="worker"),
            asyncio.create_task(bridge.poller.run(stopping), name="poller"),
        ]
        app.state.loops = loops
        for loop in loops:
            loop.add_done_callback(_say_if_broken)
        _log.info("started", extra={"forge": settings.forge_url, "drone": settings.drone_url})
        try:
            yield
        finally:
            stopping.set()
            bridge.worker.wake.set()
            # What is being asked may end; whatever is cut off is found again at the next start.
            await asyncio.wait(loops, timeout=min(5.0, settings.api_timeout))
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await client.aclose()
            triggers.close()
            _log.info("stopped")

    app = FastAPI(title="coopcloud-ci bridge", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        if dead := [loop.get_name() for loop in app.state.loops if loop.done()]:
            return JSONResponse({"status": "broken", "stopped": dead}, status_code=503)
        try:
            return JSONResponse(app.state.bridge.health())
        except StoreError as error:
            return JSONResponse({"status": "broken", "store": error.message}, status_code=503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(app.state.bridge.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.post("/hook")
    async def hook(request: Request) -> Response:
        return await _hook(request, app.state.bridge)

    return app


async def _hook(request: Request, bridge: Bridge) -> Response:
    settings = bridge.settings

    def answer(status: int, word: str) -> Response:
        bridge.metrics.webhooks.labels(word).inc()
        return JSONResponse({"result": word}, status_code=status)

    secrets = [secret.get_secret_value() for secret in settings.webhook_secrets]
    if not secrets:
        return answer(404, "no_webhooks")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return answer(415, "not_json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > settings.webhook_limit:
            return answer(413, "too_large")
    if not is_signed(bytes(body), request.headers, secrets):
        return answer(401, "not_signed")
    try:
        comment = read_event(bytes(body), request.headers)
    except IgnoredError as ignored:
        return answer(202, ignored.reason.value)
    try:
        new = bridge.poller.consider(comment, source="webhook")
    except StoreError as error:
        _log.error("a webhook could not be written down", extra={"reason": error.message})
        return answer(503, "no_store")
    return answer(202, "new" if new else "nothing_new")


def _say_if_broken(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.critical("a loop broke", exc_info=task.exception(), extra={"loop": task.get_name()})
