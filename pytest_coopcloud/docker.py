"""The Docker Engine, through its own SDK where that can do it, else through the `docker` command.

`Docker` answers in the engine's own words (dictionaries as the API gives them) and turns every failure of the connection
into `EngineError`. Names of labels and filters stand in `inventory.py`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.context
import docker.errors
import docker.utils.utils
import requests

from pytest_coopcloud.cli import run
from pytest_coopcloud.errors import BadInputError, CLIError, EngineError, ImageError
from pytest_coopcloud.results import CauseClass

__all__ = ["Docker", "ExecResult", "client_environment"]

#: Seconds that one call to the engine may take. Long ones (pull, events, wait) have their own.
CALL_TIMEOUT = 60.0
_FOREVER = 10**7

Raw = dict[str, Any]


@dataclass(frozen=True)
class ExecResult:
    """What a command in a container gave: its exit code and its output, both streams together."""

    exit_code: int
    output: str


@contextlib.contextmanager
def _engine_errors(what: str) -> Iterator[None]:
    """Turn what the SDK raises into ours. `NotFound` passes: its callers know what it means."""
    try:
        yield
    except docker.errors.NotFound:
        raise
    except docker.errors.APIError as error:
        raise EngineError(f"the engine refused to {what}: {error.explanation or error}") from error
    except (docker.errors.DockerException, requests.RequestException, ConnectionError, TimeoutError) as error:
        raise EngineError(
            f"the engine did not answer when asked to {what}: {error}", hint="is it running? try `docker info`"
        ) from error


class Docker:
    """One connection to the engine that the `docker` command would use (`DOCKER_HOST`, or the current context).

    Raises:
        EngineError: There is no engine, or it does not answer.
    """

    def __init__(self) -> None:
        self.host = os.environ.get("DOCKER_HOST") or _context_host()
        with _engine_errors("open a connection"):
            kwargs: dict[str, Any] = {"base_url": self.host} if self.host else {}
            if self.host and "DOCKER_TLS_VERIFY" in os.environ:
                kwargs = dict(docker.utils.utils.kwargs_from_env())
            self.api = docker.APIClient(version="auto", timeout=int(CALL_TIMEOUT), **kwargs)
        # Events are read on a connection of their own: a long stream must not take a place in the pool.
        self._kwargs = kwargs

    def close(self) -> None:
        """Close the connection."""
        self.api.close()

    # What the engine is

    @functools.cached_property
    def info(self) -> Raw:
        """What `docker info` says, read once."""
        with _engine_errors("describe itself"):
            return dict(self.api.info())

    def check_swarm(self) -> None:
        """Make sure that the engine is a swarm manager.

        Raises:
            BadInputError: It is not; the hint says how to make it one.
        """
        swarm = self.info.get("Swarm") or {}
        if swarm.get("LocalNodeState") != "active" or not swarm.get("ControlAvailable"):
            raise BadInputError(
                f"the Docker Engine at {self.host or 'its default address'} is no swarm manager "
                f"(state {swarm.get('LocalNodeState') or 'unknown'!r})",
                hint="run `docker swarm init`",
                cause=CauseClass.INFRASTRUCTURE,
            )

    @property
    def nodes(self) -> int:
        """How many nodes the swarm has."""
        return int((self.info.get("Swarm") or {}).get("Nodes") or 1)

    # Lists. Each takes the engine's own filters.

    def services(self, **filters: Any) -> list[Raw]:
        """List services."""
        with _engine_errors("list services"):
            return list(self.api.services(filters=filters))

    def tasks(self, **filters: Any) -> list[Raw]:
        """List tasks, dead ones included."""
        with _engine_errors("list tasks"):
            return list(self.api.tasks(filters=filters))

    def containers(self, **filters: Any) -> list[Raw]:
        """List containers, stopped ones included."""
        with _engine_errors("list containers"):
            return list(self.api.containers(all=True, filters=filters))

    def networks(self, **filters: Any) -> list[Raw]:
        """List networks."""
        with _engine_errors("list networks"):
            return list(self.api.networks(filters=filters))

    def volumes(self, **filters: Any) -> list[Raw]:
        """List volumes."""
        with _engine_errors("list volumes"):
            return list(self.api.volumes(filters=filters)["Volumes"] or [])

    def secrets(self, **filters: Any) -> list[Raw]:
        """List secrets (never their values)."""
        with _engine_errors("list secrets"):
            return list(self.api.secrets(filters=filters))

    def configs(self, **filters: Any) -> list[Raw]:
        """List configs."""
        with _engine_errors("list configs"):
            return list(self.api.configs(filters=filters))

    def images(self, **filters: Any) -> list[Raw]:
        """List images."""
        with _engine_errors("list images"):
            return list(self.api.images(filters=filters))

    # Changes

    def stack_deploy(self, stack: str, compose: str, *, log: Path | None, redact: Callable[[str], str]) -> None:
        """Submit a stack with `docker stack deploy`, with the user's registry login, and return at once.

        Raises:
            CLIError: The engine refused it.
        """
        # On one node the image is already there, at the digest that was pulled; asking the registry again costs seconds.
        resolve = "never" if self.nodes == 1 else "changed"
        argv = ["docker", "stack", "deploy", "--with-registry-auth", "--resolve-image", resolve, "-c", "-", stack]
        try:
            run(argv, timeout=CALL_TIMEOUT, input=compose, log=log, redact=redact, env=client_environment(self.host))
        except CLIError as error:
            text = f"{error.stderr}{error.stdout}"
            if "only updates to Labels are allowed" in text:
                raise CLIError(
                    error.argv,
                    error.returncode,
                    error.stdout,
                    error.stderr,
                    hint="the file of a config changed and its version did not: raise its `export ..._VERSION` in abra.sh",
                    cause=CauseClass.RECIPE,
                ) from error
            engine_away = "Cannot connect to the Docker daemon" in text or "connection refused" in text
            error.cause = CauseClass.INFRASTRUCTURE if engine_away else CauseClass.RECIPE
            raise

    def create_secret(self, name: str, value: str, labels: Mapping[str, str]) -> None:
        """Create a secret."""
        with _engine_errors(f"create secret {name}"):
            self.api.create_secret(name, value.encode(), labels=dict(labels))

    def create_config(self, name: str, content: str, labels: Mapping[str, str]) -> None:
        """Create a config."""
        with _engine_errors(f"create config {name}"):
            self.api.create_config(name, content.encode(), labels=dict(labels))

    def create_network(self, name: str, labels: Mapping[str, str]) -> str:
        """Create an attachable overlay network and return its id."""
        with _engine_errors(f"create network {name}"):
            made = self.api.create_network(name, driver="overlay", attachable=True, labels=dict(labels), scope="swarm")
        return str(made["Id"])

    def remove(self, kind: str, name: str) -> bool:
        """Remove a `service`, `container`, `network`, `config`, `secret` or `volume`; True when it is not there any more.

        A container is killed, and takes its anonymous volumes along. What is still in use stays, and False is returned.
        """
        removers: dict[str, Callable[[], object]] = {
            "service": lambda: self.api.remove_service(name),
            "container": lambda: self.api.remove_container(name, force=True, v=True),
            "network": lambda: self.api.remove_network(name),
            "config": lambda: self.api.remove_config(name),
            "secret": lambda: self.api.remove_secret(name),
            "volume": lambda: self.api.remove_volume(name, force=True),
        }
        try:
            removers[kind]()
        except docker.errors.NotFound:
            return True
        except docker.errors.APIError:
            # "in use", "removal already in progress", "has active endpoints": the caller asks again.
            return False
        except (docker.errors.DockerException, requests.RequestException, ConnectionError) as error:
            raise EngineError(f"the engine did not answer when asked to remove {kind} {name}: {error}") from error
        return True

    def inspect(self, kind: str, name: str) -> Raw:
        """Return all that the engine says of one thing.

        Raises:
            EngineError: It is gone, or the engine does not answer.
        """
        lookers: dict[str, Callable[[], Any]] = {
            "service": lambda: self.api.inspect_service(name),
            "task": lambda: self.api.inspect_task(name),
            "container": lambda: self.api.inspect_container(name),
            "network": lambda: self.api.inspect_network(name),
            "config": lambda: self.api.inspect_config(name),
            "secret": lambda: self.api.inspect_secret(name),
            "volume": lambda: self.api.inspect_volume(name),
        }
        try:
            with _engine_errors(f"look at {kind} {name}"):
                return dict(lookers[kind]())
        except docker.errors.NotFound as error:
            raise EngineError(f"{kind} {name} is gone") from error

    # Images

    def image(self, reference: str) -> Raw | None:
        """Return what the engine knows of an image, or None where it has none of that name."""
        try:
            with _engine_errors(f"look at image {reference}"):
                return dict(self.api.inspect_image(reference))
        except docker.errors.NotFound:
            return None

    def digest(self, reference: str) -> str:
        """Return what pins an image: its repository digest, or its id where it was built here; empty where it is gone."""
        found = self.image(reference)
        if found is None:
            return ""
        digests = found.get("RepoDigests") or []
        return str(digests[0]).partition("@")[2] if digests else str(found["Id"])

    def pull(self, reference: str, *, progress: Callable[[str], None]) -> None:
        """Pull an image with the user's registry login.

        Raises:
            ImageError: It cannot be had; its cause says whether the recipe names an image that does not exist, or the
                registry is away, refuses or limits us.
        """
        layers: dict[str, tuple[int, int]] = {}
        try:
            with _engine_errors(f"pull {reference}"):
                for line in self.api.pull(reference, stream=True, decode=True):
                    if "error" in line:
                        raise _image_error(reference, str(line["error"]))
                    detail = line.get("progressDetail") or {}
                    if detail.get("total"):
                        layers[str(line.get("id"))] = (int(detail.get("current") or 0), int(detail["total"]))
                        done, total = (sum(column) for column in zip(*layers.values(), strict=True))
                        progress(f"pulling {reference} {done / 1e6:.0f}/{total / 1e6:.0f} MB")
        except docker.errors.NotFound as error:
            raise _image_error(reference, error.explanation or str(error)) from error
        except EngineError as error:
            raise _image_error(reference, error.message) from error

    # Containers

    def exec(
        self, container: str, argv: Sequence[str], *, user: str = "", environment: Mapping[str, str] | None = None
    ) -> ExecResult:
        """Run a command in a running container and wait for it.

        Raises:
            EngineError: The container does not run, or the engine is away.
        """
        try:
            with _engine_errors(f"run {argv[0]} in container {container[:12]}"):
                made = self.api.exec_create(
                    container, list(argv), user=user, environment=dict(environment) if environment else None
                )
                output = self.api.exec_start(made["Id"])
                code = self.api.exec_inspect(made["Id"])["ExitCode"]
        except docker.errors.NotFound as error:
            raise EngineError(f"container {container[:12]} is gone") from error
        return ExecResult(exit_code=int(code if code is not None else -1), output=output.decode("utf-8", "replace"))

    def put_file(self, container: str, path: str, content: bytes) -> None:
        """Write a file into a container, running or not, without needing a shell in it. Its folder must exist."""
        folder, _, name = path.rpartition("/")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(content))
        with _engine_errors(f"write {path} into container {container[:12]}"):
            self.api.put_archive(container, folder or "/", packed.getvalue())

    def get_file(self, container: str, path: str) -> bytes | None:
        """Read a file out of a container; None where it is not there."""
        try:
            with _engine_errors(f"read {path} from container {container[:12]}"):
                chunks, _ = self.api.get_archive(container, path)
                packed = io.BytesIO(b"".join(chunks))
        except docker.errors.NotFound:
            return None
        with tarfile.open(fileobj=packed) as archive:
            for member in archive:
                extracted = archive.extractfile(member) if member.isfile() else None
                if extracted is not None:
                    return extracted.read()
        return None

    def logs(self, container: str, *, tail: int = 2000) -> str:
        """Return the last lines that a container wrote, both streams, with time stamps."""
        try:
            with _engine_errors(f"read the log of container {container[:12]}"):
                raw = self.api.logs(container, stdout=True, stderr=True, timestamps=True, tail=tail)
        except docker.errors.NotFound:
            return ""
        return bytes(raw).decode("utf-8", "replace")

    # Events

    @contextlib.contextmanager
    def events(self, wake: Callable[[Raw], None], **filters: Any) -> Iterator[None]:
        """Call `wake` from a thread of its own for each event of the engine, until the block ends.

        The stream may break (engine restarted); then `wake` is called once with an empty event and no more.
        """
        client = docker.APIClient(version=self.api.api_version, timeout=_FOREVER, **self._kwargs)
        with _engine_errors("send its events"):
            stream = client.events(filters=filters, decode=True)

        def pump() -> None:
            # Closing the stream from outside ends it with whatever the HTTP library makes of it.
            with contextlib.suppress(Exception):
                for event in stream:
                    wake(event)
            wake({})

        thread = threading.Thread(target=pump, name="docker-events", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with contextlib.suppress(Exception):
                stream.close()
            thread.join(timeout=5)
            client.close()


def _image_error(reference: str, said: str) -> ImageError:
    lowered = said.lower()
    missing = ("manifest unknown", "not found", "manifest for", "repository does not exist", "pull access denied")
    limited = ("toomanyrequests", "rate limit", "too many requests", "429")
    if any(word in lowered for word in limited):
        return ImageError(
            f"the registry limits how often {reference} may be pulled: {said}",
            hint="log in with `docker login`, or wait an hour",
        )
    if any(word in lowered for word in missing) and "no such host" not in lowered:
        return ImageError(
            f"there is no image {reference}: {said}",
            hint="correct the name or the tag in the recipe; if it is private, `docker login` first",
            cause=CauseClass.RECIPE,
        )
    return ImageError(
        f"image {reference} is not on this engine and could not be pulled: {said}",
        hint="is its name right? can the registry be reached from here?",
    )


def _context_host() -> str | None:
    """Return the address of the current context of the `docker` command; None for the default one."""
    config = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    name = os.environ.get("DOCKER_CONTEXT") or ""
    if not name:
        with contextlib.suppress(OSError, ValueError):
            name = str(json.loads(config.read_text()).get("currentContext") or "")
    if name in ("", "default"):
        return None
    found = docker.context.ContextAPI.get_context(name)
    if found is None:
        raise EngineError(f"the docker context {name!r} does not exist", hint="see `docker context ls`")
    return str(found.Host)


#: What the docker command needs of our environment. Nothing else of it reaches a compose file's `${...}`.
_CLIENT_VARIABLES = (
    "PATH",
    "HOME",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "SSH_AUTH_SOCK",
    "XDG_RUNTIME_DIR",
)


def client_environment(host: str | None) -> dict[str, str]:
    """Return what a client of the engine gets of our environment, so that it speaks to the same engine."""
    environment = {key: os.environ[key] for key in _CLIENT_VARIABLES if key in os.environ}
    if host:
        environment["DOCKER_HOST"] = host
    return environment
