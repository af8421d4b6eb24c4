"""Drone's list of builds, over a mock transport, with the shape that the real one has."""

import json
from typing import Any

import httpx


class FakeDrone:
    def __init__(self) -> None:
        self.builds: list[dict[str, Any]] = []
        self.status = 200
        self.body: bytes | None = None
        self.requests: list[httpx.Request] = []
        self.transport = httpx.MockTransport(self._answer)

    def add(self, number: int, status: str, *, recipe: str = "", pr: str = "", **more: Any) -> None:
        params = {"RECIPE": recipe, "REF": "ab" * 20, "PR": pr, "SRC": f"coop-cloud/{recipe}"} if recipe else None
        row = {"id": number + 100, "number": number, "status": status, "event": "custom", "created": 0, "started": 0}
        self.builds.insert(0, {**row, "finished": 0, **({"params": params} if params else {}), **more})

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        assert request.method == "GET"
        assert request.url.path == "/api/repos/coop-cloud/recipe-ci/builds"
        if self.body is not None or self.status != 200:
            return httpx.Response(self.status, content=self.body or b"")
        size = int(request.url.params["per_page"])
        first = (int(request.url.params["page"]) - 1) * size
        return httpx.Response(200, content=json.dumps(self.builds[first : first + size]).encode())
