"""Compose files as `docker stack deploy` reads them: parsed, filled in, merged, in the long form only.

There is no well-kept Python library that follows Docker's own loader, so its rules are here; the tests prove them against
`docker stack config`. What comes out says each thing in one way (mounts, ports, secrets and networks in the long form,
labels and environments as maps, booleans as booleans), so what the policy looks at is what the engine is given.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from pytest_coopcloud.errors import BadRecipeError

__all__ = ["ComposeFile", "interpolate", "load", "merge", "plain_variables", "prepare", "read_text"]

#: Limits of what is read: bytes of a file, nodes of a document with its aliases followed, depth.
FILE_LIMIT = 256 * 1024
NODE_LIMIT = 20_000
DEPTH_LIMIT = 50
#: Characters of all texts of a file, once variables are filled in.
TEXT_LIMIT = 4 * 1024 * 1024
#: A range of ports that is longer is no recipe's.
PORT_RANGE_LIMIT = 1000

SECTIONS = ("services", "volumes", "networks", "secrets", "configs")


@dataclass
class ComposeFile:
    """A compose file as it is written.

    Attributes:
        name: Its path below the recipe.
        model: What it says.
        lines: The line on which each key path (`services.app.image`) stands.
    """

    name: str
    model: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)

    def where(self, path: str) -> str:
        """Return `file:line: path`, with the line of the nearest key above where the path itself has none."""
        near = path
        while near and near not in self.lines:
            near = near.rpartition(".")[0]
        return f"{self.name}:{self.lines.get(near, 1)}: {path}"


def read_text(root: Path, name: str) -> str:
    """Read a file of a recipe: a regular one, of text, of a bearable size, that no symlink leads out of `root`.

    Raises:
        BadRecipeError: It is not so.
    """
    try:
        path = (root / name).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise BadRecipeError(f"{name[:80]!r} is not there, or cannot be read") from error
    if not path.is_relative_to(root.resolve()):
        raise BadRecipeError(f"{name[:80]!r} leads out of the recipe")
    if not path.is_file():
        raise BadRecipeError(f"{name[:80]!r} is no file")
    try:
        with path.open("rb") as stream:
            data = stream.read(FILE_LIMIT + 1)
    except OSError as error:
        raise BadRecipeError(f"{name} cannot be read: {error.strerror}") from error
    if len(data) > FILE_LIMIT:
        raise BadRecipeError(f"{name} has {path.stat().st_size} bytes, {FILE_LIMIT} are allowed")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadRecipeError(f"{name}:{line} is no UTF-8: byte {error.start} is {data[error.start]:#x}") from error


# YAML


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Makes nodes only; a plain scalar keeps the mark that it is one, for `_scalar` to read."""


_PLAIN = "!plain"
_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver(_PLAIN, re.compile(r"(?s).*"), None)

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_DATE = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})(?:[Tt ].*)?")
_INTEGERS = (
    (re.compile(r"([-+]?)0[xX]([0-9a-fA-F]+)"), 16),
    (re.compile(r"([-+]?)0[bB]([01]+)"), 2),
    (re.compile(r"([-+]?)0[oO]?([0-7]+)"), 8),
    (re.compile(r"([-+]?)(0|[1-9][0-9]*)"), 10),
)


def _scalar(text: str) -> Any:
    """Read a plain scalar as Docker's YAML library does: `yes` is text, 0777 is a number to the base of eight."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    plain = text.replace("_", "")
    for form, base in _INTEGERS:
        found = form.fullmatch(plain)
        if found:
            number = int(found.group(1) + found.group(2), base)
            if -(2**63) <= number < 2**64:
                return number
    if _FLOAT.fullmatch(plain):
        return float(plain)
    return text


def _date(text: str) -> str:
    """Write a date as Docker's YAML library does, where it stands for a text."""
    found = _DATE.fullmatch(text)
    assert found is not None
    year, month, day = (int(part) for part in found.groups())
    return f"{year:04}-{month:02}-{day:02} 00:00:00 +0000 UTC"


