"""Make run folders as a real run leaves them, by the real model: results, report, JUnit, logs, a screenshot."""

import enum
import hashlib
import os
import struct
import zlib
from pathlib import Path

from pytest_coopcloud.report import render_report
from pytest_coopcloud.results import (
    Artifact,
    Cause,
    CauseClass,
    Outcome,
    RunResult,
    ServiceImage,
    Stage,
    StageResult,
    TestOutcome,
    Wait,
    write_result,
)


class Kind(enum.Enum):
    PASSED = "passed"
    FAILED = "failed in upgrade"
    LEAKED = "left a volume"
    DISK_FULL = "unverified: the disk was full"
    FIRST_VERSION = "passed without an upgrade"
    KILLED = "killed in deploy"
    RUNNING = "in the middle of backup"


RECIPES = [
    "hedgedoc",
    "cryptpad",
    "nextcloud",
    "matrix-synapse",
    "wordpress",
    "gitea",
    "vaultwarden",
    "keycloak",
    "authentik",
    "peertube",
    "mastodon",
    "mobilizon",
    "discourse",
    "etherpad",
    "jitsi",
    "plausible",
    "matomo",
    "ghost",
    "writefreely",
    "pixelfed",
    "lasuite-docs",
    "mumble",
    "n8n",
    "outline",
    "bookstack",
    "freshrss",
    "wekan",
    "kimai",
    "mattermost",
    "rallly",
    "snappymail",
    "uptime-kuma",
    "drone",
    "traefik",
    "backup-bot-two",
    "collabora",
    "onlyoffice",
    "funkwhale",
    "mailu",
    "loomio",
]

USUAL = {
    Stage.INSTALL: 21.4,
    Stage.UPGRADE: 43.0,
    Stage.BACKUP: 18.2,
    Stage.RESTORE: 26.7,
    Stage.RECIPE: 12.3,
    Stage.TEARDOWN: 1.4,
}
SERVICES = {"app": "coop/{recipe}:{version}", "db": "coop/postgres:15.4", "redis": "coop/redis:7.2"}


def make_run(
    runs: Path,
    recipe: str,
    *,
    kind: Kind = Kind.PASSED,
    started_at: float = 1_764_000_000.0,
    number: int = 1,
    counts: bool = True,
    pr: str = "",
    files: bool = True,
    token: str = "",
    build: int | None = None,
) -> RunResult:
    """Write one run's folder below `runs` and return what it says; `files=False`: results.json alone."""
    result = make_result(
        recipe, kind=kind, started_at=started_at, number=number, counts=counts, pr=pr, token=token, build=build
    )
    folder = runs / result.run_id
    folder.mkdir(parents=True, exist_ok=True)
    if files:
        add_artifacts(result, folder)
    write_result(result, folder)
    if files and result.finished_at is not None:
        (folder / "report.html").write_text(render_report(result, folder), encoding="utf-8")
        (folder / "junit.xml").write_text(f'<testsuites name="{recipe}"/>\n', encoding="utf-8")
    return result


def make_result(
    recipe: str,
    *,
    kind: Kind = Kind.PASSED,
    started_at: float = 1_764_000_000.0,
    number: int = 1,
    counts: bool = True,
    pr: str = "",
    token: str = "",
    build: int | None = None,
) -> RunResult:
    seed = hashlib.sha256(f"{recipe} {number} {started_at}".encode()).digest()
    ref = seed.hex()[:40]
    run_id = f"{recipe[:4].replace('_', '-')}-{token or seed.hex()[:6]}"
    version = f"1.{number}.0+{2 + number // 10}.{number % 10}.1"
    previous = f"1.{max(number - 1, 0)}.0+2.{max(number - 1, 0) % 10}.1"
    result = RunResult(
        run_id=run_id,
        recipe=recipe,
        source=f"https://git.example.org/coop-cloud/{recipe}",
        ref=ref,
        version=version,
        src=f"coop-cloud/{recipe}",
        pr=pr,
        branch="" if pr else "main",
        counts=counts and not pr,
        domain=f"{run_id}.ci.example.org",
        stack=f"{run_id}_ci_example_org",
        deployer="swarm",
        deployer_version="0.1.0 (Docker 28.2.2)",
        enrolment=f"recipes/{recipe}/conftest.py",
        build=build,
        comment="4711" if pr else "",
        command=f"pytest --recipe={recipe} --ref={ref[:12]} --deployer=swarm",
        plugin_version="0.1.0",
        started_at=started_at,
    )
    speed = 0.7 + seed[0] / 255 * 0.8
    clock = started_at + 3
    for stage in Stage:
        variant = previous if stage is Stage.UPGRADE else ""
        record = result.stage(stage, variant)
        if result.died or (result.finished_at is None and kind is Kind.RUNNING and result.current):
            continue
        spent = USUAL[stage] * speed * (0.9 + seed[list(Stage).index(stage) + 1] / 255 * 0.2)
        record.started_at, record.duration_seconds = clock, round(spent, 2)
        _end(result, record, kind, version=version, previous=previous, seed=seed)
        clock += record.duration_seconds
    if kind is not Kind.RUNNING:
        result.finished_at = clock + 1
    return result


