"""What a recipe's checkout says: compose files, `.env.sample`, `abra.sh`, labels, versions. Read as abra reads it.

There is no well-kept Python library for Compose's merging and interpolation, so both are here, and proven against the
loader of the `docker` command (`docker stack config`) in the tests.

Example:
    >>> recipe = Recipe.read(Path("custom-html"), "custom-html")            # doctest: +SKIP
    >>> recipe.render({"DOMAIN": "a.ci.localhost", "STACK_NAME": "a_ci_localhost"}).version_label  # doctest: +SKIP
    '1.7.1+1.27.2'
"""

from __future__ import annotations

import functools
import io
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from dotenv.parser import parse_stream

from pytest_coopcloud.errors import BadRecipeError

__all__ = ["BackupSpec", "ConfigSpec", "EnvSample", "Recipe", "RenderedRecipe", "SecretSpec", "Version"]

COMPOSE_FILE = "compose.yml"
SAMPLE_FILE = ".env.sample"
SCRIPT_FILE = "abra.sh"

#: Limits of what is read: bytes of a file, nodes of a document with its aliases followed, depth.
FILE_LIMIT = 256 * 1024
NODE_LIMIT = 20_000
DEPTH_LIMIT = 50

#: Seconds to converge where a recipe has no timeout label (abra's own default).
DEFAULT_TIMEOUT = 300.0

_TRUE = ("true", "1", "yes", "on")


# Versions


@functools.total_ordering
@dataclass(frozen=True)
class Version:
    """A published version, `x.y.z+upstream`: semver over the recipe, and the upstream image's own version.

    Example:
        >>> Version.parse("1.10.0+2.0") > Version.parse("1.9.3+2.1-alpine")
        True
    """

    recipe: tuple[int, int, int]
    upstream: str

    _FORM = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})\+([0-9A-Za-z][0-9A-Za-z._-]{0,99})")

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read a version.

        Raises:
            BadRecipeError: It is none.
        """
        found = cls._FORM.fullmatch(text)
        if found is None:
            raise BadRecipeError(f"{text[:80]!r} is no version", hint="a version is `x.y.z+upstream`, as 1.7.1+1.27.2")
        major, minor, patch, upstream = found.groups()
        return cls((int(major), int(minor), int(patch)), upstream)

    @property
    def _key(self) -> tuple[Any, ...]:
        parts = re.findall(r"\d+|[A-Za-z]+", self.upstream)
        # A number comes after a word: 1.0 is newer than 1.0-rc1, whose list goes on with a word.
        natural = [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
        return (self.recipe, [*natural, (0, 1, "")], self.upstream)

    def __lt__(self, other: Version) -> bool:
        return self._key < other._key

    def __str__(self) -> str:
        return "{}.{}.{}+{}".format(*self.recipe, self.upstream)


# .env.sample


@dataclass(frozen=True)
class SecretRule:
    """What the comment on a `SECRET_..._VERSION` line says: `# length=32 charset=... generate=false`."""

    length: int | None = None
    charset: str = ""
    generate: bool = True


@dataclass(frozen=True)
class EnvSample:
    """A `.env.sample`: its keys in order, as written, and what comments say of secrets.

    Attributes:
        lines: Key, value before expansion, whether it is expanded (single quotes are not), line number.
        rules: The rule of each secret, by the key of its version.
    """

    lines: tuple[tuple[str, str, bool, int], ...] = ()
    rules: Mapping[str, SecretRule] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, name: str = SAMPLE_FILE) -> EnvSample:
        """Read the text of a sample.

        Raises:
            BadRecipeError: A line is neither empty, nor a comment, nor `KEY=value`.
        """
        lines, rules = [], {}
        for binding in parse_stream(io.StringIO(text)):
            where = binding.original.line
            if binding.error:
                raise BadRecipeError(f"{name}:{where}: {binding.original.string.strip()[:80]!r} is no `KEY=value`")
            if binding.key is None or binding.value is None:
                continue
            source = binding.original.string.strip()
            written = source.partition("=")[2].strip()
            lines.append((binding.key, binding.value, not written.startswith("'"), where))
            if binding.key.startswith("SECRET_") and binding.key.endswith("_VERSION"):
                rules[binding.key] = _rule(source, f"{name}:{where}")
        return cls(tuple(lines), rules)

    def expand(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return every key with its value, expanded in the order of the file; what is given wins over what is written."""
        values: dict[str, str] = {}
        for key, value, expands, _ in self.lines:
            if key in given:
                values[key] = given[key]
            else:
                values[key] = _expand_shell(value, {**given, **values}) if expands else value
        for key, value in given.items():
            values.setdefault(key, value)
        return values