def load(text: str, name: str) -> ComposeFile:
    """Parse a compose file.

    Raises:
        BadRecipeError: It is no mapping, repeats a key, or grows beyond all bounds.
    """
    file = ComposeFile(name, {})
    try:
        node = yaml.compose(text, Loader=_Loader)
        made = _Builder(file).build(node, "", 0) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadRecipeError(f"{name}:{mark.line + 1 if mark else 1}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadRecipeError(f"{name} is no YAML: {str(error)[:200]}") from error
    if not isinstance(made, dict):
        kind = "empty" if made is None else f"a {type(made).__name__}"
        raise BadRecipeError(f"{name}:1: expected a mapping with `services`, and it is {kind}")
    file.model = made
    return file


@dataclass
class _Builder:
    """Builds a document from its nodes, with aliases followed, and counts on the way."""

    file: ComposeFile
    count: int = 0

    def build(self, node: yaml.Node, path: str, depth: int) -> Any:
        """Return what a node stands for."""
        self.count += 1
        if self.count > NODE_LIMIT or depth > DEPTH_LIMIT:
            what = f"{NODE_LIMIT} values" if self.count > NODE_LIMIT else f"{DEPTH_LIMIT} levels"
            short = path if len(path) <= 80 else f"{path[:80]}..."
            raise BadRecipeError(
                f"{self.file.name}: {short or 'the document'} grows to more than {what} when its aliases are followed"
            )
        if path:
            self.file.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(value, f"{path}.{number}", depth + 1) for number, value in enumerate(node.value)]
        return self._value(node, path)

    def _value(self, node: yaml.Node, path: str) -> Any:
        text = str(node.value)
        if node.tag == _PLAIN:
            if _DATE.fullmatch(text):
                if len(text) > 10:
                    raise BadRecipeError(f"{self._at(node)}: {path}: {text[:40]} is a time: put it in quotes")
                return _date(text)
            return _scalar(text)
        if node.tag == "tag:yaml.org,2002:str":
            return text
        if node.tag in {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null")}:
            return _scalar(text)
        raise BadRecipeError(f"{self._at(node)}: {path}: the tag {str(node.tag)[:40]} means nothing here")

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        for key, value in node.value:
            word = self._key(key, path)
            if word == "<<":
                merged += self._merged(value, path, depth)
                continue
            if word in made:
                raise BadRecipeError(f"{self._at(key)}: the key {word[:80]!r} stands here twice")
            inside = f"{path}.{word}" if path else word
            self.file.lines[inside] = key.start_mark.line + 1
            made[word] = self.build(value, inside, depth + 1)
        for more in merged:
            made = {**more, **made}
        return made

    def _merged(self, node: yaml.Node, path: str, depth: int) -> Iterator[dict[str, Any]]:
        for one in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            made = self.build(one, path, depth + 1)
            if not isinstance(made, dict):
                raise BadRecipeError(f"{self._at(node)}: `<<` takes mappings only")
            yield made

    def _key(self, node: yaml.Node, path: str) -> str:
        word = self._value(node, path) if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(word, str):
            raise BadRecipeError(f"{self._at(node)}: a key of {path or 'the document'} is no text: put it in quotes")
        return word

    def _at(self, node: yaml.Node) -> str:
        return f"{self.file.name}:{node.start_mark.line + 1}"


# Interpolation

_NAME = r"[_a-zA-Z][_a-zA-Z0-9]*"
_WITH_OPERATOR = rf"{_NAME}(?::?[-?][^}}]*)?"
_TEMPLATE = re.compile(
    rf"\$(?:(?P<escaped>\$)|(?P<named>{_WITH_OPERATOR})|\{{(?P<braced>{_WITH_OPERATOR})\}}|(?P<bad>))"
)


def interpolate(text: str, env: Mapping[str, str], where: Callable[[], str] = lambda: "") -> str:
    """Fill variables into a text: `$A ${A} ${A:-b} ${A-b} ${A?e} ${A:?e} $$`, as `docker stack deploy` does.

    With its habits: a default ends at the first `}`, and `:-`, `-`, `:?` and `?` are looked for in this order, in all of
    what stands between the braces.

    Raises:
        BadRecipeError: A required variable is not set, or the text is no template; `where()` names file, line and key.
    """

    grown = 0

    def bounded(found: re.Match[str]) -> str:
        nonlocal grown
        made = value(found)
        grown += len(made)
        if grown > TEXT_LIMIT:
            raise BadRecipeError(f"{where()} grows to more than {TEXT_LIMIT} characters")
        return made

    def value(found: re.Match[str]) -> str:
        if found.group("escaped"):
            return "$"
        if found.group("bad") is not None:
            raise BadRecipeError(
                f"{where()}: {text[found.start() : found.start() + 40]!r} is no variable",
                hint="write `$$` where a dollar sign is meant",
            )
        inner = found.group("named") or found.group("braced")
        for operator in (":-", "-", ":?", "?"):
            name, separator, rest = inner.partition(operator)
            if not separator:
                continue
            there = name in env and not (operator.startswith(":") and not env[name])
            if there or operator in (":-", "-"):
                return env[name] if there else rest
            raise BadRecipeError(
                f"{where()}: the variable {name} must be set{f': {rest[:200]}' if rest else ''}",
                hint=f"give it in `.env.sample`, or as `extra_env={{'{name}': ...}}` in the enrolment",
            )
        return env.get(inner, "")

    return _TEMPLATE.sub(bounded, text) if "$" in text else text


def plain_variables(value: Any) -> set[str]:
    """Return the variables that a model uses with no default of their own."""
    if isinstance(value, str):
        names = (found.group("named") or found.group("braced") for found in _TEMPLATE.finditer(value))
        return {name for name in names if name and re.fullmatch(_NAME, name)}
    if isinstance(value, dict):
        value = list(value.values())
    return set().union(*map(plain_variables, value)) if isinstance(value, list) else set()


_INTEGER, _NUMBER, _BOOLEAN = "an integer", "a number", "a boolean"
#: What a filled-in text becomes, by the path of its key; `*` is any key or list entry.
_CASTS = {
    tuple(path.split(".")): kind
    for kind, paths in {
        _INTEGER: (
            "services.*.configs.*.mode services.*.secrets.*.mode services.*.healthcheck.retries "
            "services.*.deploy.replicas services.*.deploy.update_config.parallelism "
            "services.*.deploy.rollback_config.parallelism services.*.deploy.restart_policy.max_attempts "
            "services.*.deploy.placement.max_replicas_per_node services.*.ports.*.target services.*.ports.*.published "
            "services.*.ulimits.* services.*.ulimits.*.hard services.*.ulimits.*.soft"
        ),
        _NUMBER: (
            "services.*.deploy.update_config.max_failure_ratio services.*.deploy.rollback_config.max_failure_ratio"
        ),
        _BOOLEAN: (
            "services.*.healthcheck.disable services.*.privileged services.*.read_only services.*.stdin_open "
            "services.*.tty services.*.volumes.*.read_only services.*.volumes.*.volume.nocopy networks.*.external "
            "networks.*.internal networks.*.attachable volumes.*.external secrets.*.external configs.*.external"
        ),
    }.items()
    for path in paths.split()
}
_BOOLEANS = {
    **dict.fromkeys(("y", "yes", "true", "on"), True),
    **dict.fromkeys(("n", "no", "false", "off"), False),
}


def _cast(text: str, path: tuple[str, ...], where: Callable[[], str]) -> Any:
    """Return what a filled-in text is at its place."""
    if len(path) < 3:
        return text
    # Only names of ours are wildcards: services, what a section holds, entries of lists, names of limits.
    for form, kind in _CASTS.items():
        if len(form) != len(path) or any(one not in ("*", other) for one, other in zip(form, path, strict=True)):
            continue
        try:
            if kind is _BOOLEAN:
                return _BOOLEANS[text.lower()]
            return int(text) if kind is _INTEGER and re.fullmatch(r"[-+]?[0-9]+", text) else float(text)
        except (KeyError, ValueError):
            raise BadRecipeError(f"{where()}: {text[:80]!r} is not {kind}") from None
    return text


# Filling in, and saying each thing in one way


def prepare(file: ComposeFile, env: Mapping[str, str], root: Path) -> dict[str, Any]:
    """Fill the variables of one file in, and bring it to the long form.

    Args:
        file: The file.
        env: What variables may be taken from. The environment of this process plays no part.
        root: The recipe's folder, for `env_file`.

    Raises:
        BadRecipeError: A value cannot be what it should be; file, line and key are named.
    """

    size = 0

    def fill(value: Any, path: tuple[str, ...]) -> Any:
        nonlocal size
        if isinstance(value, str):

            def where() -> str:
                return file.where(".".join(path))

            filled = interpolate(value, env, where)
            size += len(filled)
            if size > TEXT_LIMIT:
                raise BadRecipeError(f"{where()} makes the file grow to more than {TEXT_LIMIT} characters")
            return value if filled == value else _cast(filled, path, where)
        if isinstance(value, dict):
            return {key: fill(entry, (*path, key)) for key, entry in value.items()}
        if isinstance(value, list):
            return [fill(entry, (*path, str(number))) for number, entry in enumerate(value)]
        return value

    model = {key: fill(value, (key,)) if key in SECTIONS else value for key, value in file.model.items()}
    shape = _Shape(file, env, root.absolute())
    made: dict[str, Any] = {}
    for key, value in model.items():
        if key in SECTIONS:
            entries = shape.mapping(value, key)
            read = shape.service if key == "services" else shape.object
            made[key] = {name: read(entry, f"{key}.{name}") for name, entry in entries.items()}
        elif key == "version":
            if not isinstance(value, str):
                raise BadRecipeError(f"{file.where(key)} must be a text: put {value} in quotes")
            made[key] = value
        elif not key.startswith("x-"):
            raise BadRecipeError(f"{file.where(key[:80])} is no key of a compose file")
    return made


#: Keys of a service and of its parts that hold a boolean, a map of texts, a list of texts.
_SERVICE_BOOLEANS = ("privileged", "read_only", "stdin_open", "tty", "init")
_SERVICE_LISTS = (
    "cap_add", "cap_drop", "depends_on", "devices", "expose", "external_links", "links", "security_opt", "dns",
    "dns_search", "tmpfs", "device_cgroup_rules", "volumes_from", "group_add", "profiles",
)  # fmt: skip


@dataclass(frozen=True)
class _Shape:
    """Reads the parts of one file."""

    file: ComposeFile
    env: Mapping[str, str]
    root: Path

    def fail(self, path: str, what: str) -> BadRecipeError:
        """Return the error that names file, line and key."""
        return BadRecipeError(f"{self.file.where(path)} {what}")

    def mapping(self, value: Any, path: str) -> dict[str, Any]:
        """Return a value that must be a mapping."""
        if not isinstance(value, dict):
            raise self.fail(path, "must be a mapping")
        return value

    def listing(self, value: Any, path: str) -> list[Any]:
        """Return a value that must be a list."""
        if not isinstance(value, list):
            raise self.fail(path, "must be a list")
        return value

    def text(self, value: Any, path: str) -> str:
        """Return a value that must be a text."""
        if not isinstance(value, str):
            raise self.fail(path, "must be a text")
        return value

    def boolean(self, value: Any, path: str) -> bool:
        """Return a value that must be a boolean."""
        if not isinstance(value, bool):
            raise self.fail(path, "must be true or false")
        return value

    def integer(self, value: Any, path: str) -> int:
        """Return a value that must be an integer."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(path, "must be an integer")
        return value

    def written(self, value: Any, path: str) -> str:
        """Return a scalar as the text that Docker makes of it."""
        if isinstance(value, dict | list | bool):
            raise self.fail(path, "must be a text or a number: put it in quotes")
        return _written(value)

    def pairs(self, value: Any, path: str, *, empty: str | None = "") -> dict[str, Any]:
        """Return a map of texts, from one, or from a list of `key=value`; a key alone has the value `empty`."""
        found: dict[str, Any] = {}
        if isinstance(value, list):
            for number, entry in enumerate(value):
                key, separator, rest = self.text(entry, f"{path}.{number}").partition("=")
                found[key] = rest if separator else empty
            return found
        for key, entry in self.mapping(value, path).items():
            found[key] = empty if entry is None else self.written(entry, f"{path}.{key}")
        return found

    def texts(self, value: Any, path: str) -> list[str]:
        """Return a list of texts; one text alone is a list of it."""
        if isinstance(value, str):
            return [value]
        return [self.written(entry, f"{path}.{at}") for at, entry in enumerate(self.listing(value, path))]

    # A service

    def service(self, value: Any, path: str) -> dict[str, Any]:
        """Return a service in the long form."""
        made = dict(self.mapping(value, path))
        readers: dict[str, Callable[[Any, str], Any]] = {
            **dict.fromkeys(_SERVICE_BOOLEANS, self.boolean),
            **dict.fromkeys(_SERVICE_LISTS, self.texts),
            "image": self.text,
            "stop_grace_period": self.text,
            "network_mode": self.text,
            "labels": self.pairs,
            "sysctls": self.pairs,
            "volumes": self.mounts,
            "ports": self.ports,
            "secrets": self.references,
            "configs": self.references,
            "networks": self.networks,
            "extra_hosts": self.hosts,
            "deploy": self.deploy,
            "healthcheck": self.healthcheck,
            "logging": self.logging,
            "ulimits": self.mapping,
        }
        for key, read in readers.items():
            if key in made:
                made[key] = read(made[key], f"{path}.{key}")
        if "environment" in made or "env_file" in made:
            made["environment"] = self.environment(made, path)
            made.pop("env_file", None)
        return made

    def environment(self, service: Mapping[str, Any], path: str) -> dict[str, str | None]:
        """Return a service's environment: its `env_file`s, then its own; what is empty is taken from the `.env`."""
        found: dict[str, str | None] = {}
        for name in self.texts(service.get("env_file", []), f"{path}.env_file"):
            found |= self.env_file(name, f"{path}.env_file")
        if "environment" in service:
            found |= self.pairs(service["environment"], f"{path}.environment", empty=None)
        return {key: self.env[key] if not value and key in self.env else value for key, value in found.items()}

    def env_file(self, name: str, path: str) -> dict[str, str | None]:
        """Read a file of `KEY=value` lines, which knows no quotes and no expansion."""
        found: dict[str, str | None] = {}
        try:
            lines = read_text(self.root, name).splitlines()
        except BadRecipeError as error:
            raise self.fail(path, error.message) from error
        for number, line in enumerate(lines, 1):
            key, separator, value = line.lstrip().partition("=")
            if not key or key.startswith("#"):
                continue
            if not key.strip() or re.search(r"\s", key):
                raise BadRecipeError(f"{name}:{number}: {key.strip()[:80]!r} is no name of a variable")
            if separator or key in self.env:
                found[key] = value if separator else self.env[key]
        return found

    def mounts(self, value: Any, path: str) -> list[dict[str, Any]]:
        """Return mounts in the long form."""
        found = []
        for number, entry in enumerate(self.listing(value, path)):
            at = f"{path}.{number}"
            one = self._short_mount(entry, at) if isinstance(entry, str) else dict(self.mapping(entry, at))
            for key in ("type", "target"):
                self.text(one.get(key), f"{at}.{key}")
            self.text(one.get("source", ""), f"{at}.source")
            self.boolean(one.get("read_only", False), f"{at}.read_only")
            for key in ("bind", "volume", "tmpfs"):
                self.mapping(one.get(key, {}), f"{at}.{key}")
            if one["type"] == "bind":
                one["source"] = self._host_path(one.get("source", ""), at)
            found.append(one)
        return found

    def _short_mount(self, spec: str, at: str) -> dict[str, Any]:
        # `a:/b` begins like a drive of Windows, and Docker reads it as one.
        parts = [part for part in re.split(r":", re.sub(r"(^|:)([^\W\d_]):", "\\1\\2\0", spec))]
        source, target, *rest = [part.replace("\0", ":") for part in (parts if len(parts) > 1 else ["", *parts])]
        if len(spec) <= 2:
            source, target, rest = "", spec, []
        if not target or len(rest) > 1 or (len(parts) > 1 and not source) or (rest and not rest[0]):
            raise self.fail(at, f"{spec[:80]!r} is no mount")
        drive = len(source) > 1 and source[0].isalpha() and source[1] == ":"
        made: dict[str, Any] = {"type": "volume", "target": target}
        if source:
            made |= {
                "type": "bind" if drive or source.startswith((".", "/", "~", "\\\\")) else "volume",
                "source": source,
            }
        for option in rest[0].split(",") if rest else []:
            if option in ("ro", "rw"):
                made["read_only"] = option == "ro"
            elif option == "nocopy":
                made["volume"] = {"nocopy": True}
            elif option in ("private", "rprivate", "shared", "rshared", "slave", "rslave"):
                made["bind"] = {"propagation": option}
        if made.get("read_only") is False:
            del made["read_only"]
        return made

    def _host_path(self, source: str, at: str) -> str:
        if not source:
            raise self.fail(at, "mounts nothing: `source` is empty")
        if source.startswith("~"):
            if "HOME" not in self.env:
                raise self.fail(at, f"mounts {source[:80]!r}, and no HOME is known here")
            source = f"{self.env['HOME']}{source[1:]}"
        drive = source[1:2] == ":" and source[0].isalpha()
        absolute = source.startswith(("/", "\\\\")) or (drive and source[2:3] in ("/", "\\"))
        return source if absolute else os.path.normpath(self.root / source)

    def ports(self, value: Any, path: str) -> list[dict[str, Any]]:
        """Return ports in the long form, ranges port by port."""
        found: list[dict[str, Any]] = []
        for number, entry in enumerate(self.listing(value, path)):
            at = f"{path}.{number}"
            if isinstance(entry, dict):
                one = dict(entry)
                one["target"] = self.integer(one.get("target"), f"{at}.target")
                if "published" in one:
                    self.integer(one["published"], f"{at}.published")
                found.append(one)
            elif isinstance(entry, str) or (isinstance(entry, int) and not isinstance(entry, bool)):
                found += self._short_ports(str(entry), at)
            else:
                raise self.fail(at, "must be a port")
        return found

    def _short_ports(self, spec: str, at: str) -> Iterator[dict[str, Any]]:
        found = re.fullmatch(
            r"(?:(?:\[[0-9A-Fa-f:.]*\]|[0-9.]*):)??(?:(?P<published>[0-9]+(?:-[0-9]+)?)?:)?"
            r"(?P<target>[0-9]+(?:-[0-9]+)?)(?:/(?P<protocol>tcp|udp|sctp))?",
            spec,
            re.IGNORECASE,
        )
        if found is None:
            raise self.fail(at, f"{spec[:80]!r} is no port")
        first, last = _range(found.group("target"))
        begin, end = _range(found.group("published") or "0")
        several = last - first
        if not 0 <= several < PORT_RANGE_LIMIT or max(last, end) > 65535:
            raise self.fail(at, f"{spec[:80]!r} is no range of ports")
        if begin and end - begin != several and several:
            raise self.fail(at, f"{spec[:80]!r} maps ranges of different lengths")
        for step in range(several + 1):
            one: dict[str, Any] = {
                "mode": "ingress",
                "target": first + step,
                "protocol": (found.group("protocol") or "tcp").lower(),
            }
            if not begin:
                yield one
                continue
            # A range of published ports for one target stands for all of them.
            for published in range(begin, end + 1) if not several else (begin + step,):
                yield {**one, "published": published}

    def references(self, value: Any, path: str) -> list[dict[str, Any]]:
        """Return a service's secrets or configs in the long form."""
        found = []
        for number, entry in enumerate(self.listing(value, path)):
            at = f"{path}.{number}"
            one = {"source": entry} if isinstance(entry, str) else dict(self.mapping(entry, at))
            self.text(one.get("source"), f"{at}.source")
            found.append(one)
        return found

    def networks(self, value: Any, path: str) -> dict[str, Any]:
        """Return a service's networks as a map."""
        if isinstance(value, list):
            return {self.text(name, f"{path}.{number}"): None for number, name in enumerate(value)}
        found: dict[str, Any] = {}
        for name, entry in self.mapping(value, path).items():
            at = f"{path}.{name}"
            found[name] = entry if entry is None else dict(self.mapping(entry, at))
            if entry is not None and "aliases" in entry:
                found[name]["aliases"] = self.texts(entry["aliases"], f"{at}.aliases")
        return found

    def hosts(self, value: Any, path: str) -> list[str]:
        """Return extra hosts as a list of `name:address`."""
        if isinstance(value, list):
            return [self.text(entry, f"{path}.{number}") for number, entry in enumerate(value)]
        entries = self.mapping(value, path).items()
        return sorted(f"{key}:{self.written(entry, path)}" for key, entry in entries if entry is not None)

    def deploy(self, value: Any, path: str) -> dict[str, Any]:
        """Return `deploy` with its labels as a map."""
        made = dict(self.mapping(value, path))
        if "labels" in made:
            made["labels"] = self.pairs(made["labels"], f"{path}.labels")
        if "replicas" in made:
            self.integer(made["replicas"], f"{path}.replicas")
        for key in ("resources", "placement", "update_config", "rollback_config", "restart_policy"):
            if key in made:
                self.mapping(made[key], f"{path}.{key}")
        return made

    def healthcheck(self, value: Any, path: str) -> dict[str, Any]:
        """Return a health check with its test as a list."""
        made = dict(self.mapping(value, path))
        if isinstance(made.get("test"), str):
            made["test"] = ["CMD-SHELL", made["test"]]
        elif "test" in made:
            made["test"] = self.texts(made["test"], f"{path}.test")
        if "disable" in made:
            self.boolean(made["disable"], f"{path}.disable")
        if "retries" in made and not isinstance(made["retries"], float):
            self.integer(made["retries"], f"{path}.retries")
        return made

    def logging(self, value: Any, path: str) -> dict[str, Any]:
        """Return `logging` with its options as a map of texts."""
        made = dict(self.mapping(value, path))
        if "options" in made:
            made["options"] = self.pairs(self.mapping(made["options"], f"{path}.options"), f"{path}.options")
        return made

    # What a file defines beside services

    def object(self, value: Any, path: str) -> dict[str, Any]:
        """Return a volume, network, secret or config: `external` as a boolean, its name under `name`, its file in full."""
        if value is None and path.startswith(("volumes.", "networks.")):
            return {}
        made = dict(self.mapping(value, path))
        for key in ("name", "file", "driver"):
            if key in made:
                self.text(made[key], f"{path}.{key}")
        if "labels" in made:
            made["labels"] = self.pairs(made["labels"], f"{path}.labels")
        if "driver_opts" in made:
            options = self.mapping(made["driver_opts"], f"{path}.driver_opts")
            made["driver_opts"] = self.pairs(options, f"{path}.driver_opts")
        if made.get("file"):
            made["file"] = os.path.normpath(self.root / made["file"])
        external = made.pop("external", False)
        if isinstance(external, dict):
            if "name" in made and "name" in external:
                raise self.fail(path, "has two names: `name` and `external.name`")
            made |= {"name": self.text(external["name"], f"{path}.external.name")} if "name" in external else {}
            external = True
        if self.boolean(external, f"{path}.external"):
            made["external"] = True
            made.setdefault("name", path.partition(".")[2])
        return made


def _written(value: Any) -> str:
    """Write a scalar as Go does."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    text, order = "".join(map(str, digits)), len(digits) + exponent - 1
    minus = "-" if sign else ""
    if -4 <= order < 6 or not value:
        return f"{minus}{Decimal(repr(abs(value))).normalize():f}"
    # From a million on, and below a ten-thousandth, with an exponent of two digits at least.
    return f"{minus}{text[0]}{'.' if text[1:] else ''}{text[1:]}e{'-' if order < 0 else '+'}{abs(order):02}"


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


# Merging


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge two prepared files, the later one over the earlier one.

    Raises:
        BadRecipeError: They are written for different versions of the format.
    """
    if base and base.get("version") != over.get("version"):
        raise BadRecipeError(
            f"files for version {base.get('version')} and for version {over.get('version')} of the format are not merged",
            hint="give all compose files the same `version`",
        )
    merged = dict(base)
    for key, value in over.items():
        if key == "services":
            services = dict(merged.get(key) or {})
            for name, service in value.items():
                services[name] = _merge_service(services[name], service) if name in services else service
            merged[key] = services
        elif key in SECTIONS:
            # What a later file defines under the same name takes the place of all that the earlier one says.
            merged[key] = {**(merged.get(key) or {}), **value}
        else:
            merged[key] = value
    return merged


def _merge_service(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key in dict.fromkeys((*base, *over)):
        old, new = base.get(key), over.get(key)
        if key in _KEYED and old is None:
            merged[key] = new
        elif key in _KEYED:
            entries = {_KEYED[key](one): one for one in (*(old or []), *(new or []))}
            merged[key] = list(entries.values())
        elif key in ("command", "entrypoint"):
            merged[key] = new if new or old is None else old
        elif key == "networks":
            merged[key] = _merge_networks(old or {}, new or {})
        elif key in ("labels", "sysctls"):
            merged[key] = {**(old or {}), **(new or {})}
        elif key == "deploy":
            merged[key] = _merge_any(key, old, new)
            if old and new and "labels" in merged[key]:
                merged[key]["labels"] = {**(old.get("labels") or {}), **(new.get("labels") or {})}
        elif key == "logging":
            merged[key] = _merge_logging(old or {}, new or {})
        elif key == "ulimits":
            merged[key] = {**(old or {}), **{name: limit for name, limit in (new or {}).items() if limit is not None}}
        else:
            merged[key] = _merge_any(key, old, new)
            if isinstance(merged[key], list):
                # One after the other; the format allows no entry twice.
                merged[key] = list(dict.fromkeys(merged[key]))
    return merged


#: What entries of a service's lists are known by.
_KEYED: dict[str, Callable[[Any], Any]] = {
    "volumes": lambda entry: entry["target"],
    "ports": lambda entry: entry.get("published") or 0,
    "secrets": lambda entry: entry["source"],
    "configs": lambda entry: entry["source"],
}
#: Numbers that a later file may set to 0.
_COUNTS = {"replicas", "parallelism", "max_attempts", "max_replicas_per_node", "retries"}


def _merge_any(key: str, old: Any, new: Any) -> Any:
    """Merge two values of one kind: maps by their keys, lists one after the other; what is empty changes nothing."""
    if key in _COUNTS and new is not None:
        return new
    if isinstance(old, dict) and isinstance(new, dict):
        return {one: _merge_any(one, old.get(one), new.get(one)) for one in dict.fromkeys((*old, *new))}
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *new]
    return old if old is not None and new in (None, "", 0, False, [], {}) else new


def _merge_networks(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for name, entry in new.items():
        before = merged.get(name)
        if entry is None or before is None:
            merged[name] = before if entry is None else entry
            continue
        made = {**before, **{key: value for key, value in entry.items() if value}}
        made.pop("aliases", None)
        if entry.get("aliases"):
            made["aliases"] = entry["aliases"]
        merged[name] = made
    return merged


def _merge_logging(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    if not new or not old:
        return dict(new or old)
    if old.get("driver") and new.get("driver") and old["driver"] != new["driver"]:
        return dict(new)
    options = {**(old.get("options") or {}), **(new.get("options") or {})}
    driver = new.get("driver") or old.get("driver")
    return {**({"driver": driver} if driver else {}), **({"options": options} if options else {})}
