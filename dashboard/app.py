"""The routes. Everything is read only: GET and HEAD, no cookies, nothing that a request could change."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar

import httpx
import prometheus_client
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.exceptions import HTTPException

from dashboard import pages as static
from dashboard.api import Overview, Problem, RecipeStatus, RunSummary, overview, recipe_status, run_summary
from dashboard.badges import Style, badge_etag, badge_svg
from dashboard.builds import Drone
from dashboard.feed import atom, changes
from dashboard.fleet import Fleet, Sort
from dashboard.headers import REPORT_POLICY, SILENT_POLICY, SafeHeaders
from dashboard.logs import read_window, search
from dashboard.metrics import registry_of
from dashboard.pages import Pages
from dashboard.settings import Settings
from dashboard.store import Row, Store
from dashboard.watch import follow
from pytest_coopcloud.naming import RUN_ID
from pytest_coopcloud.report import stylesheet
from pytest_coopcloud.report.artifacts import image_type, open_artifact
from pytest_coopcloud.report.words import State
from pytest_coopcloud.results import BrokenResultError, RunResult

__all__ = ["create_app"]

_log = logging.getLogger(__name__)

_CHUNK = 64 * 1024
_STREAMS = 200
_TICK = 2.0
_HEARTBEAT = 15.0
_PRUNE_INTERVAL = 3600.0
_BADGE_CACHE = "public, max-age=60"
_SEARCHES = 2

#: Files of a run that are served beside what lies in `artifacts/`.
_WHOLE = {"results.json": "application/json", "junit.xml": "text/plain; charset=utf-8"}
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "There is none."}}


def create_app(
    settings: Settings,
    *,
    clock: Callable[[], float] = time.time,
    drone_transport: httpx.AsyncBaseTransport | None = None,
) -> FastAPI:
    """Make the dashboard.

    Args:
        settings: See `settings.py`.
        clock: Seconds since the epoch.
        drone_transport: How Drone is reached, where it is not the network.

    Example:
        >>> app = create_app(Settings(results_dir="/var/lib/coopcloud-ci/runs"))
    """
    store = Store(settings.runs_dir, silent_after=settings.silent_after, clock=clock)
    client = drone = None
    if settings.drone_url:
        token = settings.drone_token.get_secret_value()
        client = httpx.AsyncClient(
            base_url=settings.drone_url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=5.0,
            transport=drone_transport,
        )
        drone = Drone(client, settings.drone_repo, interval=settings.drone_interval, clock=clock)
    fleet = Fleet(store, drone, runners=settings.runners, clock=clock)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(follow(store, rescan_interval=settings.rescan_interval), name="follow the folder")]
        if drone:
            tasks.append(asyncio.create_task(drone.follow(), name="follow Drone"))
        if settings.keep_runs or settings.keep_days:
            tasks.append(asyncio.create_task(_prune(store, settings), name="retention"))
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if client:
            await client.aclose()

    app = FastAPI(
        title=settings.title,
        description="What the recipe tests found. Read only.",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(SafeHeaders)
    app.state.store, app.state.fleet = store, fleet
    pages = Pages(settings, fleet)
    _add_pages(app, settings, fleet, pages)
    _add_files(app, store)
    _add_machine(app, settings, fleet, pages)
    _add_errors(app, pages)
    return app


async def _prune(store: Store, settings: Settings) -> None:
    version = -1
    while True:
        # After the first reading, and then once an hour.
        version = await store.wait(version)
        removed = await store.prune(keep_runs=settings.keep_runs, keep_days=settings.keep_days)
        if removed:
            _log.info("retention removed %d runs: %s", len(removed), ", ".join(removed[:20]))
        await asyncio.sleep(_PRUNE_INTERVAL)


def _address(settings: Settings, request: Request) -> str:
    return settings.public_url or str(request.base_url).rstrip("/")


def _add_pages(app: FastAPI, settings: Settings, fleet: Fleet, pages: Pages) -> None:
    store = fleet.store
    streams = 0

    @app.get("/", include_in_schema=False)
    async def front(request: Request) -> Response:
        asked = request.query_params
        return HTMLResponse(
            pages.front(
                words=asked.get("q", "")[:80],
                state=_one_of(State, asked.get("verdict")),
                sort=_one_of(Sort, asked.get("sort")) or Sort.ATTENTION,
            )
        )

    @app.get("/recipe/{name}", include_in_schema=False)
    async def recipe(request: Request, name: str) -> Response:
        number = request.query_params.get("page", "1")
        page = pages.recipe(
            name, page=int(number) if number.isdecimal() and len(number) < 9 else 1, address=_address(settings, request)
        )
        if page is None:
            raise HTTPException(404, "No run of this recipe is known.")
        return HTMLResponse(page)

    @app.get("/build/{number}", include_in_schema=False)
    async def build(number: int) -> Response:
        row = store.of_build(number)
        if row is None:
            raise HTTPException(404, f"Build {number} has not written a result here.")
        return RedirectResponse(f"/run/{row.run_id}")

    @app.get("/run/{run_id}", include_in_schema=False)
    async def run(run_id: str) -> Response:
        found = await _result(store, run_id)
        if isinstance(found, str):
            return HTMLResponse(pages.broken(run_id, found))
        result, row = found
        return HTMLResponse(
            await asyncio.to_thread(pages.run, result, row, lambda path: _size(store.runs / run_id, path))
        )

    @app.get("/run/{run_id}/log/{path:path}", include_in_schema=False)
    async def log(request: Request, run_id: str, path: str) -> Response:
        found = await _result(store, run_id)
        if isinstance(found, str):
            return HTMLResponse(pages.broken(run_id, found))
        result, _ = found
        artifact = next((one for one in result.artifacts if one.path == path and one.kind in static.LOG_KINDS), None)
        if artifact is None or not _served(path):
            raise HTTPException(404, "The run has no such log.")
        folder = store.runs / run_id
        words = request.query_params.get("q", "")[:200].strip()
        part = request.query_params.get("part", "")
        number = int(part) if part.isdecimal() and len(part) < 9 else None
        try:
            if words:
                async with searching:
                    hits = await asyncio.to_thread(search, folder, path, words)
                return HTMLResponse(pages.log(result, artifact, None, hits, words))
            window = await asyncio.to_thread(read_window, folder, path, number)
        except FileNotFoundError:
            raise HTTPException(404, "The file of this log is not there.") from None
        return HTMLResponse(pages.log(result, artifact, window, None, ""))

    searching = asyncio.Semaphore(_SEARCHES)

    @app.get("/events", include_in_schema=False)
    async def events(run: str = "", recipe: str = "") -> Response:
        nonlocal streams
        if streams >= _STREAMS:
            raise HTTPException(503, "Too many pages follow the runs at once; this one can be reloaded.")

        async def follow_changes() -> AsyncIterator[str]:
            nonlocal streams
            streams += 1
            try:
                yield "retry: 2000\n\n"
                seen = _seen(fleet, run, recipe)
                while True:
                    live = bool(fleet.running())
                    await _change(fleet, _TICK if live else _HEARTBEAT)
                    new = _seen(fleet, run, recipe)
                    # While something runs its clock runs on.
                    yield "event: change\ndata: \n\n" if new != seen or live else ": still here\n\n"
                    seen = new
            finally:
                streams -= 1

        return StreamingResponse(
            follow_changes(),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"},
        )


def _seen(fleet: Fleet, run: str, recipe: str) -> object:
    if run:
        return fleet.store.row(run)
    return (fleet.store.revision(recipe), None) if recipe else fleet.version


async def _change(fleet: Fleet, timeout: float) -> None:
    """Wait for any change of what is known, at most `timeout` seconds."""
    store, drone = fleet.version
    waits = [asyncio.create_task(fleet.store.wait(store))]
    if fleet.drone:
        waits.append(asyncio.create_task(fleet.drone.wait(drone)))
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()


def _add_files(app: FastAPI, store: Store) -> None:
    @app.get("/run/{run_id}/report", include_in_schema=False)
    async def report(run_id: str) -> Response:
        _known(store, run_id)
        file, size = await asyncio.to_thread(_open, store.runs / run_id, "report.html")
        return _stream(file, size, "text/html; charset=utf-8", REPORT_POLICY)

    @app.get("/run/{run_id}/file/{path:path}", include_in_schema=False)
    async def file(run_id: str, path: str) -> Response:
        _known(store, run_id)
        if not _served(path):
            raise HTTPException(404, "The run has no such file.")
        file, size = await asyncio.to_thread(_open, store.runs / run_id, path)
        kind = _WHOLE.get(path) or image_type(file.read(16)) or "text/plain; charset=utf-8"
        file.seek(0)
        return _stream(file, size, kind, SILENT_POLICY)

    for name, kind, text, version in (
        ("style.css", "text/css", stylesheet, static.style_version),
        ("live.js", "text/javascript", static.script, static.script_version),
        ("icon.svg", "image/svg+xml", static.icon, static.script_version),
    ):
        _add_static(app, name, kind, text, version)


def _add_static(app: FastAPI, name: str, kind: str, text: Callable[[], str], version: Callable[[], str]) -> None:
    @app.get(f"/static/{name}", include_in_schema=False, name=name)
    async def static_file(request: Request) -> Response:
        # The address holds the version where a page asks, so that an old one is never used.
        fixed = request.query_params.get("v") == version()
        lasting = "public, max-age=31536000, immutable" if fixed else "no-cache"
        return Response(
            text(), media_type=kind, headers={"Cache-Control": lasting, "Content-Security-Policy": SILENT_POLICY}
        )


def _add_machine(app: FastAPI, settings: Settings, fleet: Fleet, pages: Pages) -> None:
    store = fleet.store
    registry = registry_of(fleet)

    async def badge(request: Request) -> Response:
        recipe, asked = request.path_params["recipe"], request.query_params
        word, level = pages.badge(recipe, asked.get("pr", "")[:20])
        svg = badge_svg(word, level, _one_of(Style, asked.get("style")) or Style.FLAT)
        headers = {"ETag": badge_etag(svg), "Cache-Control": _BADGE_CACHE, "Content-Security-Policy": SILENT_POLICY}
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(svg, media_type="image/svg+xml", headers=headers)

    # A plain route: what FastAPI does for typed parameters costs more than the badge.
    app.add_route("/badge/{recipe}.svg", badge)

    @app.get("/feed.atom", include_in_schema=False)
    async def feed(request: Request) -> Response:
        text = atom(changes(store), title=settings.title, address=_address(settings, request))
        return Response(text, media_type="application/atom+xml")

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        if not store.ready:
            return PlainTextResponse("the folder of results is being read\n", status_code=503)
        problems = fleet.problems()
        return PlainTextResponse(
            "".join(f"{problem}\n" for problem in problems) or "ok\n", status_code=503 if store.problem else 200
        )

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(prometheus_client.generate_latest(registry), media_type=prometheus_client.CONTENT_TYPE_LATEST)

    @app.get("/api", include_in_schema=False)
    async def api() -> Response:
        return HTMLResponse(pages.api(app.openapi()))

    @app.get("/api/overview", summary="All recipes, what runs, the queue, what is broken")
    async def api_overview() -> Overview:
        return overview(fleet)

    @app.get("/api/recipes", summary="All recipes with their newest run, by name")
    async def api_recipes() -> list[RecipeStatus]:
        return [recipe_status(row, fleet) for row in fleet.rows()]

    @app.get("/api/recipes/{name}", summary="One recipe", responses=_MISSING)
    async def api_recipe(name: str) -> RecipeStatus:
        row = fleet.row(name)
        if row is None:
            raise HTTPException(404, "No run of this recipe is known.")
        return recipe_status(row, fleet)

    @app.get("/api/runs", summary="Runs, newest first")
    async def api_runs(
        recipe: str = "", limit: Annotated[int, Query(ge=1, le=500)] = 50, offset: Annotated[int, Query(ge=0)] = 0
    ) -> list[RunSummary]:
        rows = store.of_recipe(recipe) if recipe else store.newest()
        return [run_summary(row, fleet) for row in rows[offset : offset + limit]]

    @app.get("/api/runs/{run_id}", summary="One run in full: its results.json", responses=_MISSING)
    async def api_run(run_id: str) -> RunResult:
        found = await _result(store, run_id)
        if isinstance(found, str):
            raise HTTPException(404, f"The results of this run cannot be read: {found}")
        return found[0]

    @app.get("/robots.txt", include_in_schema=False)
    async def robots() -> Response:
        return PlainTextResponse("User-agent: *\nDisallow: /run/\nDisallow: /events\n")


def _add_errors(app: FastAPI, pages: Pages) -> None:
    async def answer(request: Request, status: int, text: str) -> Response:
        if request.url.path.startswith("/api/"):
            return JSONResponse({"detail": text}, status)
        return HTMLResponse(pages.error(status, text), status)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        text = "There is no such page." if error.detail == "Not Found" else error.detail
        response = await answer(request, error.status_code, text)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def unreadable(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return await answer(request, 422, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        _log.error("%s failed", request.url.path, exc_info=error)
        return PlainTextResponse(
            "The dashboard failed at this page; its log says why.\n",
            500,
            headers={"Content-Security-Policy": SILENT_POLICY, "X-Content-Type-Options": "nosniff"},
        )


_Choice = TypeVar("_Choice", bound=enum.Enum)


def _one_of(kind: type[_Choice], value: str | None) -> _Choice | None:
    """Return the member that a request asks for; None for a word that is none of them."""
    return next((one for one in kind if one.value == value), None)


async def _result(store: Store, run_id: str) -> tuple[RunResult, Row] | str:
    """Return a whole run, or why it cannot be read."""
    broken = store.broken_run(run_id)
    if broken is not None:
        return broken.reason
    row = store.row(run_id)
    try:
        if row is not None:
            return await asyncio.to_thread(store.read, run_id), row
    except BrokenResultError as error:
        return str(error)
    except FileNotFoundError:
        pass
    raise HTTPException(404, "No such run is known.")


def _known(store: Store, run_id: str) -> None:
    if not RUN_ID.fullmatch(run_id) or (store.row(run_id) is None and store.broken_run(run_id) is None):
        raise HTTPException(404, "No such run is known.")


def _served(path: str) -> bool:
    """Whether a file of a run may be seen: its ledger, its lock and its private folders may not."""
    return path in _WHOLE or path.startswith("artifacts/")


def _open(folder: Path, path: str) -> tuple[BinaryIO, int]:
    try:
        # The folder itself must be none that somebody linked there.
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise FileNotFoundError(folder.name)
        file = open_artifact(folder, path)
    except FileNotFoundError:
        raise HTTPException(404, "The run has no such file.") from None
    return file, os.fstat(file.fileno()).st_size


def _size(folder: Path, path: str) -> int | None:
    """Return the size of a file that may be served; None where there is none."""
    if path != "report.html" and not _served(path):
        return None
    try:
        with open_artifact(folder, path) as file:
            return os.fstat(file.fileno()).st_size
    except OSError:
        return None


def _stream(file: BinaryIO, size: int, kind: str, policy: str) -> Response:
    """Answer with a file, a piece at a time; no more than it held when it was opened."""

    def pieces() -> Iterator[bytes]:
        left = size
        with file:
            while left > 0 and (piece := file.read(min(_CHUNK, left))):
                left -= len(piece)
                yield piece

    return StreamingResponse(pieces(), media_type=kind, headers={"Content-Security-Policy": policy})
