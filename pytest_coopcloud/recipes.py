"""What a recipe's checkout says: compose files, `.env.sample`, `abra.sh`, labels, versions. Read as abra reads it.

Example:
    >>> recipe = Recipe.read(Path("custom-html"), "custom-html")            # doctest: +SKIP
    >>> recipe.render({"DOMAIN": "a.ci.localhost", "STACK_NAME": "a_ci_localhost"}).version_label  # doctest: +SKIP
    '1.7.1+1.27.2'
"""

from __future__ import annotations

import functools
import io
import math
import re
import shlex
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from dotenv.parser import parse_stream

from pytest_coopcloud.compose import ComposeFile, load, merge, plain_variables, prepare, read_text
from pytest_coopcloud.errors import BadInputError, BadRecipeError

__all__ = ["BackupSpec", "ConfigSpec", "EnvSample", "Recipe", "RenderedRecipe", "SecretSpec", "Version"]

COMPOSE_FILE = "compose.yml"
SAMPLE_FILE = ".env.sample"
SCRIPT_FILE = "abra.sh"
README_FILE = "README.md"

#: A value of the `.env` that is longer is no recipe's.
VALUE_LIMIT = 64 * 1024

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

    _FORM = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})\+([0-9A-Za-z][0-9A-Za-z._-]{0,99})")

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

    @functools.cached_property
    def _key(self) -> tuple[Any, ...]:
        parts = re.findall(r"[0-9]+|[A-Za-z]+", self.upstream)
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
            written = binding.original.string
            # The empty lines above an entry belong to it, for the parser.
            where = binding.original.line + written[: len(written) - len(written.lstrip())].count("\n")
            if binding.error:
                raise BadRecipeError(f"{name}:{where}: {written.strip()[:80]!r} is no `KEY=value`")
            if binding.key is None or binding.value is None:
                continue
            _, _, value = written.partition("=")
            lines.append((binding.key, binding.value, not value.lstrip().startswith("'"), where))
            if binding.key.startswith("SECRET_") and binding.key.endswith("_VERSION"):
                rules[binding.key] = _rule(value, f"{name}:{where}")
        return cls(tuple(lines), rules)

    def expand(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return every key with its value, expanded in the order of the file; what is given wins over what is written.

        A key may stand there several times and refer to itself; `COMPOSE_FILE` begins as `compose.yml`.
        """
        values: dict[str, str] = {}
        for key, value, expands, where in self.lines:
            if key in given:
                values[key] = given[key]
            else:
                first = {"COMPOSE_FILE": COMPOSE_FILE} if key == "COMPOSE_FILE" else {}
                values[key] = _expand_shell(value, ChainMap(values, dict(given), first)) if expands else value
                if len(values[key]) > VALUE_LIMIT:
                    raise BadRecipeError(
                        f"{SAMPLE_FILE}:{where}: {key[:80]} grows to more than {VALUE_LIMIT} characters"
                    )
        for key, value in given.items():
            values.setdefault(key, value)
        return values


def _rule(line: str, where: str) -> SecretRule:
    comment = re.split(r"(?:^|\s)#", line, maxsplit=1)[-1] if "#" in line else ""
    found = dict(re.findall(r"(length|charset|generate)=(\S+)", comment))
    length = found.get("length")
    if length is not None and not (re.fullmatch(r"[0-9]{1,4}", length) and 0 < int(length) <= 4096):
        raise BadRecipeError(f"{where}: length={length} is no length from 1 to 4096")
    return SecretRule(
        length=int(length) if length else None,
        charset="".join(
            dict.fromkeys("".join(CHARSETS.get(part, "") for part in found.get("charset", "").lower().split(",")))
        ),
        generate=found.get("generate", "true").lower() not in ("false", "0", "no"),
    )


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: The characters that the names in `charset=` stand for, several with commas between them; an unknown name means none.
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
                if len(found[key]) > VALUE_LIMIT:
                    raise BadRecipeError(f"{SCRIPT_FILE}: {key[:80]} grows to more than {VALUE_LIMIT} characters")
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
        version_keys: The key that the version in a secret's name is taken from, by the secret's key.
        warnings: Variables that are used and set nowhere, and the like.
    """

    compose: dict[str, Any]
    env: dict[str, str]
    files: tuple[str, ...]
    stack: str
    checkout: Path
    rules: Mapping[str, SecretRule]
    warnings: tuple[str, ...] = ()
    version_keys: Mapping[str, str] = field(default_factory=dict)

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
        return {key: self._docker_name(key, spec) for key, spec in self._section("volumes").items()}

    @property
    def external_networks(self) -> list[str]:
        """The names of the networks that must be there already."""
        return [self._docker_name(key, spec) for key, spec in self._section("networks").items() if spec.get("external")]

    def _section(self, name: str) -> dict[str, dict[str, Any]]:
        return self.compose.get(name) or {}

    def _docker_name(self, key: str, spec: Mapping[str, Any]) -> str:
        return str(spec.get("name") or f"{self.stack}_{key}")

    @functools.cached_property
    def secrets(self) -> list[SecretSpec]:
        """The secrets that must be there before the stack, with the rules that the sample's comments give."""
        found = []
        for key, spec in self._section("secrets").items():
            if not spec.get("external"):
                continue
            name = self._docker_name(key, spec)
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
        """Return the key of a secret's version: the one its name is written with, else the one that is called like it."""
        written = self.version_keys.get(key)
        if written is not None:
            return written
        for candidate in self.rules:
            middle = candidate.removeprefix("SECRET_").removesuffix("_VERSION").lower()
            if name == f"{self.stack}_{middle}_{self.env.get(candidate, '')}":
                return candidate
        return f"SECRET_{key.upper().replace('-', '_')}_VERSION"

    @functools.cached_property
    def configs(self) -> list[ConfigSpec]:
        """The configs."""
        return [
            ConfigSpec(
                key=key,
                docker_name=self._docker_name(key, spec),
                path=(self.checkout / spec["file"]) if spec.get("file") else None,
                template_driver=str(spec.get("template_driver") or ""),
            )
            for key, spec in self._section("configs").items()
            if not spec.get("external")
        ]

    @property
    def version_label(self) -> str:
        """The version that the recipe calls itself; empty where it does not."""
        return self._stack_label("version")

    @property
    def timeout_label(self) -> float:
        """Seconds that the recipe gives a deployment to converge.

        Raises:
            BadRecipeError: The label is no number of seconds.
        """
        text = self._stack_label("timeout")
        if not text:
            return DEFAULT_TIMEOUT
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise BadRecipeError(
                f"the label coop-cloud.{self.stack}.timeout is {text[:80]!r}",
                hint="give a number of seconds, see TIMEOUT",
            )
        return seconds

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
            for mount in spec.get("volumes") or []:
                if mount["type"] == "volume" and mount.get("source") == volume:
                    found.append((bool(mount.get("read_only")), service, mount["target"]))
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
        """Return what is backed up: the paths of the older labels where there are any, else all volumes but some."""
        old = self._old_paths(labels)
        if old:
            return old
        found: dict[str, tuple[str, ...]] = {}
        for key in self.volumes:
            given = [own[label] for own in labels.values() if (label := f"backupbot.backup.volumes.{key}") in own]
            if (given and not _truth(given[-1])) or not self.mounts_of(key):
                continue
            named = [own.get(f"backupbot.backup.volumes.{key}.path", "") for own in labels.values()]
            found[key] = tuple(_inside(path) for text in named for path in text.split(",") if path.strip())
        return found

    def _old_paths(self, labels: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
        """Read the older form: absolute paths in the container of the service that carries the label."""
        found: dict[str, set[str]] = {}
        for service, own in labels.items():
            for path in (part.strip() for part in own.get("backupbot.backup.path", "").split(",")):
                if not path or not _truth(own.get("backupbot.backup")):
                    continue
                volume, rest = self._in_volume(service, path)
                found.setdefault(volume, set()).add(rest)
        # Where a volume is named as a whole, its folders are in it.
        return {volume: () if "" in rests else tuple(sorted(rests)) for volume, rests in found.items()}

    def _in_volume(self, service: str, path: str) -> tuple[str, str]:
        """Return the volume that a path in a container lies in, and the path in that."""
        wanted = PurePosixPath(path)
        best: tuple[int, str, str] | None = None
        for mount in self.services[service].get("volumes") or []:
            target = PurePosixPath(mount["target"])
            if mount["type"] == "volume" and mount.get("source") and wanted.is_relative_to(target):
                rest = str(wanted.relative_to(target))
                best = max(best or (-1, "", ""), (len(target.parts), mount["source"], "" if rest == "." else rest))
        if best is None:
            raise BadRecipeError(
                f"service {service}: the label backupbot.backup.path names {path[:200]}, which lies in no named volume",
                hint="name a folder of a volume of this service",
            )
        return best[1], _inside(best[2])


def _inside(path: str) -> str:
    """Return a path in a volume, as it stands in a label.

    Raises:
        BadRecipeError: It leads out of the volume.
    """
    path = path.strip().strip("/")
    if ".." in path.split("/"):
        raise BadRecipeError(f"a backup label names {path[:200]!r}, which leads out of its volume")
    return path


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
        metadata: What its README says of it (`Category`, `Backups`, ...).
    """

    name: str
    path: Path
    sample: EnvSample
    exports: Mapping[str, str]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, name: str) -> Recipe:
        """Read a checkout.

        Raises:
            BadRecipeError: A file of it is missing or broken; file and line are named.
        """
        if not path.is_dir():
            raise BadRecipeError(f"there is no folder {path}")
        if not (path / COMPOSE_FILE).exists():
            raise BadRecipeError(f"{name} has no {COMPOSE_FILE}", hint=f"is {path} the folder of a recipe?")
        return cls(
            name=name,
            path=path,
            sample=EnvSample.parse(_text(path, SAMPLE_FILE)),
            exports=read_exports(_text(path, SCRIPT_FILE)),
            metadata=read_metadata(_text(path, README_FILE)),
        )

    def render(self, env: Mapping[str, str]) -> RenderedRecipe:
        """Merge the compose files that `COMPOSE_FILE` names, and fill the variables in.

        The process's own environment plays no part in it.

        Args:
            env: Keys that win over those of `.env.sample`; `DOMAIN` and `STACK_NAME` must be among them.

        Raises:
            BadRecipeError: A file is missing or broken, or a required variable is not set.
        """
        stack = env.get("STACK_NAME", "")
        if not stack:
            raise BadInputError("STACK_NAME is not given", hint="give the name of the stack, see naming.RunName")
        values = self.sample.expand(env)
        # abra reads the exports of abra.sh over the `.env`: a config's version is the recipe's business.
        known = {**values, **self.exports}
        files = tuple(dict.fromkeys(part for part in values.get("COMPOSE_FILE", "").split(":") if part)) or (
            COMPOSE_FILE,
        )
        merged: dict[str, Any] = {}
        missing: set[str] = set()
        version_keys: dict[str, str] = {}
        for name in files:
            file = self._load(name)
            version_keys |= _version_keys(file.model)
            missing |= plain_variables(file.model) - set(known)
            merged = merge(merged, prepare(file, known, self.path))
        _check_services(merged, files)
        return RenderedRecipe(
            compose=merged,
            env={key: value for key, value in values.items() if key != "STACK_NAME"},
            files=files,
            stack=stack,
            checkout=self.path,
            rules=self.sample.rules,
            version_keys=version_keys,
            warnings=tuple(f"the variable {name} is set nowhere and taken as empty" for name in sorted(missing)),
        )

    def _load(self, name: str) -> ComposeFile:
        """Read one of the compose files."""
        try:
            text = read_text(self.path, name)
        except BadRecipeError as error:
            raise BadRecipeError(
                f"COMPOSE_FILE: {error.message}" if name != COMPOSE_FILE else error.message,
                hint=f"see COMPOSE_FILE in {SAMPLE_FILE}",
            ) from error
        return load(text, name)


def _version_keys(model: Mapping[str, Any]) -> dict[str, str]:
    """Return the `SECRET_..._VERSION` that the name of each secret is written with, which need not be called like it."""
    secrets = model.get("secrets")
    found = {}
    for key, spec in secrets.items() if isinstance(secrets, dict) else ():
        written = re.findall(r"\$\{?(SECRET_\w+_VERSION)", str(spec))
        if written:
            found[str(key)] = written[-1]
    return found


def _text(path: Path, name: str) -> str:
    """Read a file that a recipe may do without."""
    return read_text(path, name) if (path / name).exists() or (path / name).is_symlink() else ""


#: What a service may refer to, by the section that defines it.
_REFERENCES = ("volumes", "networks", "secrets", "configs")


def _check_services(model: Mapping[str, Any], files: tuple[str, ...]) -> None:
    """Refuse a model with no services, or with one that has no image or refers to nothing.

    Raises:
        BadRecipeError: Naming the service and the key.
    """
    where = ", ".join(files)
    if not model.get("services"):
        raise BadRecipeError(f"{where}: there are no `services`")
    for name, service in model["services"].items():
        if not service.get("image"):
            raise BadRecipeError(f"{where}: services.{name} has no `image`")
        for section in _REFERENCES:
            for used in _used(service.get(section) or [], section):
                if used not in (model.get(section) or {}) and (section, used) != ("networks", "default"):
                    raise BadRecipeError(
                        f"{where}: services.{name}.{section} names {used[:80]!r}, which `{section}` does not define"
                    )


def _used(entries: Any, section: str) -> list[str]:
    if section == "networks":
        return list(entries)
    return [
        entry["source"]
        for entry in entries
        if entry.get("source") and (section != "volumes" or entry["type"] == "volume")
    ]


_METADATA = re.compile(r"<!--\s*metadata\s*-->(.*?)<!--\s*endmetadata\s*-->", re.DOTALL)
_ITEM = re.compile(r"^\s*[*-]\s+\**([\w /-]+?)\**\s*:\**\s*(.*?)\s*$", re.MULTILINE)


def read_metadata(text: str) -> dict[str, str]:
    """Return the list between `<!-- metadata -->` and `<!-- endmetadata -->` of a README, by its words."""
    block = _METADATA.search(text)
    return {key.strip(): value for key, value in _ITEM.findall(block.group(1))} if block else {}
