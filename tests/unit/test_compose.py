# ruff: noqa: SIM905 - a table of words reads better as words
"""The rules of compose files, proven against Docker's own loader (`docker stack config`, which needs no engine)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_coopcloud.compose import interpolate, load, merge, prepare
from pytest_coopcloud.errors import BadRecipeError

#: Generated cases a test; more of them for a search at leisure.
EXAMPLES = int(os.environ.get("COOPCLOUD_EXAMPLES", "15"))
ENV = {"A": "1", "E": "", "YES": "true", "NO": "off", "NAME": "db", "D": "$A", "HOME": "/nope"}


class Refused(Exception):
    """Docker's loader does not take it."""


def docker_has_the_loader() -> bool:
    if shutil.which("docker") is None:
        return False
    done = subprocess.run(["docker", "stack", "config", "--help"], capture_output=True, text=True, check=False)
    return "compose-file" in done.stdout


needs_loader = pytest.mark.skipif(
    not docker_has_the_loader() and os.environ.get("CI") != "true",
    reason="the `docker` command has no `stack config`: install version 23 or later",
)


def docker_loads(folder: Path, files: Sequence[str], env: Mapping[str, str]) -> Any:
    """Return what Docker's loader makes of files in a folder."""
    argv = ["docker", "stack", "config", *(word for file in files for word in ("-c", file))]
    # The shell is Docker's too: the variables of a recipe must not decide which `docker` runs.
    binary = shutil.which("docker") or "docker"
    done = subprocess.run([binary, *argv[1:]], cwd=folder, env=dict(env), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr.strip())
    return canonical(yaml.load(done.stdout, Loader=yaml.BaseLoader))


