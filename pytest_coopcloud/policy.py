"""What a compose file may ask of the host.

The check is made on the model as it is submitted: all files merged, all variables filled in, everything in the long form.
It stops mistakes and lazy attacks, before anything is created; it is no fence against a determined author, whose image
runs anyway. What a recipe needs beyond it, its enrolment allows: `RecipeMeta(allow=Allow(binds=["/etc/hostname"]))`.

Example:
    >>> [violation.where for violation in check(rendered, name=name, checkout=path)]   # doctest: +SKIP
    ['services.app.privileged', 'services.app.volumes']
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
MOST_SERVICES = 40
MOST_REPLICAS = 10
LONGEST_GRACE = 300.0

#: Keys of a service that give it nothing of the host. What is not here is refused, also where this engine ignores it: abra,
#: or a later engine, may not.
_HARMLESS = frozenset(
    (
        *("image", "command", "entrypoint", "environment", "labels", "deploy", "healthcheck", "networks", "volumes"),
        *("secrets", "configs", "ports", "stop_grace_period", "stop_signal", "user", "working_dir", "hostname"),
        *(
            "domainname",
            "dns",
            "dns_search",
            "extra_hosts",
            "init",
            "read_only",
            "tty",
            "stdin_open",
            "tmpfs",
            "logging",
        ),
        *(
            "expose",
            "depends_on",
            "restart",
            "container_name",
            "cap_drop",
            "ulimits",
            "shm_size",
            "privileged",
            "links",
        ),
    )
)
#: Where the log of a container may go: to where the run's evidence is read from.
_LOGGING = ("", "json-file", "local")
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
#: What labels of these name spaces say is for the engine, or for us, to say.
_OTHERS_LABELS = ("com.docker.", "io.docker.", "org.dockerproject.", "coopcloud.pytest.")


class Allow(BaseModel):
    """What a recipe may ask of the host beyond the policy. Each is a decision of who enrols it.

    Attributes:
        binds: Paths of the host that may be mounted, read only; `path:rw` for writing.
        ports: Ports that may be published; 0 for one that the engine chooses.
        cap_add: Capabilities that may be added.
        networks: External networks beside `proxy`.
        keys: Other keys of a service (`sysctls`, `devices`, ...).
        proxy_names: What names of routers and services of the proxy may begin with, beside the stack's name.
        host_regexp: Whether routers may take hosts by pattern, or all of them: `HostRegexp`, `HostSNI(*)`, UDP.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    binds: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    cap_add: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    proxy_names: tuple[str, ...] = ()
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
    """Return everything that a recipe asks and may not have.

    Args:
        rendered: The recipe as it is submitted.
        name: The run's names: what it makes carries its prefix, its routers lead from its domain.
        checkout: Where the files of configs and secrets must lie.
        allow: What the enrolment allows beyond the policy.
        extra_domains: Hosts of this app beside the run's domain, as the enrolment declares them.
    """
    domains = frozenset(domain.lower() for domain in (name.domain, *extra_domains))
    return list(_Check(rendered, name, checkout, allow or Allow(), domains).all())


