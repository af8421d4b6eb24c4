from __future__ import annotations

from pathlib import Path

import pytest

from pytest_coopcloud.errors import PolicyError
from pytest_coopcloud.naming import RunName
from pytest_coopcloud.policy import Allow, Violation, check, enforce
from pytest_coopcloud.recipes import Recipe, RenderedRecipe

NAME = RunName("hell-0a1b2c", "ci.localhost")
DOMAIN, STACK = NAME.domain, NAME.stack


def render(folder: Path, compose: str, **env: str) -> RenderedRecipe:
    (folder / "compose.yml").write_text(compose)
    given = {"DOMAIN": DOMAIN, "STACK_NAME": STACK, **env}
    return Recipe.read(folder, "hello").render(given)


def app(service: str, rest: str = "") -> str:
    lines = "\n".join(f"    {line}" for line in service.splitlines())
    return f'version: "3.8"\nservices:\n  app:\n    image: a:1\n{lines}\n{rest}\n'


def router(rule: str, kind: str = "http") -> str:
    return app(f"deploy:\n  labels:\n    - 'traefik.{kind}.routers.{STACK}.rule={rule}'")


def look(
    folder: Path, compose: str, allow: Allow | None = None, extra: tuple[str, ...] = (), **env: str
) -> list[Violation]:
    return check(render(folder, compose, **env), name=NAME, checkout=folder, allow=allow, extra_domains=extra)