def we_load(folder: Path, files: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in files:
        merged = merge(merged, prepare(load((folder / name).read_text(), name), env, folder))
    return merged


def canonical(value: Any, key: str = "") -> Any:
    """Return a model whose lists that have no order are sorted."""
    if isinstance(value, dict):
        return {one: canonical(entry, one) for one, entry in value.items() if meant(one, entry)}
    if isinstance(value, list):
        entries = [canonical(entry) for entry in value]
        if key in ("dns", "cap_add"):
            return list(dict.fromkeys(entries))
        return sorted(entries, key=json.dumps) if key in ("ports", "volumes", "secrets", "configs") else entries
    return value


def meant(key: str, value: Any) -> bool:
    """Tell whether a key says something: `env_file` says it in `environment` already."""
    return value not in ({}, []) and key != "env_file" and not key.startswith("x-")


def escape(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: escape(entry) for key, entry in value.items()}
    return [escape(entry) for entry in value] if isinstance(value, list) else value


def compare(folder: Path, texts: Sequence[str], env: Mapping[str, str] = ENV) -> None:
    """Assert that what we make of files is, to Docker, what the files are."""
    names = [f"{number}.yml" for number in range(len(texts))]
    for name, text in zip(names, texts, strict=True):
        (folder / name).write_text(text)
    try:
        wanted = docker_loads(folder, names, env)
    except Refused as refused:
        try:
            ours = we_load(folder, names, env)
        except BadRecipeError:
            return
        # What we do not look at is refused when it is submitted.
        (folder / "ours.json").write_text(json.dumps(escape(ours)))
        try:
            docker_loads(folder, ["ours.json"], {})
        except Refused:
            return
        pytest.fail(f"taken by us, refused by Docker: {refused}")
    ours = we_load(folder, names, env)
    (folder / "ours.json").write_text(json.dumps(escape(ours)))
    assert docker_loads(folder, ["ours.json"], {}) == wanted


def app(body: str, rest: str = "") -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f'version: "3.8"\nservices:\n  app:\n    image: a\n{lines}\n{rest}\n'


CORPUS: dict[str, list[str]] = {
    "interpolation": [
        app(
            """environment:
  Q0: $A ${A} x${A}y $$A $$$A ${NAME}_$A
  Q1: "$A-b c"
  Q2: "${Z-b-c} ${Z:-b:-c} ${E-x} ${E:-y} ${A:-z}"
  Q3: "${Z:-} ${Z-} ${Z}"
  Q4: "$Z:-d e} f"
  Q5: "${A?must-be} ${A:?x}"
  Q6: "${Z?must-be}"
  Q9: "${A:?must-be} ${Z:?must-be} ${Z:?a:-b} ${Z?a?b-c}"
  Q7: "${A:-x${B}}"
  Q8: "${a} ${_} ${A1} $D"
"""
        )
    ],
    **{
        f"no template {text}": [app(f"environment: {{Q: '{text}'}}")]
        for text in ("a$", "${A", "${}", "$1", "${A:+b}", "${A+b}", "${-a}", "${Z?}", "${Z:?no}", "${E:?no}")
    },
    **{
        f"scalar {text}": [app(f"environment: {{Q: {text}}}")]
        for text in (
            "yes no on true False ~ null 0777 0o17 0x1F 0b11 08 +5 .5 1_0.5 1_000 12345678901234567890 1.0 1e3 1e21 1.5e25 "
            "123456789.5 0.00001 1.10 22:22 1:30:00 2020-01-01 2020-1-2 -0 -1.5 +.5 1. 3.8 e1 - .x 0x 1e 0.1e-7 =".split()
        )
    },
    "text with a tag": [app("environment: {Q: !!str 5, R: !!int '5'}")],
    "anchors": [
        "x-e: &e {A: '1', B: '2'}\n"
        + app("environment:\n  B: '3'\n  <<: *e\nlabels:\n  <<: [*e, {C: '4', A: '9'}]\nhealthcheck: &h {interval: 3s}")
    ],
    "environment of both forms": [
        app("environment: {A: x, B: '', C: null, N: 5, E: }"),
        app("environment: [A=, B=y, C, N=, NEW=1, HOME]"),
    ],
    "labels of both forms": [
        app("labels: [a=1, b=2, c]\ndeploy: {labels: {x: '1', y: '2', n: }}"),
        app("labels: {a: '', b: '3'}\ndeploy: {labels: ['x=', y=9, 'z=1=2']}"),
    ],
    "env_file": [app("env_file: e.env"), app("env_file: [f.env]\nenvironment: {Q: own}")],
    "command and entrypoint": [app("command: echo hi\nentrypoint: [a, b]"), app("command: [x]\nentrypoint: c")],
    "command is kept": [app("command: echo 'a b'"), app("command: []")],
    "ports": [
        app('ports: ["80", 81, "8080:80", "127.0.0.1:90:91/udp", "9000-9002:9000-9002", "7000-7002:7000", "[::1]:5:5"]'),
        app('ports: ["8080:80", {target: 80, published: 8080}, {target: 53, protocol: udp, mode: host}]'),
    ],
    **{
        f"no port {text}": [app(f"ports: [{text}]")]
        for text in ("'80:'", "a", "'1-2:1-5'", "'99999'", "'5-1'", "''", "'80/x'", "true", "1.5", "'1:2:3:4'")
    },
    "mounts": [
        app(
            'volumes: ["vol:/v", "/x:/y:ro", "./r:/z", "/anon", "vol:/w:nocopy,ro", "/a:/b:rw,rshared", "v:/data", "x"]',
            "volumes: {vol: , other: }",
        ),
        app('volumes: ["other:/v", {type: tmpfs, target: /w}]'),
    ],
    **{
        f"mount {text}": [app(f"volumes: ['{text}']", "volumes: {ab: , c: }")]
        for text in (
            "c:/etc:/q v:/v:ro c:/v ab:/v:rw,ro ab:/v:zz ab:/v: :/v ab::/v ab:/v:ro:rw ab c: a:b a:b:c /a: C:\\x:/y ~x:/y "
            "é:/v:/w .:/v ..:/v \\\\x:/v".split()
        )
    },
    "mounts in the long form": [
        app(
            "volumes: [{type: bind, source: ./a, target: /b, read_only: '$YES', bind: {propagation: shared}}, "
            "{type: volume, source: vol, target: /c, volume: {nocopy: $NO}}]",
            "volumes: {vol: }",
        )
    ],
    "a text is no boolean": [app('read_only: "true"')],
    "a filled in text may be one": [app('read_only: "$YES"\ntty: ${NO}')],
    "1 is no boolean": [app('read_only: "$A"')],
    "secrets and configs": [
        app("secrets: [s, {source: t, mode: 0440}]\nconfigs: [c]", "secrets: {s: {external: true}, t: {external: {name: u}}}")
        + "configs: {c: {file: ./c.conf, name: x_$A}}",
        app("secrets: [{source: s, target: q}, w]\nconfigs: [{source: c, target: /etc/c, mode: '${A}'}]")
        + "secrets: {w: {file: f}}\nconfigs: {c: {external: '$YES'}}",
    ],
    "networks": [
        app("networks: [n, default]", "networks: {n: {internal: true, driver: overlay}, o: {external: true}}"),
        app("networks: {n: {aliases: [x]}, o: }", "networks: {n: {attachable: '${YES}'}, o: {external: '$NO'}}"),
        app("networks: {n: {aliases: [y]}, default: {aliases: [z]}}"),
        app("networks: {n: {ipv4_address: 10.0.0.1}}"),
    ],
    "volumes of a file": [
        app("", "volumes: {v: {labels: {a: b}, driver: local, driver_opts: {o: bind, n: 5}}, w: , x: {name: n}}"),
        app("", "volumes: {v: {name: foo}, w: {labels: [q=1]}, x: , y: {external: true}}"),
    ],
    "deploy": [
        app(
            "deploy:\n  replicas: 2\n  mode: replicated\n  placement: {constraints: [a==b], preferences: [{spread: x}]}\n"
            "  update_config: {parallelism: 2, order: start-first, failure_action: rollback, max_failure_ratio: 0.5}\n"
            "  restart_policy: {condition: on-failure, max_attempts: 3, delay: 5s}\n"
            "  resources: {limits: {cpus: '0.5', memory: 50M}}"
        ),
        app(
            "deploy:\n  replicas: 0\n  placement: {constraints: [c==d]}\n  update_config: {parallelism: 0, order: stop-first}\n"
            "  restart_policy: {max_attempts: 0}\n  resources: {reservations: {memory: 20M}, limits: {memory: 100M}}\n"
            "  endpoint_mode: dnsrr"
        ),
    ],
    "replicas of a variable": [app("deploy: {replicas: '${A}', labels: {x: $A}}")],
    "replicas of a text": [app("deploy: {replicas: '${NAME}'}")],
    "health": [
        app("healthcheck: {test: curl -f http://a, interval: 30s, retries: 10, start_period: 1m}"),
        app("healthcheck: {test: [CMD, b], retries: 0}"),
    ],
    "health disabled": [app("healthcheck: {disable: $YES}"), app("healthcheck: {disable: false, interval: 5s}")],
    "lists": [
        app("dns: 1.1.1.1\ncap_add: [A]\ntmpfs: /x\nextra_hosts: {a: 1.2.3.4}\nexpose: [80]\ndepends_on: [b]\ncap_drop: [X]"),
        app("dns: [2.2.2.2, 1.1.1.1]\ncap_add: [A, B]\ntmpfs: [/y]\nextra_hosts: ['c:5.6.7.8']\nexpose: ['90']"),
    ],
    "values that are empty change nothing": [
        app("user: root\nhostname: h\nread_only: true\ninit: true\nstop_grace_period: 1m\nworking_dir: /a\ntty: true"),
        app("user: ''\nread_only: false\ninit: false\nhostname: i\nstop_grace_period: 5s\ntty: false"),
    ],
    "logging": [
        app("logging: {driver: json-file, options: {a: '1', b: 2}}"),
        app("logging: {options: {a: '3', c: '4'}}"),
        app("logging: {driver: local}"),
    ],
    "limits": [app("ulimits: {nproc: 5, nofile: {soft: 1, hard: 2}}"), app("ulimits: {nofile: 7}")],
    "sysctls": [app("sysctls: {a: 1, b: 2}"), app("sysctls: [a=5, c=6]")],
    "two services": [
        app("depends_on: [db]") + "  db: {image: p, environment: {X: $A}}\n",
        'version: "3.8"\nservices:\n  db: {image: "p:$A"}\n  more: {image: m}\n',
    ],
    "versions that differ": [app(""), app("").replace("3.8", "3.7")],
    "no version": [app("").replace('version: "3.8"\n', "")],
    "version of a number": [app("").replace('"3.8"', "3.8")],
    **{
        f"bad shape {text}": [app(text)]
        for text in (
            "ports: '80'", "volumes: {a: b}", "labels: 5", "labels: ", "environment: x", "deploy: []", "secrets: x",
            "secrets: [5]", "networks: n", "healthcheck: [a]", "unknown: 1", "deploy: {replicas: x}", "image: 5",
            "volumes: [5]", "volumes: [{target: /a}]", "volumes: [{type: bind, target: /a}]", "environment: [5]",
            "environment: {a: [1]}", "deploy: {labels: {a: {b: c}}}", "5: x", "true: x", "networks: {n: []}",
            "stop_grace_period: 5", "tty: 1", "dns: {a: b}", "logging: {options: [a=b]}",
        )
    },
    **{f"bad section {text}": [app("", text)] for text in ("volumes:", "volumes: []", "volumes: {v: 5}", "other: 1")},
}  # fmt: skip


@needs_loader
@pytest.mark.parametrize("case", CORPUS)
def test_files_mean_to_us_what_they_mean_to_docker(case: str, tmp_path: Path) -> None:
    (tmp_path / "e.env").write_text('# no\n\nQ=1\n  R="2" # x\nA\nUNSET\nEMPTY=\nHOME=\n')
    (tmp_path / "f.env").write_text("S=3\nR=4\n")
    compare(tmp_path, CORPUS[case])


# Generated files

_texts = st.sampled_from(["", "a", "x y", "$A", "${E:-d}", "${Z-}", "$$", "7", "${NAME}"])
_scalars = _texts | st.sampled_from([None, 5, 0, 1.5])
_keys = st.sampled_from(["A", "B", "C"])
_pairs = st.dictionaries(_keys, _scalars, max_size=3) | st.lists(
    st.builds(lambda key, value: f"{key}={value}", _keys, _texts) | _keys, max_size=3, unique_by=lambda one: one[0]
)
_lists = st.lists(st.sampled_from(["a", "b", "c", "$NAME"]), max_size=3, unique=True)
_flags = st.sampled_from([True, False, "$YES", "${NO}"])
_mounts = st.sampled_from(
    [
        *("vol:/v", "vol:/w:ro", "other:/v", "/x:/v", "/anon", "v:/x", "./y:/y:rw"),
        {"type": "tmpfs", "target": "/v"},
        {"type": "volume", "source": "vol", "target": "/v", "read_only": "$YES"},
    ]
)
_ports = st.sampled_from(
    ["80", 81, "8080:80", "8080:81/udp", "90-91:90-91", "7-8:7", {"target": 80, "published": "$A"}, {"target": 5}]
)
_references = st.sampled_from(["s", {"source": "s", "target": "x"}, {"source": "t", "mode": 256}, "t"])
_networks = st.lists(st.sampled_from(["n", "m"]), unique=True) | st.dictionaries(
    st.sampled_from(["n", "m"]), st.none() | st.fixed_dictionaries({}, optional={"aliases": _lists}), max_size=2
)
_counts = st.sampled_from([0, 1, 3, "$A"])
_deploy = st.fixed_dictionaries(
    {},
    optional={
        "replicas": _counts,
        "labels": _pairs,
        "placement": st.fixed_dictionaries({"constraints": _lists}),
        "update_config": st.fixed_dictionaries({}, optional={"parallelism": _counts, "order": st.just("stop-first")}),
        "restart_policy": st.fixed_dictionaries({}, optional={"max_attempts": _counts, "condition": st.just("any")}),
        "resources": st.fixed_dictionaries({}, optional={"limits": st.just({"memory": "5M"})}),
    },
)
_health = st.fixed_dictionaries(
    {}, optional={"test": st.sampled_from(["a b", ["CMD", "a"]]), "retries": _counts, "disable": _flags}
)
_logging = st.fixed_dictionaries(
    {},
    optional={"driver": st.sampled_from(["local", "json-file"]), "options": st.dictionaries(_keys, _texts, max_size=2)},
)
_services = st.fixed_dictionaries(
    {"image": st.sampled_from(["i", "j:$A"])},
    optional={
        "command": _texts | _lists,
        "environment": _pairs,
        "env_file": st.just("e.env"),
        "labels": _pairs,
        "volumes": st.lists(_mounts, max_size=3, unique_by=json.dumps),
        "ports": st.lists(_ports, max_size=3, unique_by=json.dumps),
        "secrets": st.lists(_references, max_size=2, unique_by=json.dumps),
        "configs": st.lists(_references, max_size=2, unique_by=json.dumps),
        "networks": _networks,
        "deploy": _deploy,
        "healthcheck": _health,
        "logging": _logging,
        "cap_add": _lists,
        "dns": _lists | st.just("a"),
        "user": _texts,
        "read_only": _flags,
        "init": st.booleans(),
        "ulimits": st.dictionaries(st.just("nofile"), st.sampled_from([1, {"soft": 1, "hard": 2}])),
    },
)
_things = st.none() | st.fixed_dictionaries(
    {}, optional={"name": _texts, "labels": _pairs, "external": st.booleans() | st.just({"name": "q"})}
)
_files = st.fixed_dictionaries(
    {"version": st.just("3.8"), "services": st.dictionaries(st.sampled_from(["app", "db"]), _services, min_size=1)},
    optional={
        section: st.dictionaries(st.sampled_from(["vol", "n", "s"]), _things, max_size=2)
        for section in ("volumes", "networks", "secrets", "configs")
    },
)


@needs_loader
@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(files=st.lists(_files, min_size=1, max_size=3))
def test_generated_files_mean_to_us_what_they_mean_to_docker(
    files: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("compose")
    (folder / "e.env").write_text("Q=1\nA\n")

    compare(folder, [json.dumps(file) for file in files])


@needs_loader
@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(texts=st.lists(st.text(st.sampled_from("$${}AEZ:-?x_ 1\n"), max_size=12), min_size=1, max_size=6))
def test_generated_templates_mean_to_us_what_they_mean_to_docker(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("compose")

    # One by one where they are refused together. Docker forgets a refusal when another variable follows: we do not.
    for group in (
        [texts] if all(map(_fills, texts)) else [[text] for text in texts if _fills(text) or text.count("$") < 2]
    ):
        model = {"version": "3.8", "services": {"app": {"image": "a", "command": ["x", *group]}}}
        compare(folder, [json.dumps(model)])


def _fills(text: str) -> bool:
    try:
        interpolate(text, ENV)
    except BadRecipeError:
        return False
    return True


# Files that are refused

BROKEN: dict[str, tuple[str, str]] = {
    "two documents": (f"{app('')}---\n{app('')}", r"^0\.yml:7: "),
    "an object": ("x-a: !!python/name:os.system x\n", r"^0\.yml:1: x-a: the tag"),
    "a time": (
        app("environment:\n  A: 2020-01-01 10:00:00"),
        r"^0\.yml:6: services\.app\.environment\.A: .* is a time",
    ),
    "a key of a number": (app("labels: {5: a}"), r"^0\.yml:5: a key of services\.app\.labels is no text"),
    "a list merged in": (app("labels: {<<: [a]}"), r"^0\.yml:5: `<<` takes mappings only"),
    "a service of nothing": ("services:\n  app:\n", r"^0\.yml:2: services\.app must be a mapping"),
    "an unknown section": (app("", "service: {}"), r"^0\.yml:6: service is no key"),
    "a boolean for a text": (
        app("labels:\n  a: true"),
        r"^0\.yml:6: services\.app\.labels\.a must be a text or a number",
    ),
    "a variable that must be set": (
        app("environment:\n  A: ${TOKEN:?give one}"),
        r"^0\.yml:6: services\.app\.environment\.A: the variable TOKEN must be set: give one",
    ),
    "a variable that is none": (
        app("command: [a, '${']"),
        r"^0\.yml:5: services\.app\.command\.1: '\$\{' is no variable",
    ),
    "a variable that is no number": (
        app("deploy:\n  replicas: ${NAME}"),
        r"^0\.yml:6: services\.app\.deploy\.replicas: 'db' is not an integer",
    ),
    "a port of words": (app("ports:\n  - '80'\n  - http"), r"^0\.yml:7: services\.app\.ports\.1 'http' is no port"),
    "a range of all ports": (app("ports: ['1-65535:1-65535']"), "no range of ports"),
    "an env_file elsewhere": (
        app("env_file: /etc/passwd"),
        r"^0\.yml:5: services\.app\.env_file '/etc/passwd' leads out",
    ),
    "an env_file above": (app("env_file: [../../x]"), r"^0\.yml:5: services\.app\.env_file '\.\./\.\./x'"),
    "an env_file by a link": (app("env_file: link"), r"^0\.yml:5: services\.app\.env_file 'link' leads out"),
    "a home that is not known": (app("volumes: ['~/x:/x']"), r"^0\.yml:5: .* no HOME is known here"),
    "aliases that multiply": (
        "x-a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"x-{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
        + app(""),
        r"^0\.yml: .* grows to more than 20000 values",
    ),
    "merges that multiply": (
        "x-a: &a {k: 1}\n"
        + "".join(
            f"x-{b}: &{b} {{{', '.join(f'{b}{number}: {{<<: *{a}}}' for number in range(3))}}}\n"
            for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
        )
        + app(""),
        r"^0\.yml: .* grows to more than 20000 values",
    ),
    "an alias of itself": ("x-a: &a\n  b: *a\n" + app(""), r"^0\.yml: .* grows to more than 50 levels"),
    "deep brackets": ("x-a: " + "[" * 500 + "]" * 500, r"^0\.yml: .* more than 50 levels"),
    "very deep brackets": ("[" * 200_000, r"^0\.yml"),
    "many values": ("x-a: [" + "1," * 30_000 + "]\n" + app(""), r"^0\.yml: .* 20000 values"),
    "a variable that multiplies": (
        app(f"command: ['{'$BIG ' * 1000}']"),
        r"^0\.yml:5: services\.app\.command\.0 grows to more than",
    ),
    "variables that multiply": (
        app(f"command: [{'$BIG, ' * 1000}]"),
        r"^0\.yml:5: services\.app\.command\.\d+ makes the file grow",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_gives_one_clear_error_in_time(case: str, tmp_path: Path) -> None:
    text, message = BROKEN[case]
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "0.yml").write_text(text)
    env = {"NAME": "db", "BIG": "x" * 60_000}

    began = time.process_time()
    with pytest.raises(BadRecipeError, match=message) as caught:
        we_load(tmp_path, ["0.yml"], env)

    assert len(caught.value.message) < 500
    assert time.process_time() - began < 2


def test_files_for_different_versions_are_not_merged() -> None:
    with pytest.raises(BadRecipeError, match=r"for version 3\.8 and for version 3\.7"):
        merge({"version": "3.8"}, {"version": "3.7"})


_anything = st.recursive(
    st.sampled_from(["", "a", "80:80", "$A", "${B?}", "vol:/x", 5, 1.5, True, None, "a=b", "5s", "[", "~/x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "source", "target", "type", "labels", "name", "external", "test", "<<"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
_KEYS = (
    "image command environment env_file ports volumes networks secrets configs deploy healthcheck labels logging dns "
    "extra_hosts ulimits sysctls cap_add stop_grace_period init"
)


@settings(max_examples=200, deadline=None, database=None)
@given(
    services=st.lists(st.dictionaries(st.sampled_from(_KEYS.split()), _anything, max_size=4), min_size=1, max_size=2),
    sections=st.dictionaries(st.sampled_from(["volumes", "networks", "secrets", "configs"]), _anything, max_size=2),
)
def test_whatever_stands_in_files_they_are_read_or_refused(
    services: list[dict[str, Any]], sections: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("compose")
    for number, service in enumerate(services):
        (folder / f"{number}.yml").write_text(json.dumps({"services": {"app": service}, **sections}))

    try:
        merged = we_load(folder, [f"{number}.yml" for number in range(len(services))], ENV)
    except BadRecipeError:
        return

    assert "app" in merged["services"]