def enforce(
    rendered: RenderedRecipe,
    *,
    name: RunName,
    checkout: Path,
    allow: Allow | None = None,
    extra_domains: Sequence[str] = (),
) -> None:
    """Refuse a recipe that asks for more than it may have; see `check`.

    Raises:
        PolicyError: With everything that is refused, and what would allow it.
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


@dataclass(frozen=True)
class _Check:
    rendered: RenderedRecipe
    name: RunName
    checkout: Path
    allow: Allow
    domains: frozenset[str]

    def all(self) -> Iterator[Violation]:
        services = self.rendered.services
        if len(services) > MOST_SERVICES:
            yield Violation("services", str(len(services)), f"{MOST_SERVICES} at most")
        for service, spec in services.items():
            yield from self._name(f"services.{service}", f"{self.name.prefix}{service}")
            yield from self._service(f"services.{service}", spec)
            yield from self._labels(f"services.{service}.deploy.labels", self.rendered.labels(service))
            yield from self._labels(f"services.{service}.labels", spec.get("labels") or {})
        for key, network in self._section("networks"):
            yield from self._network(f"networks.{key}", network)
        for kind in ("volumes", "secrets", "configs"):
            for key, thing in self._section(kind):
                yield from self._object(f"{kind}.{key}", kind, key, thing)

    def _section(self, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        yield from (self.rendered.compose.get(name) or {}).items()

    def _name(self, where: str, name: str) -> Iterator[Violation]:
        if not _PLAIN.fullmatch(name):
            yield Violation(where, _short(name), "is no plain name: Swarm fills templates in")
            return
        try:
            self.name.check(name)
        except BadNameError as error:
            yield Violation(where, name, error.message)

    # Services

    def _service(self, where: str, spec: Mapping[str, Any]) -> Iterator[Violation]:
        for key, value in spec.items():
            if key.startswith("x-") or key in self.allow.keys or value in (None, False, [], {}, ""):
                continue
            if key == "cap_add":
                for capability in sorted(set(value) - set(self.allow.cap_add)):
                    way = f"cap_add=[{capability!r}]"
                    yield Violation(f"{where}.cap_add", capability, "is a right over the host", way)
            elif key not in _HARMLESS or (key == "privileged" and value):
                why = "gives the container something of the host"
                yield Violation(f"{where}.{key}", _short(value), why, f"keys=[{key!r}]")
        for mount in spec.get("volumes") or []:
            yield from self._mount(f"{where}.volumes", mount)
        for port in spec.get("ports") or []:
            published = port.get("published") or 0
            if published not in self.allow.ports:
                shown = f"{published or 'any'}:{port.get('target')}"
                yield Violation(f"{where}.ports", shown, "publishes a port of the host", f"ports=[{published}]")
        yield from self._shared_names(f"{where}.networks", spec.get("networks") or {})
        yield from self._deploy(f"{where}.deploy", spec.get("deploy") or {})
        driver = str((spec.get("logging") or {}).get("driver") or "")
        if driver not in _LOGGING and "logging" not in self.allow.keys:
            why = "takes the log away from the run's evidence"
            yield Violation(f"{where}.logging.driver", driver, why, "keys=['logging']")
        grace = spec.get("stop_grace_period")
        if grace is not None and not 0 <= _seconds(grace) <= LONGEST_GRACE:
            yield Violation(f"{where}.stop_grace_period", _short(grace), f"{LONGEST_GRACE:g} s at most")

    def _deploy(self, where: str, deploy: Mapping[str, Any]) -> Iterator[Violation]:
        replicas = deploy.get("replicas")
        if replicas is not None and not (isinstance(replicas, int) and 0 <= replicas <= MOST_REPLICAS):
            yield Violation(f"{where}.replicas", _short(replicas), f"{MOST_REPLICAS} at most")
        if deploy.get("mode") not in (None, "", "replicated", "global"):
            yield Violation(f"{where}.mode", _short(deploy["mode"]), "only replicated and global services")
        for kind, limits in (deploy.get("resources") or {}).items():
            for key in ("devices", "generic_resources"):
                if isinstance(limits, Mapping) and limits.get(key):
                    yield Violation(
                        f"{where}.resources.{kind}.{key}", _short(limits[key]), "asks for the host's devices"
                    )

    def _mount(self, where: str, mount: Mapping[str, Any]) -> Iterator[Violation]:
        kind, source = mount["type"], str(mount.get("source") or "")
        shown = f"{source}:{mount.get('target')}"
        if kind == "tmpfs":
            return
        if kind == "volume":
            options = mount.get("volume") or {}
            if source and source not in self.rendered.volumes:
                yield Violation(where, shown, "no such volume in the file")
            elif set(options) - {"nocopy"}:
                yield Violation(
                    where, shown, f"a volume is mounted with `nocopy` only, not {', '.join(sorted(options))}"
                )
            return
        if kind != "bind":
            yield Violation(where, shown, f"mounts of type {kind} are not for a trial")
            return
        read_only = mount.get("read_only") is True
        allowed = (source in (*BINDS, *self.allow.binds) and read_only) or f"{source}:rw" in self.allow.binds
        propagation = str((mount.get("bind") or {}).get("propagation") or "rprivate")
        if not allowed:
            way = f"binds=[{source if read_only else source + ':rw'!r}]"
            yield Violation(where, shown, f"mounts a path of the host{'' if read_only else ', to write'}", way)
        elif propagation not in ("private", "rprivate"):
            yield Violation(where, shown, f"propagates mounts ({propagation})")

    def _shared_names(self, where: str, networks: Mapping[str, Any]) -> Iterator[Violation]:
        """Refuse names on a network that other stacks are on as well: they would answer in the place of others."""
        outside = {key for key, spec in self._section("networks") if spec.get("external")}
        for network, spec in networks.items():
            for alias in (spec or {}).get("aliases") or [] if network in outside else []:
                if alias.lower() not in self.domains and not alias.startswith(self.name.stack):
                    yield Violation(
                        f"{where}.{network}.aliases", _short(alias), "is a name for every stack on this network"
                    )

    # What a file defines beside services

    def _network(self, where: str, spec: Mapping[str, Any]) -> Iterator[Violation]:
        name = str(spec.get("name") or "")
        if spec.get("external"):
            if name not in (NETWORK, *self.allow.networks):
                yield Violation(where, name, f"only the network `{NETWORK}` is shared", f"networks=[{name!r}]")
            return
        if name and not name.startswith(self.name.prefix):
            yield Violation(f"{where}.name", name, f"must begin with {self.name.prefix}")
        if spec.get("driver") not in (None, "", "overlay"):
            yield Violation(f"{where}.driver", str(spec["driver"]), "only overlay networks")

    def _object(self, where: str, kind: str, key: str, spec: Mapping[str, Any]) -> Iterator[Violation]:
        name = str(spec.get("name") or f"{self.name.prefix}{key}")
        if not name.startswith(self.name.prefix):
            yield Violation(where, name, f"belongs to something else: its name must begin with {self.name.prefix}")
        elif kind != "volumes" or not _PLAIN.fullmatch(name):
            yield from self._name(where, name)
        if kind == "volumes":
            if spec.get("driver_opts") or spec.get("driver") not in (None, "", "local"):
                why = "a volume of its own kind may be a path of the host"
                yield Violation(where, _short(spec.get("driver_opts") or spec.get("driver")), why)
            return
        if spec.get("file"):
            yield from self._file(f"{where}.file", str(spec["file"]))
        for foreign in sorted(set(spec) - {"name", "file", "external", "labels", "template_driver"}):
            if not foreign.startswith("x-") and spec[foreign]:
                yield Violation(f"{where}.{foreign}", _short(spec[foreign]), "is read from the host")

    def _file(self, where: str, text: str) -> Iterator[Violation]:
        try:
            real = (self.checkout / text).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            yield Violation(where, _short(text), "is not there")
            return
        if not real.is_relative_to(self.checkout.resolve()):
            yield Violation(where, _short(text), "leads out of the recipe")
        elif not real.is_file():
            yield Violation(where, _short(text), "is no file")

    # Labels

    def _labels(self, where: str, labels: Mapping[str, str]) -> Iterator[Violation]:
        for key, value in labels.items():
            lowered = key.lower().strip()
            if lowered.startswith(_OTHERS_LABELS):
                yield Violation(where, _short(key), "is not a label for a recipe to set")
            elif lowered.startswith("coop-cloud.") and not key.startswith(f"coop-cloud.{self.name.stack}."):
                yield Violation(where, _short(key), "speaks for another stack")
            elif lowered.startswith("traefik."):
                yield from self._routing(f"{where}: {key}", lowered, value)

    def _routing(self, where: str, key: str, value: str) -> Iterator[Violation]:
        _, protocol, kind, thing, *_ = (*key.split("."), "", "", "")
        if protocol == "tls":
            yield Violation(where, _short(value), "is a setting of the proxy itself")
        if protocol in ("http", "tcp", "udp") and kind in ("routers", "services") and not self._is_own(thing):
            why = (
                f"is a name that another stack may have, and the proxy would mix them up: begin with {self.name.stack}"
            )
            yield Violation(where, _short(thing), why, f"proxy_names=[{thing!r}]")
        if key.startswith("traefik.udp.routers.") and not self.allow.host_regexp:
            yield Violation(where, _short(value), "takes all of an entry point: UDP knows no hosts", "host_regexp=True")
        elif re.fullmatch(r"traefik\.(?:http|tcp)\.routers\.[^.]+\.rule", key):
            yield from self._rule(where, value)
        elif re.search(r"\.(?:routers\.[^.]+|errors)\.service$", key):
            name, _, provider = value.strip().lower().partition("@")
            elsewhere = provider not in ("", "docker", "swarm") or not self._is_own(name)
            if elsewhere and (name, provider) != ("noop", "internal"):
                yield Violation(where, _short(value), "leads to a service that is not this stack's")
        elif re.search(r"\.loadbalancer\.servers?(?:\[\d+\])?\.(?:url|address)$", key):
            yield Violation(where, _short(value), "leads to somewhere that is not this stack")

    def _is_own(self, name: str) -> bool:
        return name.startswith((self.name.stack, *(own.lower() for own in self.allow.proxy_names)))

    def _rule(self, where: str, rule: str) -> Iterator[Violation]:
        try:
            parsed = _Rule.parse(rule)
        except ValueError as error:
            yield Violation(where, _short(rule), f"is a rule that cannot be read: {error}")
            return
        if parsed.patterns and not self.allow.host_regexp:
            yield Violation(where, _short(rule), "takes hosts by pattern", "host_regexp=True")
        for host in parsed.hosts:
            if host.lower() not in self.domains:
                yield Violation(where, _short(host), f"is not this run's: only {', '.join(sorted(self.domains))}")
        if not parsed.bound:
            yield Violation(where, _short(rule), "takes requests for every host")


# Rules of routers


@dataclass(frozen=True)
class _Rule:
    """What a rule of a router, or a part of it, takes.

    Attributes:
        hosts: The hosts it names.
        patterns: Whether it takes hosts by pattern.
        bound: Whether it takes only requests for the hosts that it names.
    """

    hosts: tuple[str, ...] = ()
    patterns: bool = False
    bound: bool = False

    @classmethod
    def parse(cls, text: str) -> _Rule:
        """Read a rule.

        Raises:
            ValueError: It is none.
        """
        if len(text) > _RULE_LIMIT:
            raise ValueError(f"it has {len(text)} characters, {_RULE_LIMIT} are allowed")
        tokens: list[str] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                raise ValueError(f"{text[at : at + 20]!r} is no part of one")
            tokens.append(found.group(1))
            at = found.end()
        reader = _RuleReader(tokens)
        rule = reader.either(0)
        if reader.tokens:
            raise ValueError(f"{reader.tokens[0]!r} is one too many")
        return rule

    def _with(self, other: _Rule, *, bound: bool) -> _Rule:
        return _Rule((*self.hosts, *other.hosts), self.patterns or other.patterns, bound)

    def both(self, other: _Rule) -> _Rule:
        """Return what `self && other` takes."""
        return self._with(other, bound=self.bound or other.bound)

    def either(self, other: _Rule) -> _Rule:
        """Return what `self || other` takes."""
        return self._with(other, bound=self.bound and other.bound)


#: Within double quotes, a backslash would hide a quote from one reader and not from the other: there is none.
_TOKEN = re.compile(r"""\s*(`[^`]*`|"[^"\\]*"|&&|\|\||[!(),]|[A-Za-z]+)""")
_RULE_DEPTH = 20
_RULE_LIMIT = 4096


@dataclass
class _RuleReader:
    """Reads the tokens of a rule: `||` binds less than `&&`, and that less than `!`."""

    tokens: list[str]

    def either(self, depth: int) -> _Rule:
        if depth > _RULE_DEPTH:
            raise ValueError("it is nested too deep")
        rule = self._both(depth)
        while self._next("||"):
            rule = rule.either(self._both(depth))
        return rule

    def _both(self, depth: int) -> _Rule:
        rule = self._one(depth)
        while self._next("&&"):
            rule = rule.both(self._one(depth))
        return rule

    def _one(self, depth: int) -> _Rule:
        if self._next("!"):
            inner = self._one(depth + 1) if depth < _RULE_DEPTH else _Rule()
            return _Rule(inner.hosts, inner.patterns, bound=False)
        if self._next("("):
            rule = self.either(depth + 1)
            self._need(")")
            return rule
        return self._matcher()

    def _matcher(self) -> _Rule:
        name = self._take().lower()
        if not name.isalpha():
            raise ValueError(f"{name!r} is no matcher")
        self._need("(")
        values: list[str] = []
        while not self._next(")"):
            values.append(self._text())
            if not self._next(","):
                self._need(")")
                break
        if name in ("hostregexp", "hostsniregexp"):
            return _Rule(patterns=True, bound=True)
        if name not in ("host", "hostsni", "hostheader"):
            return _Rule()
        if not values:
            raise ValueError(f"{name} names nothing")
        named = tuple(value for value in values if value != "*")
        return _Rule(named, patterns=len(named) < len(values), bound=True)

    def _text(self) -> str:
        token = self._take()
        if token[0] not in '`"':
            raise ValueError(f"{token!r} stands not in quotes")
        return token[1:-1]

    def _next(self, token: str) -> bool:
        if self.tokens[:1] == [token]:
            del self.tokens[0]
            return True
        return False

    def _need(self, token: str) -> None:
        if not self._next(token):
            raise ValueError(f"{token!r} is missing")

    def _take(self) -> str:
        if not self.tokens:
            raise ValueError("it ends too early")
        return self.tokens.pop(0)


def _short(value: Any) -> str:
    return str(value)[:120]


def _seconds(duration: Any) -> float:
    """Read a duration as the engine does; what is none is endless."""
    text = str(duration)
    if text in ("0", "+0"):
        return 0.0
    parts = list(_DURATION.finditer(text.removeprefix("+")))
    if not parts or "".join(part.group() for part in parts) != text.removeprefix("+"):
        return float("inf")
    total = 0.0
    for part in parts:
        number = re.match(r"[0-9.]+", part.group())
        assert number is not None
        total += float(number.group()) * _UNITS[part.group()[number.end() :]]
    return total