#: What is refused, with what the one violation must name.
HOSTILE: dict[str, tuple[str, str]] = {
    "root of the host": (app("volumes: ['/:/host']"), "volumes"),
    "docker socket": (app("volumes: ['/var/run/docker.sock:/s:ro']"), "docker.sock"),
    "docker socket, long": (app("volumes: [{type: bind, source: /var/run/docker.sock, target: /s}]"), "docker.sock"),
    "folder of the checkout": (app("volumes: ['.:/x']"), "volumes"),
    "folder above": (app("volumes: ['../x:/x:ro']"), "volumes"),
    "home": (app("volumes: ['~/x:/x']").replace("~", "${HOME_SIGN}"), "volumes"),
    "time zone, to write": (app("volumes: ['/etc/localtime:/x']"), "to write"),
    "time zone, by another way": (app("volumes: ['/etc/../etc/localtime:/x:ro']"), "volumes"),
    "time zone, read only in vain": (
        app("volumes: [{type: bind, source: /etc/localtime, target: /x, read_only: '${OFF}'}]"),
        "to write",
    ),
    "time zone, shared": (app("volumes: ['/etc/localtime:/x:ro,rshared']"), "propagates"),
    "volume that is a drive": (app("volumes: ['v:/etc:/x']", "volumes: {v: }"), "volumes"),
    "named pipe": (app("volumes: [{type: npipe, source: x, target: /x}]"), "npipe"),
    "cluster volume": (app("volumes: [{type: cluster, source: x, target: /x}]"), "cluster"),
    "mount of an image": (app("volumes: [{type: image, source: x, target: /x}]"), "image"),
    "subpath": (app("volumes: [{type: volume, source: v, target: /x, volume: {subpath: ..}}]", "volumes: {v: }"), "subpath"),
    "volume that is a bind": (app("", "volumes: {v: {driver_opts: {o: bind, type: none, device: /etc}}}"), "volumes.v"),
    "volume over the network": (app("", "volumes: {v: {driver: 'vieux/sshfs:latest'}}"), "volumes.v"),
    "volume of another stack": (app("", "volumes: {v: {external: true, name: other_data}}"), "volumes.v"),
    "volume of another stack, old form": (app("", "volumes: {v: {external: {name: other_data}}}"), "volumes.v"),
    "volume by its key": (app("", "volumes: {other_data: {external: true}}"), "volumes.other_data"),
    "volume by its name": (app("", "volumes: {v: {name: other_data}}"), "volumes.v"),
    **{
        key: (app(f"{key}: {value}"), f"services.app.{key}")
        for key, value in {
            "privileged": "true", "devices": "['/dev/sda:/dev/sda']", "network_mode": "host", "pid": "host",
            "ipc": "host", "security_opt": "['seccomp:unconfined']", "userns_mode": "host", "sysctls": "{net.x: 1}",
            "cgroup_parent": "/", "device_cgroup_rules": "['c 1:3 mr']", "runtime": "nvidia", "uts": "host",
            "credential_spec": "{file: x}", "external_links": "['other_db:db']", "volumes_from": "[x]", "build": ".",
            "isolation": "hyperv", "mac_address": "aa", "extends": "{service: x}", "never_heard_of": "1",
        }.items()
    },
    "privileged by a variable": (app("privileged: ${ON}"), "privileged"),
    "capability": (app("cap_add: [SYS_ADMIN]"), "SYS_ADMIN"),
    "network of the host": (app("networks: [n]", "networks: {n: {external: true, name: host}}"), "networks.n"),
    "network of another stack": (app("", "networks: {other_internal: {external: true}}"), "other_internal"),
    "network of another stack, old form": (app("", "networks: {n: {external: {name: ingress}}}"), "ingress"),
    "default network is the host's": (app("", "networks: {default: {external: true, name: host}}"), "host"),
    "network by its name": (app("", "networks: {n: {name: proxy}}"), "networks.n"),
    "network that is a bridge": (app("", "networks: {n: {driver: macvlan}}"), "macvlan"),
    "name of another on the shared network": (
        app("networks: {proxy: {aliases: [bridge]}}", "networks: {proxy: {external: true}}"),
        "aliases",
    ),
    "port": (app("ports: ['443:443']"), "ports"),
    "port, long": (app("ports: [{target: 22, published: 22, mode: host}]"), "22:22"),
    "port, any": (app("ports: ['80']"), "any:80"),
    "secret of another stack": (app("", "secrets: {s: {external: true, name: bridge_token_v1}}"), "bridge_token_v1"),
    "secret by its key": (app("", "secrets: {bridge_token: {external: true}}"), "bridge_token"),
    "config of another stack": (app("", "configs: {c: {external: true, name: traefik_yml_v1}}"), "traefik_yml_v1"),
    "name too long": (app("", "secrets: {s: {external: true, name: '${STACK_NAME}_%s'}}" % ("x" * 60)), "63"),
    "service's name too long": (app("").replace("app:", "x" * 50 + ":"), "63"),
    "config of the host": (app("", "configs: {c: {file: /etc/shadow}}"), "leads out"),
    "config above": (app("", "configs: {c: {file: ../../../../../../etc/shadow}}"), "leads out"),
    "config by a link": (app("", "configs: {c: {file: link}}"), "leads out"),
    "secret by a linked folder": (app("", "secrets: {s: {file: folder/shadow}}"), "leads out"),
    "config that is a folder": (app("", "configs: {c: {file: .}}"), "is no file"),
    "config that is not there": (app("", "configs: {c: {file: nothing}}"), "is not there"),
    "secret of the environment": (app("", "secrets: {s: {environment: TOKEN}}"), "environment"),
    "secret of a driver": (app("", "secrets: {s: {driver: vault}}"), "driver"),
    "replicas": (app("deploy: {replicas: 9999}"), "replicas"),
    "replicas by a variable": (app("deploy: {replicas: '${MANY}'}"), "replicas"),
    "job": (app("deploy: {mode: replicated-job}"), "mode"),
    "devices of the host": (
        app("deploy: {resources: {reservations: {generic_resources: [{discrete_resource_spec: {kind: GPU, value: 1}}]}}}"),
        "generic_resources",
    ),
    "grace of days": (app("stop_grace_period: 99h"), "stop_grace_period"),
    "grace that is no duration": (app("stop_grace_period: soon"), "stop_grace_period"),
    "grace that is long in the middle": (app("stop_grace_period: 1s9h1s"), "stop_grace_period"),
    "log to elsewhere": (app("logging: {driver: syslog, options: {syslog-address: 'tcp://1.2.3.4:5'}}"), "logging"),
    "label of the engine": (app("deploy: {labels: {com.docker.stack.namespace: other}}"), "com.docker"),
    "label of the engine on containers": (app("labels: {com.docker.stack.namespace: other}"), "com.docker"),
    "label of ours": (app("deploy: {labels: {coopcloud.pytest.run: other}}"), "coopcloud.pytest"),
    "label of another stack": (app("deploy: {labels: {coop-cloud.other.version: 1.0.0+1}}"), "another stack"),
    "label of the backup bot": (app("deploy: {labels: {coop-cloud.backupbot.enabled: 'true'}}"), "another stack"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_compose_is_refused_by_name(case: str, tmp_path: Path) -> None:
    compose, named = HOSTILE[case]
    (tmp_path / "link").symlink_to("/etc/shadow")
    (tmp_path / "folder").symlink_to("/etc")

    found = look(tmp_path, compose, OFF="no", ON="yes", MANY="9999", HOME_SIGN="~", HOME="/root")

    assert len(found) == 1
    assert named in str(found[0])


RULES_REFUSED = [
    "Host(`ci.localhost`)",
    "Host(`dashboard.ci.localhost`)",
    f"Host(`{DOMAIN}`) || Host(`ci.localhost`)",
    f"Host(`{DOMAIN}`, `ci.localhost`)",
    f'Host("{DOMAIN}", "ci.localhost")',
    f"host(`{DOMAIN}`) && HOST(`ci.localhost`)",
    "PathPrefix(`/`)",
    "Path(`/webhook`) && Method(`POST`)",
    f"Host(`{DOMAIN}`) || PathPrefix(`/`)",
    f"Host(`{DOMAIN}`) && Path(`/x`) || PathPrefix(`/`)",
    f"PathPrefix(`/`) || Host(`{DOMAIN}`) && Path(`/x`)",
    f"(Host(`{DOMAIN}`) || Path(`/a`)) && (Path(`/b`) || Path(`/c`))",
    f"!Host(`{DOMAIN}`)",
    f"!(Host(`{DOMAIN}`))",
    f"! ( Path(`/`) && Host(`{DOMAIN}`) )",
    f"!Host(`{DOMAIN}`) && PathPrefix(`/`)",
    "HostRegexp(`.*`)",
    "HostRegexp(`{x:.*}`)",
    f"Host(`{DOMAIN}`) || HostRegexp(`.*`)",
    "Host(`*`)",
    "Host()",
    "Host",
    "",
    "Host(`a",
    "Host:ci.localhost",
    f"Host('{DOMAIN}')",
    f"Host(`{DOMAIN}`) Path(`/`)",
    f"Host(`{DOMAIN}`) ||",
    f"Host(`{DOMAIN}`.)",
    f"Host(`{DOMAIN}.evil.example`)",
    f"Host(`x.{DOMAIN}`)",
    "(" * 50 + f"Host(`{DOMAIN}`)" + ")" * 50,
    "!" * 3000 + f"Host(`{DOMAIN}`)",
    f"Host(`{DOMAIN}`)" + " " * 5000,
    "Headers(`Host`, `ci.localhost`)",
    "ClientIP(`0.0.0.0/0`)",
]


@pytest.mark.parametrize("rule", RULES_REFUSED)
def test_router_that_takes_what_is_not_this_runs_is_refused(rule: str, tmp_path: Path) -> None:
    rule = rule.replace("'", "''")

    assert look(tmp_path, router(rule))


@pytest.mark.parametrize(
    "rule",
    [
        f"Host(`{DOMAIN}`)",
        f"Host(`{DOMAIN}`, `www.example.org`)",
        f'  Host( "{DOMAIN}" )  ',
        f"Host(`{DOMAIN.upper()}`)",
        f"Host(`{DOMAIN}`) && PathPrefix(`/api`, `/v1`)",
        f"Host(`{DOMAIN}`) && (Path(`/a`) || Path(`/b`)) && !Path(`/c`)",
        f"(Host(`{DOMAIN}`) || Host(`www.example.org`)) && Method(`GET`)",
        f"PathPrefix(`/a||b`) && Host(`{DOMAIN}`)",
    ],
)
def test_router_of_this_run_is_taken(rule: str, tmp_path: Path) -> None:
    assert look(tmp_path, router(rule), extra=("www.example.org",)) == []


@pytest.mark.parametrize(
    ("label", "named"),
    [
        ("traefik.tcp.routers.hell-0a1b2c_ci_localhost.rule=HostSNI(`*`)", "pattern"),
        ("traefik.tcp.routers.hell-0a1b2c_ci_localhost.rule=HostSNI(`ci.localhost`)", "ci.localhost"),
        ("traefik.tcp.routers.hell-0a1b2c_ci_localhost.rule=HostSNIRegexp(`.*`)", "pattern"),
        ("TRAEFIK.HTTP.Routers.Hell-0a1b2c_ci_localhost.Rule=Host(`ci.localhost`)", "ci.localhost"),
        ("traefik.udp.routers.hell-0a1b2c_ci_localhost.entrypoints=dns", "UDP"),
        ("traefik.http.routers.hell-0a1b2c_ci_localhost.service=api@internal", "internal"),
        ("traefik.http.routers.hell-0a1b2c_ci_localhost.service=bridge@file", "bridge@file"),
        ("traefik.http.services.hell-0a1b2c_ci_localhost.loadbalancer.server.url=http://169.254.169.254", "169.254"),
        ("traefik.tcp.services.hell-0a1b2c_ci_localhost.loadbalancer.servers[0].address=10.0.0.1:22", "10.0.0.1"),
        ("traefik.http.routers.hell-0a1b2c_ci_localhost.service=other_stack", "other_stack"),
        ("traefik.http.routers.hell-0a1b2c_ci_localhost.service=other_stack@swarm", "other_stack"),
        ("traefik.http.middlewares.m.errors.service=api@internal", "api@internal"),
        ("traefik.http.routers.other_stack.entrypoints=web-secure", "other_stack"),
        ("traefik.http.services.other_stack.loadbalancer.server.port=80", "other_stack"),
        ("Traefik.Tcp.Services.Other_stack.loadbalancer.server.port=22", "other_stack"),
        ("traefik.tls.stores.default.defaultcertificate.certfile=x", "proxy itself"),
    ],
)
@pytest.mark.parametrize("of", ["deploy: {{labels: ['{}']}}", "labels: ['{}']"])
def test_label_that_leads_elsewhere_is_refused(label: str, named: str, of: str, tmp_path: Path) -> None:
    found = look(tmp_path, app(of.format(label)))

    assert [named in str(violation) for violation in found] == [True]


#: Shapes of real recipes, which must pass.
HARMLESS = {
    "web app": app(
        """environment:
  - DOMAIN
  - DB_PASSWORD_FILE=/run/secrets/db_password
networks: [proxy, internal]
volumes:
  - "data:/data"
  - "/etc/timezone:/etc/timezone:ro"
  - "/etc/localtime:/etc/localtime:ro"
configs:
  - {source: entrypoint, target: /docker-entrypoint.sh, mode: 0555}
secrets: [db_password]
entrypoint: /docker-entrypoint.sh
tmpfs: /tmp
stop_grace_period: 1m
cap_drop: [ALL]
healthcheck: {test: [CMD, curl, -f, 'http://localhost'], interval: 30s, timeout: 10s, retries: 10, start_period: 1m}
deploy:
  restart_policy: {condition: on-failure}
  update_config: {failure_action: rollback, order: start-first}
  placement: {constraints: ['node.role == manager']}
  labels:
    - "traefik.enable=true"
    - "traefik.http.services.${STACK_NAME}.loadbalancer.server.port=80"
    - "traefik.http.routers.${STACK_NAME}.rule=Host(`${DOMAIN}`${EXTRA_DOMAINS})"
    - "traefik.http.routers.${STACK_NAME}.entrypoints=web-secure"
    - "traefik.http.routers.${STACK_NAME}.tls.certresolver=${LETS_ENCRYPT_ENV}"
    - "traefik.http.routers.${STACK_NAME}.middlewares=error-pages-middleware"
    - "traefik.http.routers.${STACK_NAME}.service=${STACK_NAME}@swarm"
    - "traefik.http.routers.${STACK_NAME}-redirect.service=noop@internal"
    - "traefik.http.routers.${STACK_NAME}_api.service=${STACK_NAME}_api"
    - "traefik.http.services.${STACK_NAME}_api.loadbalancer.server.port=8080"
    - "coop-cloud.${STACK_NAME}.version=1.0.0+1.0.0"
    - "coop-cloud.${STACK_NAME}.timeout=${TIMEOUT:-300}"
    - "backupbot.backup=${ENABLE_BACKUPS:-true}"
    - "backupbot.backup.path=/data\"""",
        """networks:
  proxy: {external: true}
  internal: {internal: true}
volumes: {data: }
secrets: {db_password: {external: true, name: '${STACK_NAME}_db_password_${SECRET_DB_PASSWORD_VERSION}'}}
configs: {entrypoint: {name: '${STACK_NAME}_entrypoint_v1', file: entrypoint.sh, template_driver: golang}}""",
    ),
    "compose-only keys": app("restart: unless-stopped\ndepends_on: [app]\ncontainer_name: x\nexpose: ['80']\nlinks: [app]"),
    "restart policy none": app("deploy: {restart_policy: {condition: none}}"),
    "ten routers": app(
        "deploy:\n  labels:\n" + "\n".join(
            f"    - 'traefik.http.routers.{STACK}_r{at}.rule=Host(`{DOMAIN}`) && PathPrefix(`/{at}`)'" for at in range(10)
        )
    ),
    "anonymous volume, empty network, extension": app("volumes: [/data]\nx-note: {privileged: true}\nprivileged: false"),
    "own names": app(
        "networks: {n: {aliases: [db]}, proxy: {aliases: ['${DOMAIN}', '${STACK_NAME}_web']}}",
        "networks: {n: {name: '${STACK_NAME}_n', driver: overlay, attachable: true}, proxy: {external: true}}\n"
        "volumes: {v: {name: '${STACK_NAME}_v', driver: local, labels: [a=b]}}",
    ),
    "global service": app("deploy: {mode: global}\nlogging: {driver: json-file, options: {max-size: 10m}}"),
}  # fmt: skip


@pytest.mark.parametrize("case", HARMLESS)
def test_shape_of_a_real_recipe_passes(case: str, tmp_path: Path) -> None:
    (tmp_path / "entrypoint.sh").write_text("#!/bin/sh\n")
    (tmp_path / "inner").symlink_to("entrypoint.sh")
    env = {"EXTRA_DOMAINS": ", `www.example.org`", "SECRET_DB_PASSWORD_VERSION": "v1"}

    assert look(tmp_path, HARMLESS[case], extra=("www.example.org",), **env) == []


def test_link_within_the_recipe_passes(tmp_path: Path) -> None:
    (tmp_path / "real.conf").write_text("")
    (tmp_path / "link.conf").symlink_to("real.conf")

    assert look(tmp_path, app("", "configs: {c: {file: link.conf}}")) == []


@pytest.mark.parametrize(
    ("compose", "allow"),
    [
        (app("volumes: ['/etc/hostname:/x:ro']"), Allow(binds=("/etc/hostname",))),
        (app("volumes: ['/var/run/docker.sock:/s']"), Allow(binds=("/var/run/docker.sock:rw",))),
        (app("volumes: ['/var/run/docker.sock:/s:ro']"), Allow(binds=("/var/run/docker.sock:rw",))),
        (app("ports: ['2222:22', '80']"), Allow(ports=(2222, 0))),
        (app("cap_add: [NET_ADMIN]"), Allow(cap_add=("NET_ADMIN",))),
        (app("", "networks: {n: {external: true, name: mail}}"), Allow(networks=("mail",))),
        (app("sysctls: {net.x: 1}"), Allow(keys=("sysctls",))),
        (app("logging: {driver: syslog}"), Allow(keys=("logging",))),
        (router("HostRegexp(`.*`)"), Allow(host_regexp=True)),
        (router("HostSNI(`*`)", "tcp"), Allow(host_regexp=True)),
        (app("labels: ['traefik.udp.routers.hell-0a1b2c_ci_localhost.entrypoints=dns']"), Allow(host_regexp=True)),
    ],
)
def test_what_an_enrolment_allows_passes_and_its_hint_says_how(compose: str, allow: Allow, tmp_path: Path) -> None:
    rendered = render(tmp_path, compose)

    assert check(rendered, name=NAME, checkout=tmp_path, allow=allow) == []
    with pytest.raises(PolicyError) as caught:
        enforce(rendered, name=NAME, checkout=tmp_path)
    assert "RecipeMeta(allow=Allow(" in caught.value.hint


@pytest.mark.parametrize(
    ("compose", "allow"),
    [
        (app("volumes: ['/etc/hostname:/x']"), Allow(binds=("/etc/hostname",))),
        (app("ports: ['2222:22']"), Allow(ports=(22,))),
        (app("cap_add: [NET_ADMIN, SYS_ADMIN]"), Allow(cap_add=("NET_ADMIN",))),
        (router("HostRegexp(`.*`) || Path(`/`)"), Allow(host_regexp=True)),
        (router("HostRegexp(`.*`) || Host(`ci.localhost`)"), Allow(host_regexp=True)),
    ],
)
def test_what_is_allowed_opens_nothing_else(compose: str, allow: Allow, tmp_path: Path) -> None:
    assert look(tmp_path, compose, allow)


def test_every_violation_is_listed_at_once(tmp_path: Path) -> None:
    rendered = render(tmp_path, app("privileged: true\nports: ['443:443']\nvolumes: ['/:/host']"))

    with pytest.raises(PolicyError) as caught:
        enforce(rendered, name=NAME, checkout=tmp_path)

    assert all(key in caught.value.message for key in ("privileged", "443", "/:/host"))
    assert "binds=['/:rw'], keys=['privileged'], ports=[443]" in caught.value.hint


def test_what_nothing_allows_is_to_be_changed(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        enforce(render(tmp_path, app("deploy: {replicas: 99}")), name=NAME, checkout=tmp_path)

    assert caught.value.hint == "change the recipe"


def test_many_services_are_refused(tmp_path: Path) -> None:
    services = "\n".join(f"  s{number}: {{image: a}}" for number in range(41))

    assert [violation.where for violation in look(tmp_path, f"services:\n{services}\n")] == ["services"]


def test_later_file_cannot_hide_what_an_earlier_one_asks(tmp_path: Path) -> None:
    (tmp_path / "more.yml").write_text('version: "3.8"\nservices: {app: {privileged: false, cap_add: []}}\n')
    (tmp_path / ".env.sample").write_text("COMPOSE_FILE=compose.yml:more.yml\n")

    found = look(tmp_path, app("privileged: true\ncap_add: [SYS_ADMIN]"))

    assert {violation.where for violation in found} == {"services.app.privileged", "services.app.cap_add"}


def test_allow_refuses_keys_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="bind"):
        Allow.model_validate({"bind": ["/x"]})


def test_names_that_swarm_would_fill_in_are_refused(tmp_path: Path) -> None:
    for kind in ("volumes", "secrets", "configs"):
        found = look(tmp_path, app("", f"{kind}: {{v: {{name: '{STACK}_{{{{.Node.Hostname}}}}'}}}}"))

        assert [violation.why.partition(":")[0] for violation in found] == ["is no plain name"]


def test_quote_behind_a_backslash_does_not_hide_an_alternative(tmp_path: Path) -> None:
    # Go reads `"\\", "` as one text, and then sees an alternative that takes every host.
    rule = f'Host("{DOMAIN}") && Path("\\", ") || PathPrefix(`/`) || Path(" , "x")'

    found = look(tmp_path, router(rule))

    assert ["cannot be read" in violation.why for violation in found] == [True]


def test_names_for_the_proxy_may_be_allowed(tmp_path: Path) -> None:
    compose = app("deploy: {labels: ['traefik.http.services.Synapse-fed.loadbalancer.server.port=80']}")

    assert [violation.allow for violation in look(tmp_path, compose)] == ["proxy_names=['synapse-fed']"]
    assert look(tmp_path, compose, Allow(proxy_names=("synapse",))) == []