def _rule(line: str, where: str) -> SecretRule:
    comment = line.partition("#")[2]
    found = dict(re.findall(r"(length|charset|generate)=(\S+)", comment))
    length = found.get("length")
    if length is not None and not (length.isdigit() and 0 < int(length) <= 4096):
        raise BadRecipeError(f"{where}: length={length} is no length from 1 to 4096")
    return SecretRule(
        length=int(length) if length else None,
        charset=CHARSETS.get(found.get("charset", ""), ""),
        generate=found.get("generate", "true").lower() not in ("false", "0", "no"),
    )


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: The characters that the names in `charset=` stand for; an unknown name means the default.
CHARSETS = {
    "hex": "0123456789abcdef",
    "alnum": f"{_LETTERS}0123456789",
    "default": f"{_LETTERS}0123456789",
    "special": f"{_LETTERS}0123456789!@#$%^&*_-+=",
    "safespecial": f"{_LETTERS}0123456789!@#%^*_-+=",
}

_SHELL = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^}]*))?\})")


def _expand_shell(text: str, known: Mapping[str, str]) -> str:
    """Expand `$A`, `${A}` and `${A:-b}` as a `.env` file and `abra.sh` use them; what is unknown is empty."""

    def value(found: re.Match[str]) -> str:
        return known.get(found.group(1) or found.group(2)) or found.group(3) or ""

    return _SHELL.sub(value, text)


# abra.sh

_EXPORT = re.compile(r"^\s*export\s+(\w+=.*)$")


def read_exports(text: str) -> dict[str, str]:
    """Return what `abra.sh` exports, read and never executed: `export A=b`, quoted, with references to earlier ones.

    A value that a command computes (`$(...)`) cannot be known without running it, and is left out.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _EXPORT.match(line)
        if match is None:
            continue
        try:
            words = shlex.split(match.group(1), comments=True)
        except ValueError:
            continue
        for word in words:
            key, separator, value = word.partition("=")
            if separator and key.isidentifier() and "$(" not in value and "`" not in value:
                found[key] = value if f"{key}='" in match.group(1) else _expand_shell(value, found)
    return found


# YAML


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """A safe loader that takes a date and `yes` as the text they are, as Go's does for YAML 1.2."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, form) for tag, form in resolvers if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _read(path: Path, name: str) -> str:
    try:
        size = path.stat().st_size
        if size > FILE_LIMIT:
            raise BadRecipeError(f"{name} has {size} bytes, {FILE_LIMIT} are allowed")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadRecipeError(f"{name} is no UTF-8: byte {error.start} is {error.object[error.start]:#x}") from error
    except OSError as error:
        raise BadRecipeError(f"{name} cannot be read: {error.strerror}") from error


