"""The app, as a test meets it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import requests

from pytest_coopcloud.docker import Docker, ExecResult
from pytest_coopcloud.errors import AppError
from pytest_coopcloud.inventory import STACK_LABEL
from pytest_coopcloud.naming import RunName
from pytest_coopcloud.proxy import Gateway, is_proxy_answer, session
from pytest_coopcloud.results import CauseClass, ServiceImage

__all__ = ["App"]


@dataclass
class App:
    """One deployment of the recipe: what a test talks to.

    Attributes:
        name: The run's names.
        version: The version that is deployed.
        gateway: Where its domain leads.
        http: A `requests` session in which its domain can be reached, TLS verified. Relative addresses are not resolved:
            write `app.http.get(app.url + "path")`, or use the fixture `http`.

    Example:
        >>> def test_front_page(app):
        ...     assert "Guestbook" in app.http.get(app.url).text
        ...     assert app.exec("db", ["psql", "--version"]).exit_code == 0
    """

    docker: Docker = field(repr=False)
    name: RunName
    version: str
    gateway: Gateway
    http: requests.Session = field(repr=False)

    @classmethod
    def of(cls, docker: Docker, name: RunName, version: str, gateway: Gateway) -> App:
        """Make the view of an app that is deployed."""
        return cls(docker=docker, name=name, version=version, gateway=gateway, http=session(gateway))

    @property
    def url(self) -> str:
        """Where the app answers, with a `/` at the end."""
        return f"https://{self.name.domain}/"

    @property
    def domain(self) -> str:
        """The host in `url`."""
        return self.name.domain

    def service(self, service: str = "app") -> dict[str, Any]:
        """Return what Docker says of a service (`docker service inspect`).

        Raises:
            AppError: The app has no such service; the message names those it has.
        """
        found = {raw["Spec"]["Name"].removeprefix(self.name.prefix): raw for raw in self._services()}
        if service not in found:
            raise AppError(
                f"{self.name.stack} has no service {service!r}",
                hint=f"its services are {', '.join(sorted(found)) or '(none)'}",
                cause=CauseClass.TEST,
            )
        return found[service]

    def container(self, service: str = "app") -> str:
        """Return the id of the newest running container of a service.

        Raises:
            AppError: None runs.
        """
        running = self.docker.containers(
            label=[f"{STACK_LABEL}={self.name.stack}", f"com.docker.swarm.service.name={self.name.prefix}{service}"],
            status="running",
        )
        if not running:
            self.service(service)
            raise AppError(f"service {service} of {self.name.stack} has no running container")
        return str(max(running, key=lambda raw: raw["Created"])["Id"])

    def exec(
        self,
        service: str,
        argv: Sequence[str] | str,
        *,
        user: str = "",
        environment: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> ExecResult:
        """Run a command in the running container of a service and return its exit code and output.

        Args:
            service: For example `app`.
            argv: The command and its arguments; one string is split like a shell would, without a shell.
            user: The user in the container.
            environment: More environment variables.
            check: Whether an exit code other than 0 raises.

        Raises:
            AppError: The command failed (and `check`), with its output; or no container runs.
        """
        words = shlex.split(argv) if isinstance(argv, str) else list(argv)
        result = self.docker.exec(self.container(service), words, user=user, environment=environment)
        if check and result.exit_code != 0:
            raise AppError(
                f"`{shlex.join(words)}` in service {service} ended with {result.exit_code}:\n{result.output}"
            )
        return result

    def logs(self, service: str = "app", *, tail: int = 2000) -> str:
        """Return the last lines that the containers of a service wrote, with time stamps, oldest container first."""
        containers = self.docker.containers(
            label=[f"{STACK_LABEL}={self.name.stack}", f"com.docker.swarm.service.name={self.name.prefix}{service}"]
        )
        parts = [self.docker.logs(raw["Id"], tail=tail) for raw in sorted(containers, key=lambda raw: raw["Created"])]
        return "".join(parts)

    @property
    def services(self) -> list[str]:
        """The names of its services."""
        return sorted(raw["Spec"]["Name"].removeprefix(self.name.prefix) for raw in self._services())

    def images(self) -> list[ServiceImage]:
        """Return what each service runs, by image and digest."""
        found = []
        for raw in self._services():
            image = str(raw["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"])
            reference, _, digest = image.partition("@")
            found.append(
                ServiceImage(
                    service=raw["Spec"]["Name"].removeprefix(self.name.prefix),
                    image=reference,
                    digest=digest or self.docker.digest(reference),
                )
            )
        return sorted(found, key=lambda one: one.service)

    def responds(self, path: str, statuses: Sequence[int], *, timeout: float) -> requests.Response:
        """Wait until the app itself answers a path with one of the statuses, and return the answer.

        The proxy has no event for a route that it learns, so it is asked: every 50 ms at first, every 500 ms at last.

        Raises:
            AppError: It did not within `timeout` seconds; the last answer says what came instead.
        """
        url = self.url + path.lstrip("/")
        deadline = time.monotonic() + timeout
        pause = 0.05
        while True:
            said, response = self._ask(url)
            if response is not None:
                if response.status_code in statuses:
                    return response
                said = f"{response.status_code} {response.reason}, {response.text[:200]!r}"
            if time.monotonic() > deadline:
                wanted = " or ".join(str(status) for status in statuses)
                raise AppError(
                    f"{url} did not answer {wanted} in {timeout:g} s; at last: {said}",
                    hint="see the route labels of the recipe, `health_path` and `health_status` of its enrolment, and the logs",
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def _ask(self, url: str) -> tuple[str, requests.Response | None]:
        try:
            response = self.http.get(url, timeout=10, allow_redirects=False)
        except requests.RequestException as error:
            return str(error), None
        said = is_proxy_answer(response)
        return said, None if said else response

    def _services(self) -> list[dict[str, Any]]:
        return self.docker.services(label=f"{STACK_LABEL}={self.name.stack}")

    def close(self) -> None:
        """Close the session."""
        self.http.close()