def _end(result: RunResult, record: StageResult, kind: Kind, *, version: str, previous: str, seed: bytes) -> None:
    stage, name = record.stage, result.recipe
    record.outcome = Outcome.PASS
    record.version_before = previous if stage is Stage.UPGRADE else version if stage is not Stage.INSTALL else ""
    record.version_after = version if stage is not Stage.TEARDOWN else ""
    images = [
        ServiceImage(
            service=service,
            image=image.format(recipe=name, version=version.partition("+")[2]),
            digest=f"sha256:{hashlib.sha256(seed + service.encode()).hexdigest()}",
        )
        for service, image in SERVICES.items()
    ]
    if stage is Stage.UPGRADE:
        record.images_before = [
            one.model_copy(
                update={"image": f"coop/{name}:{previous.partition('+')[2]}", "digest": f"sha256:{'5e' * 32}"}
            )
            if one.service == "app"
            else one
            for one in images
        ]
    if stage in (Stage.INSTALL, Stage.UPGRADE):
        record.images_after = images
        record.steps = [
            Wait(what="deploy", duration_seconds=1.9, state="3 services created"),
            Wait(
                what="all services converged",
                duration_seconds=record.duration_seconds * 0.6,
                state="app 1/1, db 1/1, redis 1/1",
            ),
            Wait(
                what=f"https://{result.domain}/ answers",
                duration_seconds=record.duration_seconds * 0.2,
                state="200 OK, 18 kB of text/html",
            ),
        ]
    if stage is Stage.BACKUP:
        record.steps = [
            Wait(what="db: pre-hook", duration_seconds=2.4, state="pg_dump wrote /backup/db.sql, 412 kB"),
            Wait(what="snapshot", duration_seconds=6.1, state="4 paths, 1.9 MB"),
        ]
    if stage is Stage.RECIPE:
        record.tests = [
            TestOutcome(name="test_login_page_has_a_form", outcome=Outcome.PASS, duration_seconds=1.21),
            TestOutcome(name="test_a_note_survives_a_reload", outcome=Outcome.PASS, duration_seconds=4.8),
            TestOutcome(
                name="test_mail_is_sent",
                outcome=Outcome.SKIP,
                duration_seconds=0.0,
                message="no SMTP server in the trial",
            ),
        ]
    if stage is Stage.UPGRADE and kind is Kind.FAILED:
        record.outcome = Outcome.FAIL
        record.version_after = previous
        record.cause = Cause(
            kind=CauseClass.RECIPE,
            summary=f"app {result.domain} did not converge in 120 s: service app 0/1, task failed: "
            '"migration 20261104 failed: column notes.alias does not exist"',
            hint="see artifacts/app.log; to look around, run again with `--keep-app`",
            log=[
                "app | applying migration 20261104-add-alias",
                'app | ERROR: column "alias" of relation "notes" does not exist',
                "app | at Query.run (/app/node_modules/pg/lib/query.js:83:17)",
                "app | exited with code 1, restarting (3 of 3)",
            ],
        )
        record.steps[-1] = Wait(
            what=f"https://{result.domain}/ answers", duration_seconds=40.2, state="502 Bad Gateway"
        )
    if kind is Kind.FIRST_VERSION and stage is Stage.UPGRADE:
        record.outcome, record.reason = Outcome.SKIP, "no published version to come from"
        record.started_at, record.duration_seconds, record.steps = None, 0.0, []
        record.images_before, record.images_after, record.version_before = [], [], ""
    if kind is Kind.DISK_FULL and stage in (Stage.BACKUP, Stage.RESTORE):
        record.outcome = Outcome.UNVERIFIED
        record.cause = Cause(
            kind=CauseClass.INFRASTRUCTURE,
            summary="no space left on device: /var/lib/docker has 0 of 80 GB free",
            hint="free space on the host (`docker system df`), then comment `!testme` again",
        )
    if kind is Kind.LEAKED and stage is Stage.TEARDOWN:
        record.outcome = Outcome.FAIL
        record.cause = Cause(
            kind=CauseClass.RECIPE,
            summary=f"1 volume and 1 network are left of {result.stack}",
            hint="run `coopcloud-ci janitor`",
        )
        result.leaks = [f"volume {result.stack}_uploads", f"network {result.stack}_internal"]
    if kind is Kind.KILLED and stage is Stage.INSTALL:
        record.outcome = None
        result.died = "run was killed in deploy"
    if kind is Kind.RUNNING and stage is Stage.BACKUP:
        record.outcome = None
        record.version_after = ""