def load_compose(path: Path, name: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Read a compose file as it is written, and the line on which each key path (`services.app.image`) stands.

    Raises:
        BadRecipeError: It cannot be read, is no mapping, repeats a key, or grows beyond all bounds.
    """
    text = _read(path, name)
    try:
        node = yaml.compose(text, Loader=_Loader)
        lines: dict[str, int] = {}
        _walk(node, "", 0, lines, [0], name)
        loaded = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadRecipeError(f"{name}:{mark.line + 1 if mark else 1}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadRecipeError(f"{name} is no YAML: {error}") from error
    if not isinstance(loaded, dict):
        kind = "empty" if loaded is None else f"a {type(loaded).__name__}"
        raise BadRecipeError(f"{name}:1: expected a mapping with `services`, and it is {kind}")
    return loaded, lines


def _walk(node: Any, path: str, depth: int, lines: dict[str, int], count: list[int], name: str) -> None:
    """Count the nodes of a document with its aliases followed, before anything is built of it."""
    count[0] += 1
    if count[0] > NODE_LIMIT or depth > DEPTH_LIMIT:
        what = f"more than {NODE_LIMIT} values" if count[0] > NODE_LIMIT else f"more than {DEPTH_LIMIT} levels"
        raise BadRecipeError(f"{name}: {path or 'the document'} grows to {what} when its aliases are followed")
    if node is not None and path:
        lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            word = str(key.value)
            if word in seen and word != "<<":
                raise BadRecipeError(f"{name}:{key.start_mark.line + 1}: the key {word!r} stands here twice")
            seen.add(word)
            _walk(value, f"{path}.{word}" if path else word, depth + 1, lines, count, name)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _walk(value, f"{path}.{number}", depth + 1, lines, count, name)


# Interpolation: the rules of the Compose file format, as `docker stack deploy` follows them

_NAME = r"[_a-zA-Z][_a-zA-Z0-9]*"
_TEMPLATE = re.compile(
    rf"\$(?:(?P<escaped>\$)|(?P<named>{_NAME})|\{{(?P<braced>{_NAME}(?:(?::?[-?])[^}}]+|:?[-?])?)\}}|(?P<bad>))"
)
_BRACED = re.compile(rf"({_NAME})(?:(:?[-?])(.*))?", re.DOTALL)


def interpolate(text: str, env: Mapping[str, str], where: Callable[[], str] = lambda: "") -> str:
    """Fill variables into a text: `$A ${A} ${A:-b} ${A-b} ${A?e} ${A:?e} $$`.

    Raises:
        BadRecipeError: A required variable is not set, or the text is no template; `where()` names file, key and line.
    """

    def value(found: re.Match[str]) -> str:
        if found.group("escaped"):
            return "$"
        if found.group("bad") is not None:
            raise BadRecipeError(
                f"{where()}: {text[found.start() : found.start() + 40]!r} is no variable",
                hint="write `$$` where a dollar sign is meant",
            )
        if found.group("named"):
            return env.get(found.group("named"), "")
        match = _BRACED.fullmatch(found.group("braced"))
        assert match is not None
        name, operator, rest = match.group(1), match.group(2) or "", match.group(3) or ""
        missing = name not in env or (operator.startswith(":") and not env[name])
        if operator.endswith("-") and missing:
            return rest
        if operator.endswith("?") and missing:
            raise BadRecipeError(
                f"{where()}: the variable {name} must be set{f': {rest}' if rest else ''}",
                hint=f"give it in `.env.sample`, or as `extra_env={{'{name}': ...}}` in the enrolment",
            )
        return env.get(name, "")

    return _TEMPLATE.sub(value, text)


# Merging


def _merge_services(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, service in over.items():
        merged[name] = _merge_service(dict(merged[name] or {}), service or {}) if name in merged else service
    return merged


#: Lists of a service whose entries are known by what they lead to.
_BY_TARGET = {"ports", "volumes", "secrets", "configs"}
#: What is taken whole from the later file.
_REPLACED = {"command", "entrypoint"}
_AS_MAP = {"environment", "labels", "extra_hosts", "sysctls"}


def _merge_service(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if old is None or key in _REPLACED:
            merged[key] = value
        elif key in _BY_TARGET:
            merged[key] = _merge_by_target(key, old, value)
        elif key == "networks":
            merged[key] = {**_as_map(old), **_as_map(value)}
        elif key in _AS_MAP:
            merged[key] = {**_as_map(old), **_as_map(value)}
        elif key == "deploy":
            merged[key] = _merge_deploy(dict(old), dict(value or {}))
        else:
            merged[key] = _merge_any(old, value)
    return merged


def _merge_deploy(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if key == "labels" and old is not None:
            merged[key] = {**_as_map(old), **_as_map(value)}
        else:
            merged[key] = value if old is None else _merge_any(old, value)
    return merged


def _merge_any(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _merge_any(old[key], value) if key in old else value for key, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *(entry for entry in new if entry not in old)]
    return new


def _merge_by_target(kind: str, old: list[Any], new: list[Any]) -> list[Any]:
    merged = {_target(kind, entry): entry for entry in old}
    merged.update({_target(kind, entry): entry for entry in new})
    return list(merged.values())


def _target(kind: str, entry: Any) -> Any:
    if kind in ("secrets", "configs"):
        return entry if isinstance(entry, str) else entry.get("target") or entry.get("source")
    if kind == "ports":
        return (
            entry
            if isinstance(entry, str | int)
            else (entry.get("target"), entry.get("published"), entry.get("protocol"))
        )
    parts = entry.split(":") if isinstance(entry, str) else []
    return (parts[1] if len(parts) > 1 else parts[0]) if parts else entry.get("target")


def _as_map(value: Any) -> dict[str, Any]:
    """Return a map of what may be one already, or a list of `key=value` (a key alone has no value)."""
    if isinstance(value, dict):
        return {str(key): entry for key, entry in value.items()}
    found: dict[str, Any] = {}
    for entry in value or []:
        key, separator, rest = str(entry).partition("=")
        found[key] = rest if separator else None
    return found


# A recipe


@dataclass(frozen=True)
class SecretSpec:
    """A secret that the recipe uses.

    Attributes:
        name: Its name in the compose file.
        docker_name: Its name in Docker.
        env_key: The key that holds its version.
        length: Characters; None for a passphrase.
        charset: The characters it is made of; empty for letters and digits.
        generate: Whether a value may be invented.
    """

    name: str
    docker_name: str
    env_key: str
    version: str
    length: int | None = None
    charset: str = ""
    generate: bool = True


@dataclass(frozen=True)
class ConfigSpec:
    """A config that the recipe uses: its key, its name in Docker, its file, its template driver."""

    key: str
    docker_name: str
    path: Path | None
    template_driver: str = ""


@dataclass(frozen=True)
class BackupSpec:
    """What the backup labels say, of both generations.

    Attributes:
        volumes: The volumes that are backed up, by their key, each with the paths in it; no paths means all of it.
        pre_hooks: Command by service, before a backup; likewise the others.
    """

    volumes: Mapping[str, tuple[str, ...]]
    pre_hooks: Mapping[str, str] = field(default_factory=dict)
    post_hooks: Mapping[str, str] = field(default_factory=dict)
    restore_pre_hooks: Mapping[str, str] = field(default_factory=dict)
    restore_post_hooks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RenderedRecipe:
    """A recipe with an environment filled in.

    Attributes:
        compose: The merged and interpolated model; labels and environments are maps.
        env: Every key of the `.env`, which abra puts into the environment of service `app`.
        files: The compose files, in order.
        warnings: Variables that are used and set nowhere, and the like.
    """

    compose: dict[str, Any]
    env: dict[str, str]
    files: tuple[str, ...]
    stack: str
    checkout: Path
    rules: Mapping[str, SecretRule]
    warnings: tuple[str, ...] = ()

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """The services by name."""
        return self.compose["services"]  # type: ignore[no-any-return]

    def labels(self, service: str) -> dict[str, str]:
        """Return the labels of a service (`deploy.labels`)."""
        labels = (self.services[service].get("deploy") or {}).get("labels") or {}
        return {key: "" if value is None else str(value) for key, value in labels.items()}

    @functools.cached_property
    def images(self) -> list[str]:
        """The images, each once."""
        return list(dict.fromkeys(str(service["image"]) for service in self.services.values()))

    @functools.cached_property
    def volumes(self) -> dict[str, str]:
        """Docker's name of each named volume, by its key."""
        return {
            key: str((spec or {}).get("name") or f"{self.stack}_{key}")
            for key, spec in (self.compose.get("volumes") or {}).items()
        }

    @property
    def external_networks(self) -> list[str]:
        """The names of the networks that must be there already."""
        return [
            _external_name(key, spec) for key, spec in (self.compose.get("networks") or {}).items() if _external(spec)
        ]

    @functools.cached_property
    def secrets(self) -> list[SecretSpec]:
        """The secrets, with the rules that the sample's comments give."""
        found = []
        for key, spec in (self.compose.get("secrets") or {}).items():
            name = _external_name(key, spec)
            version = name.rpartition("_")[2]
            env_key = self._version_key(key, name)
            rule = self.rules.get(env_key, SecretRule())
            found.append(
                SecretSpec(
                    name=key,
                    docker_name=name,
                    env_key=env_key,
                    version=version,
                    length=rule.length,
                    charset=rule.charset,
                    generate=rule.generate,
                )
            )
        return found

    def _version_key(self, key: str, name: str) -> str:
        """Return the key of a secret's version: by its name, else the one whose value makes its Docker name."""
        usual = f"SECRET_{key.upper().replace('-', '_')}_VERSION"
        if usual in self.rules:
            return usual
        for candidate in self.rules:
            middle = candidate.removeprefix("SECRET_").removesuffix("_VERSION").lower()
            if name == f"{self.stack}_{middle}_{self.env.get(candidate, '')}":
                return candidate
        return usual

    @functools.cached_property
    def configs(self) -> list[ConfigSpec]:
        """The configs."""
        return [
            ConfigSpec(
                key=key,
                docker_name=str((spec or {}).get("name") or f"{self.stack}_{key}"),
                path=(self.checkout / spec["file"]) if (spec or {}).get("file") else None,
                template_driver=str((spec or {}).get("template_driver") or ""),
            )
            for key, spec in (self.compose.get("configs") or {}).items()
            if not _external(spec)
        ]

    @property
    def version_label(self) -> str:
        """The version that the recipe calls itself; empty where it does not."""
        return self._stack_label("version")

    @property
    def timeout_label(self) -> float:
        """Seconds that the recipe gives a deployment to converge."""
        text = self._stack_label("timeout")
        try:
            return float(text) if text else DEFAULT_TIMEOUT
        except ValueError:
            raise BadRecipeError(
                f"the label coop-cloud.{self.stack}.timeout is {text!r}", hint="give a number of seconds, see TIMEOUT"
            ) from None

    def _stack_label(self, name: str) -> str:
        for service in ("app", *self.services):
            if service in self.services:
                value = self.labels(service).get(f"coop-cloud.{self.stack}.{name}", "")
                if value:
                    return value
        return ""

    def mounts_of(self, volume: str) -> list[tuple[str, str]]:
        """Return the services that mount a named volume, each with the folder in its container; writable ones first."""
        found = []
        for service, spec in self.services.items():
            for entry in spec.get("volumes") or []:
                source, target, read_only = _mount(entry)
                if source == volume:
                    found.append((read_only, service, target))
        return [(service, target) for _, service, target in sorted(found, key=lambda one: one[0])]

    @functools.cached_property
    def backup(self) -> BackupSpec | None:
        """What is backed up; None where no label asks for a backup."""
        labels = {service: self.labels(service) for service in self.services}
        if not any(_truth(own.get("backupbot.backup")) for own in labels.values()):
            return None
        return BackupSpec(
            volumes=self._backup_volumes(labels),
            pre_hooks=_hooks(labels, "backupbot.backup.pre-hook"),
            post_hooks=_hooks(labels, "backupbot.backup.post-hook"),
            restore_pre_hooks=_hooks(labels, "backupbot.restore.pre-hook"),
            restore_post_hooks=_hooks(labels, "backupbot.restore.post-hook"),
        )

    def _backup_volumes(self, labels: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
        old = self._old_paths(labels)
        if old:
            return old
        found: dict[str, tuple[str, ...]] = {}
        for key in self.volumes:
            given = [
                own[f"backupbot.backup.volumes.{key}"]
                for own in labels.values()
                if f"backupbot.backup.volumes.{key}" in own
            ]
            if given and not _truth(given[-1]):
                continue
            if not self.mounts_of(key):
                continue
            paths = [
                own[f"backupbot.backup.volumes.{key}.path"]
                for own in labels.values()
                if f"backupbot.backup.volumes.{key}.path" in own
            ]
            found[key] = tuple(path.strip() for text in paths for path in text.split(",") if path.strip())
        return found

    def _old_paths(self, labels: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
        """Read the older form: absolute paths in the container of the service that carries the label."""
        found: dict[str, tuple[str, ...]] = {}
        for service, own in labels.items():
            for path in (part.strip() for part in own.get("backupbot.backup.path", "").split(",")):
                if not path or not _truth(own.get("backupbot.backup")):
                    continue
                inside = self._in_volume(service, path)
                if inside is None:
                    raise BadRecipeError(
                        f"service {service}: the label backupbot.backup.path names {path}, which lies in no named volume",
                        hint="name a folder of a volume of this service",
                    )
                volume, rest = inside
                found[volume] = (*found.get(volume, ()), *([rest] if rest else []))
        return found

    def _in_volume(self, service: str, path: str) -> tuple[str, str] | None:
        for entry in self.services[service].get("volumes") or []:
            source, target, _ = _mount(entry)
            target = target.rstrip("/")
            if source in self.volumes and (path.rstrip("/") == target or path.startswith(f"{target}/")):
                return source, path.rstrip("/").removeprefix(target).strip("/")
        return None


def _external(spec: Any) -> bool:
    return bool(isinstance(spec, dict) and spec.get("external"))


def _external_name(key: str, spec: Any) -> str:
    external = (spec or {}).get("external")
    inner = external.get("name") if isinstance(external, dict) else None
    return str((spec or {}).get("name") or inner or key)


def _mount(entry: Any) -> tuple[str, str, bool]:
    """Return source, target and whether it is read only, of a service's volume in short or long form."""
    if isinstance(entry, str):
        parts = entry.split(":")
        if len(parts) == 1:
            return "", parts[0], False
        return parts[0], parts[1], "ro" in (parts[2].split(",") if len(parts) > 2 else [])
    return str(entry.get("source") or ""), str(entry.get("target") or ""), bool(entry.get("read_only"))


def _truth(value: str | None) -> bool:
    return value is not None and value.strip().lower() in _TRUE


def _hooks(labels: Mapping[str, Mapping[str, str]], key: str) -> dict[str, str]:
    return {service: own[key] for service, own in labels.items() if own.get(key)}


@dataclass(frozen=True)
class Recipe:
    """A recipe's checkout, as it is written.

    Attributes:
        name: The recipe's name.
        path: The checkout.
        sample: Its `.env.sample`.
        exports: What its `abra.sh` exports.
    """

    name: str
    path: Path
    sample: EnvSample
    exports: Mapping[str, str]

    @classmethod
    def read(cls, path: Path, name: str) -> Recipe:
        """Read a checkout.

        Raises:
            BadRecipeError: A file of it is missing or broken; file and line are named.
        """
        if not path.is_dir():
            raise BadRecipeError(f"there is no folder {path}")
        if not (path / COMPOSE_FILE).is_file():
            raise BadRecipeError(f"{name} has no {COMPOSE_FILE}", hint=f"is {path} the folder of a recipe?")
        sample = EnvSample()
        if (path / SAMPLE_FILE).exists():
            sample = EnvSample.parse(_read(path / SAMPLE_FILE, SAMPLE_FILE))
        exports = read_exports(_read(path / SCRIPT_FILE, SCRIPT_FILE)) if (path / SCRIPT_FILE).exists() else {}
        return cls(name=name, path=path, sample=sample, exports=exports)

    def render(self, env: Mapping[str, str]) -> RenderedRecipe:
        """Merge the compose files that `COMPOSE_FILE` names, and fill the variables in.

        The process's own environment plays no part in it.

        Args:
            env: Keys that win over those of `.env.sample`; `DOMAIN` and `STACK_NAME` must be among them.

        Raises:
            BadRecipeError: A file is missing or broken, or a required variable is not set.
        """
        values = self.sample.expand(env)
        # abra reads the exports of abra.sh over the `.env`: a config's version is the recipe's business.
        known = {**values, **self.exports}
        files = [part for part in values.get("COMPOSE_FILE", COMPOSE_FILE).split(":") if part] or [COMPOSE_FILE]
        files = list(dict.fromkeys(files))
        merged: dict[str, Any] = {}
        warnings: list[str] = []
        for file in files:
            merged = self._merge(merged, self._load(file, known, warnings))
        services = merged.get("services")
        if not isinstance(services, dict) or not services:
            raise BadRecipeError(f"{files[0]}: there are no `services`")
        for name, service in services.items():
            self._normalise(name, service, files[0])
        exposed = {key: value for key, value in values.items() if key not in ("STACK_NAME",)}
        return RenderedRecipe(
            compose=merged,
            env=exposed,
            files=tuple(files),
            stack=env["STACK_NAME"],
            checkout=self.path,
            rules=self.sample.rules,
            warnings=tuple(dict.fromkeys(warnings)),
        )

    def _load(self, file: str, known: Mapping[str, str], warnings: list[str]) -> dict[str, Any]:
        path = self.path / file
        try:
            inside = path.resolve(strict=True).is_relative_to(self.path.resolve())
        except OSError:
            raise BadRecipeError(
                f"COMPOSE_FILE names {file[:80]!r}, which is not there", hint=f"see COMPOSE_FILE in {SAMPLE_FILE}"
            ) from None
        if not inside:
            raise BadRecipeError(f"COMPOSE_FILE names {file[:80]!r}, which leads out of the recipe")
        loaded, lines = load_compose(path, file)
        for name in sorted(_variables(loaded) - set(known)):
            warnings.append(f"{file}: the variable {name} is set nowhere and taken as empty")

        def fill(value: Any, at: str) -> Any:
            if isinstance(value, str):
                return interpolate(value, known, lambda: f"{file}:{lines.get(at, 1)}: {at}")
            if isinstance(value, dict):
                return {key: fill(entry, f"{at}.{key}" if at else str(key)) for key, entry in value.items()}
            if isinstance(value, list):
                return [fill(entry, f"{at}.{number}") for number, entry in enumerate(value)]
            return value

        filled: dict[str, Any] = fill(loaded, "")
        for section in ("services", "volumes", "networks", "secrets", "configs"):
            if filled.get(section) is not None and not isinstance(filled[section], dict):
                raise BadRecipeError(f"{file}:{lines.get(section, 1)}: `{section}` must be a mapping")
        for name, service in (filled.get("services") or {}).items():
            if not isinstance(service, dict):
                raise BadRecipeError(f"{file}:{lines.get(f'services.{name}', 1)}: service {name} must be a mapping")
        return filled

    @staticmethod
    def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
        merged = dict(base)
        for key, value in over.items():
            if key == "services":
                merged[key] = _merge_services(dict(merged.get(key) or {}), value or {})
            elif key in ("volumes", "networks", "secrets", "configs"):
                merged[key] = {**(merged.get(key) or {}), **(value or {})}
            else:
                merged[key] = value
        return merged

    @staticmethod
    def _normalise(name: str, service: dict[str, Any], file: str) -> None:
        if not service.get("image"):
            raise BadRecipeError(f"{file}: services.{name} has no `image`")
        for key in ("environment", "labels"):
            if service.get(key) is not None:
                service[key] = _as_map(service[key])
        deploy = service.get("deploy")
        if deploy is not None:
            if not isinstance(deploy, dict):
                raise BadRecipeError(f"{file}: services.{name}.deploy must be a mapping")
            if deploy.get("labels") is not None:
                deploy["labels"] = _as_map(deploy["labels"])


def _variables(value: Any) -> set[str]:
    """Return the variables that a model uses with no default and no `$$` before them."""
    return set(_plain_variables(value))


def _plain_variables(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        for found in _TEMPLATE.finditer(value):
            braced = found.group("braced")
            if found.group("named"):
                yield found.group("named")
            elif braced and re.fullmatch(_NAME, braced):
                yield braced
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _plain_variables(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _plain_variables(entry)
