import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from dashboard.app import create_app
from dashboard.settings import Settings
from tests.dashboard.drone import FakeDrone

#: The dashboard's clock. Files that a test writes are as old as the machine's clock says, so it is that of the machine.
NOW = float(int(time.time()))


class Client:
    """Ask an app without a server and without its background tasks."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    def get(self, address: str, **options: Any) -> httpx.Response:
        return self.request("GET", address, **options)

    def request(self, method: str, address: str, **options: Any) -> httpx.Response:
        return asyncio.run(self._request(method, address, options))

    def ask_drone(self) -> None:
        asyncio.run(self.app.state.fleet.drone.refresh())

    async def _request(self, method: str, address: str, options: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://dashboard.test") as client:
            return await client.request(method, address, **options)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def drone() -> FakeDrone:
    return FakeDrone()


@pytest.fixture
def make_app(runs: Path, drone: FakeDrone) -> Callable[..., FastAPI]:
    """Make a dashboard of `runs`, with the folder read once; `with_drone=True`: joined with the fake."""

    def make(*, with_drone: bool = False, clock: Callable[[], float] = lambda: NOW, **settings: Any) -> FastAPI:
        joined = {"drone_url": "http://drone.test", "drone_repo": "coop-cloud/recipe-ci"} if with_drone else {}
        app = create_app(
            Settings(results_dir=runs, forge_url="https://git.example.org", **joined, **settings),
            clock=clock,
            drone_transport=drone.transport,
        )
        app.state.store.refresh_now()
        return app

    return make


@pytest.fixture
def client(make_app: Callable[..., FastAPI]) -> Callable[..., Client]:
    """Ask a dashboard of `runs` without its background tasks: `client().get("/")`."""

    def ask(**options: Any) -> Client:
        return Client(make_app(**options))

    return ask


@pytest.fixture
def serve() -> Iterator[Callable[[FastAPI], str]]:
    """Serve an app on a free port, with its background tasks, and return its address."""
    with contextlib.ExitStack() as stack:

        def start(app: FastAPI) -> str:
            server = uvicorn.Server(
                uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=1, lifespan="on")
            )
            listening = socket.create_server(("127.0.0.1", 0))
            stack.callback(listening.close)
            thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
            thread.start()

            def stop() -> None:
                server.should_exit = True
                thread.join()

            stack.callback(stop)
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            # The socket listens already: the first answer comes when the server does.
            httpx.get(f"{address}/static/icon.svg", timeout=10)
            return address

        yield start