def add_artifacts(result: RunResult, folder: Path) -> None:
    artifacts = folder / "artifacts"
    artifacts.mkdir(exist_ok=True)
    for service in SERVICES:
        lines = [
            f"2026-11-25T09:{minute:02d}:{second:02d}Z {service} | "
            + ("\x1b[33mWARN\x1b[0m slow query: 812 ms" if second == 41 else f"GET /status 200 {minute}.{second} ms")
            for minute in range(3)
            for second in range(0, 60, 1)
        ]
        (artifacts / f"{service}.log").write_text("\n".join(lines) + "\n", encoding="utf-8")
        result.artifacts.append(
            Artifact(path=f"artifacts/{service}.log", kind="log", stage="upgrade", title=f"log of {service}")
        )
    (artifacts / "ps.txt").write_text(
        "NAME      STATE     ERROR\napp.1     Running\ndb.1      Running\n", encoding="utf-8"
    )
    result.artifacts.append(Artifact(path="artifacts/ps.txt", kind="ps", stage="upgrade", title="tasks"))
    (artifacts / "upgrade.png").write_bytes(picture(640, 360))
    result.artifacts.append(
        Artifact(path="artifacts/upgrade.png", kind="screenshot", stage="upgrade", title="the app after the upgrade")
    )


def picture(width: int, height: int) -> bytes:
    """Draw a small page with a bar and lines as PNG."""
    rows = []
    for y in range(height):
        colour = (38, 70, 110) if y < 48 else (246, 247, 249)
        row = bytearray(bytes(colour) * width)
        if 48 < y < height - 40 and (y // 18) % 3 == 0:
            length = 120 + (y // 18 * 97) % 380
            row[3 * 40 : 3 * (40 + length)] = bytes((190, 198, 208)) * length
        rows.append(b"\0" + bytes(row))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))
        for tag, data in ((b"IHDR", head), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    )


def mixed_states(runs: Path, now: float) -> list[RunResult]:
    """Make 40 recipes in mixed states, with up to twelve runs each; the newest two are running."""
    made = []
    for index, recipe in enumerate(RECIPES):
        count = 1 + index % 12
        for number in range(1, count + 1):
            newest = number == count
            kind = Kind.PASSED
            if (index + number) % 7 == 0:
                kind = Kind.FAILED
            elif (index * 3 + number) % 17 == 0:
                kind = Kind.DISK_FULL
            elif (index + number * 2) % 23 == 0:
                kind = Kind.LEAKED
            elif number == 1:
                kind = Kind.FIRST_VERSION
            elif newest and index % 13 == 9:
                kind = Kind.KILLED
            age = (count - number) * 26 * 3600 + index * 4700
            if index == 17:
                age += 75 * 86400
            if newest and index in (4, 11):
                kind, age = Kind.RUNNING, 74 + index
            made.append(
                make_run(
                    runs,
                    recipe,
                    kind=kind,
                    started_at=now - age - 140,
                    number=number,
                    pr=str(20 + number) if newest and index % 3 == 1 else "",
                    build=len(made) + 1,
                    files=newest,
                )
            )
    return made


def many(runs: Path, *, recipes: int, each: int, now: float) -> None:
    """Make `recipes * each` runs of results.json alone, fast: for measuring."""
    for index in range(recipes):
        recipe = f"{RECIPES[index % len(RECIPES)]}-{index:03d}"
        for number in range(each):
            kind = Kind.FAILED if (index + number) % 7 == 0 else Kind.PASSED
            result = make_result(
                recipe,
                kind=kind,
                started_at=now - (each - number) * 7200 - index * 31,
                number=number,
                token=f"{index * each + number:06x}",
            )
            folder = runs / result.run_id
            folder.mkdir(parents=True)
            path = folder / "results.json"
            path.write_text(result.model_dump_json(indent=1), encoding="utf-8")
            os.utime(path, (result.started_at, result.started_at))
