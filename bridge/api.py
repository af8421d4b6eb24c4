"""Asking another server over HTTP: with a deadline, a limit of size, and a name for each way it can go wrong.

    CoopCloudError
    └── ApiError
        ├── AwayError       not now: try again (down, 5xx, 429, a redirect, half an answer); `doubtful` where it may have worked
        ├── RefusedError    no: 4xx, with its status
        └── TooLargeError   the answer is over the limit

No call sleeps. After `429` or `503` with `Retry-After`, and after failures in a row, the server is left alone for a while: calls
then raise `AwayError` at once, and `resumes_in` says for how long.
"""

from __future__ import annotations

import asyncio
import enum
import json
import random
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from bridge.clock import Clock
from bridge.metrics import Metrics
from pytest_coopcloud.errors import CoopCloudError

__all__ = ["Answer", "Api", "ApiError", "AwayError", "RefusedError", "Server", "TooLargeError"]

PATIENCE = 300.0
FAILURES_IN_A_ROW = 3

Params = dict[str, str | int]


class Server(enum.Enum):
    """Whom we ask."""

    FORGE = "forge"
    DRONE = "drone"


class ApiError(CoopCloudError):
    """Another server did not do what it was asked."""


class AwayError(ApiError):
    """It cannot answer now: try again.

    Attributes:
        doubtful: Whether the request may have had its effect nevertheless.
        status: The HTTP status; 0 where there was none.
    """

    def __init__(self, message: str, *, doubtful: bool = False, status: int = 0) -> None:
        super().__init__(message)
        self.doubtful = doubtful
        self.status = status


class RefusedError(ApiError):
    """It said no.

    Attributes:
        status: The HTTP status, 400 to 499.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class TooLargeError(ApiError):
    """Its answer is larger than we read."""


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Attributes:
        status: The HTTP status.
        data: The JSON in it; None where there is none.
        date: The server's own time, from its `Date` header; None without one.
        total: The `X-Total-Count` of a list; None without one.
    """

    status: int
    data: Any
    date: float | None
    total: int | None


class Api:
    """One server and the token for it.

    Args:
        server: Which, for messages and metrics.
        url: What all paths begin with, such as `https://git.example.org/api/v1`.
        authorization: The value of that header.
        client: The door; it must not follow redirects.
        timeout: Seconds that one request may take in all.
        limit: Bytes of the largest answer.
    """

    def __init__(
        self,
        server: Server,
        url: str,
        *,
        authorization: str,
        client: httpx.AsyncClient,
        clock: Clock,
        metrics: Metrics,
        timeout: float,
        limit: int,
    ) -> None:
        self.server = server
        self.url = url
        self.problem = "it has not been asked yet"
        self.date: float | None = None
        self._authorization = authorization
        self._client = client
        self._clock = clock
        self._metrics = metrics
        self._timeout = timeout
        self._limit = limit
        self._failures = 0
        self._paused_until = 0.0

    @property
    def resumes_in(self) -> float:
        """Seconds until it may be asked again; 0 where it may now."""
        return max(0.0, self._paused_until - self._clock.monotonic())

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        data: object = None,
        expect: tuple[int, ...] = (200,),
    ) -> Answer:
        """Send one request and return the answer, where its status is one of `expect`.

        Raises:
            AwayError: Try again.
            RefusedError: A 4xx that is not expected.
            TooLargeError: The answer is over the limit.
        """
        if self.resumes_in:
            raise AwayError(f"{self.server.value} is left alone for {self.resumes_in:.0f} s more: {self.problem}")
        what = f"{method} {path}"
        try:
            async with asyncio.timeout(self._timeout):
                answer, body = await self._send(method, path, params, data)
        except TooLargeError as error:
            self._metrics.api_errors.labels(self.server.value, "too_large").inc()
            error.message = f"{what}: {error.message}"
            raise
        except TimeoutError:
            raise self._failed("timeout", f"{what}: no answer in {self._timeout:g} s", doubtful=True) from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise self._failed("connect", f"{what}: {_said(error)}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failed("transport", f"{what}: {_said(error)}", doubtful=True) from None
        return self._judge(what, answer, body, expect)

    async def _send(
        self, method: str, path: str, params: Params | None, data: object
    ) -> tuple[httpx.Response, bytearray]:
        headers = {"Authorization": self._authorization, "Accept": "application/json"}
        async with self._client.stream(
            method, self.url + path, params=params, json=data, headers=headers, follow_redirects=False
        ) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > self._limit:
                    raise TooLargeError(f"the answer has more than {self._limit} bytes")
            return response, body

    def _judge(self, what: str, response: httpx.Response, body: bytearray, expect: tuple[int, ...]) -> Answer:
        status = response.status_code
        self.date = date = _date(response.headers.get("date"))
        if status in expect:
            data = None
            if body and status not in (204, 303):
                try:
                    data = json.loads(body)
                except (ValueError, RecursionError):
                    raise self._failed("broken", f"{what}: {status} with no JSON in it", doubtful=True) from None
            self._failures, self._paused_until, self.problem = 0, 0.0, ""
            total = response.headers.get("x-total-count", "")
            return Answer(status, data, date, int(total) if total.isdecimal() else None)
        if status == 429 or status >= 500:
            pause = _retry_after(response.headers.get("retry-after"), date or self._clock.time())
            raise self._failed(str(status), f"{what}: {status}", doubtful=status != 429, pause=pause)
        if status < 400:
            raise self._failed(str(status), f"{what}: {status}, which is no answer to it", doubtful=True)
        self._metrics.api_errors.labels(self.server.value, str(status)).inc()
        self._failures = 0
        if status in (401, 403):
            self.problem = f"{what}: {status}, {_message(body)}"
        raise RefusedError(f"{what}: {status}, {_message(body)}", status=status)

    def _failed(self, kind: str, message: str, *, doubtful: bool = False, pause: float | None = None) -> AwayError:
        self._metrics.api_errors.labels(self.server.value, kind).inc()
        self._failures += 1
        self.problem = message
        if pause is None and (kind == "connect" or self._failures >= FAILURES_IN_A_ROW):
            # Jitter keeps several bridges behind one proxy from coming back in step.
            pause = min(60.0, 0.5 * 2.0 ** min(self._failures, 8)) * random.uniform(0.5, 1.0)  # noqa: S311
        if pause:
            self._paused_until = self._clock.monotonic() + min(pause, PATIENCE)
        return AwayError(
            f"{self.server.value}: {message}", doubtful=doubtful, status=int(kind) if kind.isdecimal() else 0
        )


def _said(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()[:200]


def _message(body: bytearray) -> str:
    """What a refusal says, in one short line."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return "without a reason"
    said = data.get("message") if isinstance(data, dict) else None
    return " ".join(str(said).split())[:200] if said else "without a reason"


def _date(header: str | None) -> float | None:
    try:
        return parsedate_to_datetime(header).timestamp() if header else None
    except ValueError:
        return None


def _retry_after(header: str | None, now: float) -> float | None:
    if not header:
        return None
    if header.isdecimal():
        return float(header)
    moment = _date(header)
    return None if moment is None else max(0.0, moment - now)
