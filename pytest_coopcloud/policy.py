"""What a compose file may ask of the host.

The check is made on the model as it is submitted: all files merged, all variables filled in. It stops mistakes and lazy
attacks, before anything is created; it is no fence against a determined author, whose image runs anyway. What a recipe
needs beyond it, its enrolment allows: `RecipeMeta(allow=Allow(binds=["/etc/hostname"]))`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pytest_coopcloud.errors import BadNameError, PolicyError
from pytest_coopcloud.naming import RunName
from pytest_coopcloud.recipes import RenderedRecipe

__all__ = ["Allow", "Violation", "check", "enforce"]

#: Files of the host that real recipes mount, read only.
BINDS = ("/etc/timezone", "/etc/localtime")
NETWORK = "proxy"
MOST_REPLICAS = 10
LONGEST_GRACE = 300.0

#: Keys of a service that give it the host, whether this engine obeys them or a later one might.
_FORBIDDEN = (
    "privileged devices device_cgroup_rules network_mode pid ipc userns_mode uts cgroup cgroup_parent cap_add sysctls "
    "security_opt volumes_from runtime external_links links credential_spec gpus build extends develop env_file"
).split()


class Allow(BaseModel):
    """What a recipe may ask of the host beyond the policy. Each is a decision of who enrols it.

    Attributes:
        binds: Paths of the host that may be mounted, read only; `path:rw` for writing.
        ports: Ports that may be published.
        cap_add: Capabilities that may be added.
        networks: External networks beside `proxy`.
        keys: Other keys of a service (`sysctls`, `devices`, ...).
        host_regexp: Whether routers may match by pattern.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    binds: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    cap_add: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    host_regexp: bool = False


@dataclass(frozen=True)
class Violation:
    """One thing that is refused: where it stands, what it is, why, and what would allow it."""

    where: str
    value: str
    why: str
    allow: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.value}: {self.why}"


def check(
    rendered: RenderedRecipe,
    *,
    name: RunName,
    checkout: Path,
    allow: Allow | None = None,
    extra_domains: Sequence[str] = (),
) -> list[Violation]:
    """Return everything that a recipe asks and may not have."""
    return list(_Check(rendered, name, checkout, allow or Allow(), {name.domain, *extra_domains}).all())


def enforce(
    rendered: RenderedRecipe,
    *,
    name: RunName,
    checkout: Path,
    allow: Allow | None = None,
    extra_domains: Sequence[str] = (),
) -> None:
    """Refuse a recipe that asks for more than it may have.

    Raises:
        PolicyError: With everything that is refused, and what would allow it.
        BadNameError: A name is too long for Docker.
    """
    found = check(rendered, name=name, checkout=checkout, allow=allow, extra_domains=extra_domains)
    if found:
        ways = sorted({violation.allow for violation in found if violation.allow})
        raise PolicyError(
            "the recipe asks for more than a trial may give it:\n" + "\n".join(f"  {violation}" for violation in found),
            hint=f"its enrolment may allow it: RecipeMeta(allow=Allow({', '.join(ways)}))"
            if ways
            else "change the recipe",
        )


@dataclass
class _Check:
    rendered: RenderedRecipe
    name: RunName
    checkout: Path
    allow: Allow
    domains: set[str]

    def all(self) -> Iterator[Violation]:
        model = self.rendered.compose
        for service, spec in self.rendered.services.items():
            yield from self._service(f"services.{service}", spec)
            yield from self._labels(f"services.{service}.deploy.labels", self.rendered.labels(service))
            own = {key: "" if value is None else str(value) for key, value in (spec.get("labels") or {}).items()}
            yield from self._labels(f"services.{service}.labels", own)
        for key, spec in (model.get("networks") or {}).items():
            yield from self._network(f"networks.{key}", key, spec or {})
        for kind in ("volumes", "secrets", "configs"):
            for key, spec in (model.get(kind) or {}).items():
                yield from self._object(f"{kind}.{key}", kind, key, spec or {})
        known = set(model.get("networks") or {}) | {"default"}
        for service, spec in self.rendered.services.items():
            for network in spec.get("networks") or []:
                if network not in known:
                    yield Violation(f"services.{service}.networks", str(network), "no such network in the file")

    # Services

    def _service(self, where: str, spec: Mapping[str, Any]) -> Iterator[Violation]:
        for key in _FORBIDDEN:
            value = spec.get(key)
            if value in (None, False, [], {}) or key in self.allow.keys:
                continue
            if key == "cap_add" and set(value) <= set(self.allow.cap_add):
                continue
            way = f"cap_add={list(value)!r}" if key == "cap_add" else f"keys=[{key!r}]"
            yield Violation(f"{where}.{key}", _short(value), "gives the container something of the host", way)
        for entry in spec.get("volumes") or []:
            yield from self._mount(f"{where}.volumes", entry)
        for entry in spec.get("ports") or []:
            published = _published(entry)
            if published not in self.allow.ports:
                yield Violation(
                    f"{where}.ports", _short(entry), "publishes a port of the host", f"ports=[{published or 0}]"
                )
        deploy = spec.get("deploy") or {}
        replicas = deploy.get("replicas")
        if replicas is not None and not _within(replicas, MOST_REPLICAS):
            yield Violation(f"{where}.deploy.replicas", str(replicas), f"{MOST_REPLICAS} at most")
        from pytest_coopcloud.deployers.probes import seconds

        grace = spec.get("stop_grace_period")
        if grace is not None and seconds(grace) > LONGEST_GRACE:
            yield Violation(f"{where}.stop_grace_period", str(grace), f"{LONGEST_GRACE:g} s at most")

    def _mount(self, where: str, entry: Any) -> Iterator[Violation]:
        source, read_only, kind = _source(entry)
        if kind in ("tmpfs", "npipe", "cluster"):
            if kind != "tmpfs":
                yield Violation(where, _short(entry), f"mounts of type {kind} are not for a trial")
            return
        if not source or (kind != "bind" and source in self.rendered.volumes):
            return
        if kind != "bind" and not source.startswith(("/", ".", "~")):
            yield Violation(where, _short(entry), "no such volume in the file")
            return
        if (source in BINDS and read_only) or f"{source}:rw" in self.allow.binds:
            return
        if source in self.allow.binds and read_only:
            return
        way = f"binds=[{source if read_only else source + ':rw'!r}]"
        yield Violation(where, _short(entry), "mounts a path of the host", way)

    # What a file defines beside services

    def _network(self, where: str, key: str, spec: Mapping[str, Any]) -> Iterator[Violation]:
        external = spec.get("external")
        inner = external.get("name") if isinstance(external, Mapping) else None
        name = str(spec.get("name") or inner or key)
        if external:
            if name not in (NETWORK, *self.allow.networks):
                yield Violation(where, name, f"only the network `{NETWORK}` is shared", f"networks=[{name!r}]")
        elif spec.get("name") and not name.startswith(self.name.prefix):
            yield Violation(f"{where}.name", name, f"must begin with {self.name.prefix}")
        elif spec.get("driver") not in (None, "overlay"):
            yield Violation(f"{where}.driver", str(spec["driver"]), "only overlay networks")

    def _object(self, where: str, kind: str, key: str, spec: Mapping[str, Any]) -> Iterator[Violation]:
        external = spec.get("external")
        inner = external.get("name") if isinstance(external, Mapping) else None
        named = spec.get("name") or inner
        name = str(named or (key if external else f"{self.name.prefix}{key}"))
        if not name.startswith(self.name.prefix):
            yield Violation(where, name, f"belongs to something else: its name must begin with {self.name.prefix}")
        elif kind != "volumes":
            try:
                self.name.check(name)
            except BadNameError as error:
                yield Violation(where, name, error.message)
        if kind == "volumes" and (spec.get("driver_opts") or spec.get("driver") not in (None, "local")):
            yield Violation(
                where,
                _short(spec.get("driver_opts") or spec.get("driver")),
                "a volume of its own kind may be a path of the host",
            )
        if spec.get("file") is not None:
            yield from self._file(f"{where}.file", str(spec["file"]))
        for forbidden in ("environment", "driver") if kind != "volumes" else ():
            if spec.get(forbidden):
                yield Violation(f"{where}.{forbidden}", _short(spec[forbidden]), "is read from the host")

    def _file(self, where: str, text: str) -> Iterator[Violation]:
        path = self.checkout / text
        try:
            real = path.resolve(strict=True)
        except OSError:
            yield Violation(where, text, "is not there")
            return
        if not real.is_relative_to(self.checkout.resolve()):
            yield Violation(where, text, "leads out of the recipe")
        elif not real.is_file():
            yield Violation(where, text, "is no file")

    # Labels

    def _labels(self, where: str, labels: Mapping[str, str]) -> Iterator[Violation]:
        for key, value in labels.items():
            lowered = key.lower()
            if lowered.startswith(("com.docker.", "io.docker.", "org.dockerproject.", "coopcloud.pytest.")):
                yield Violation(where, key, "is not a label for a recipe to set")
            elif lowered.startswith("coop-cloud.") and not key.startswith(f"coop-cloud.{self.name.stack}."):
                yield Violation(where, key, "speaks for another stack")
            elif lowered.startswith("traefik.") and lowered.endswith(".rule"):
                yield from self._rule(f"{where}: {key}", value)
            elif (
                lowered.startswith("traefik.")
                and re.search(r"routers\.[^.]+\.service$", lowered)
                and value.endswith("@internal")
            ):
                yield Violation(where, f"{key}={value}", "leads to the proxy's own service")

    def _rule(self, where: str, rule: str) -> Iterator[Violation]:
        if re.search(r"Host(?:SNI)?Regexp|HostHeader", rule, re.IGNORECASE) and not self.allow.host_regexp:
            yield Violation(where, rule[:120], "matches hosts by pattern", "host_regexp=True")
            return
        matchers = re.findall(r"\bHost(?:SNI)?\s*\(([^)]*)\)", rule, re.IGNORECASE)
        hosts = [host for matcher in matchers for host in re.findall(r"[`'\"]([^`'\"]*)[`'\"]", matcher)]
        # A rule that names no host takes every host; so does an alternative without one.
        alternatives = re.split(r"\|\|", rule)
        if not hosts or any(
            not re.search(r"\bHost(?:SNI)?\s*\(", part, re.IGNORECASE)
            for part in alternatives
            if "(" in part and len(alternatives) > 1
        ):
            if not (hosts and "&&" in rule):
                yield Violation(where, rule[:120], "takes requests for every host")
        if re.search(r"!\s*\(?\s*Host", rule, re.IGNORECASE):
            yield Violation(where, rule[:120], "takes every host but some")
        for host in hosts:
            if host.lower() not in self.domains:
                yield Violation(where, host[:120], f"is not this run's: only {', '.join(sorted(self.domains))}")


def _short(value: Any) -> str:
    return str(value)[:120]


def _within(value: Any, most: int) -> bool:
    try:
        return 0 <= int(value) <= most
    except (TypeError, ValueError):
        return False


def _published(entry: Any) -> int | None:
    text = str(entry.get("published") or "") if isinstance(entry, Mapping) else ""
    if not text and not isinstance(entry, Mapping):
        parts = str(entry).partition("/")[0].split(":")
        text = parts[-2] if len(parts) > 1 else ""
    return int(text) if text.isdigit() else None


def _source(entry: Any) -> tuple[str, bool, str]:
    """Return the source of a mount, whether it is read only, and its type."""
    if isinstance(entry, Mapping):
        return str(entry.get("source") or ""), bool(entry.get("read_only")), str(entry.get("type") or "volume")
    parts = str(entry).split(":")
    if len(parts) == 1:
        return "", False, "volume"
    kind = "bind" if parts[0].startswith(("/", ".", "~")) else "volume"
    return parts[0], "ro" in (parts[2].split(",") if len(parts) > 2 else []), kind
