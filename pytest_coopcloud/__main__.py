"""`coopcloud-ci`: small commands around a run."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_coopcloud.errors import CoopCloudError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 something is wrong, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="coopcloud-ci", description="Commands around a run of `pytest --recipe=...`.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("janitor", help="take down what dead runs left on this engine")
    command.add_argument(
        "--max-age",
        type=float,
        metavar="SECONDS",
        default=float(os.environ.get("CCCI_JANITOR_MAX_AGE") or 3600),
        help="only what is older; default 3600 (env CCCI_JANITOR_MAX_AGE)",
    )
    command.add_argument("--dry-run", action="store_true", help="only list what would be taken down, and why")
    command.add_argument(
        "--base-domain",
        default=os.environ.get("COOPCLOUD_BASE_DOMAIN") or "ci.localhost",
        help="what names of runs end in; default ci.localhost (env COOPCLOUD_BASE_DOMAIN)",
    )
    command.set_defaults(call=_janitor)

    command = commands.add_parser("teardown", help="take down the app of a run that was kept (--keep-app) or is dead")
    command.add_argument("run_id", help="the run, for example hell-0a1b2c")
    command.set_defaults(call=_teardown)

    command = commands.add_parser("reap")  # the reaper becomes this; not for people
    command.add_argument("folder", type=Path)
    command.add_argument("descriptors", type=int, nargs="*")
    command.set_defaults(call=_reap)

    arguments = parser.parse_args(argv)
    call: Callable[[argparse.Namespace], int] = arguments.call
    try:
        return call(arguments)
    except CoopCloudError as error:
        print(f"coopcloud-ci: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _janitor(arguments: argparse.Namespace) -> int:
    from pytest_coopcloud.docker import Docker
    from pytest_coopcloud.janitor import sweep
    from pytest_coopcloud.ledger import state_folder

    with contextlib.closing(Docker()) as docker:
        found = sweep(
            docker,
            state_folder(),
            base_domain=arguments.base_domain,
            max_age=arguments.max_age,
            dry_run=arguments.dry_run,
            say=lambda text: print(text, file=sys.stderr),
        )
    for one in found:
        print(f"{'would take' if arguments.dry_run else 'took'} {one}")
    left = [thing for one in found if one.taken is not None for thing in one.taken.leaks]
    for thing in left:
        print(f"still there: {thing}")
    print(f"{len(found)} dead runs, {len(left)} things left" if found else "nothing to take down")
    return 1 if left else 0


def _teardown(arguments: argparse.Namespace) -> int:
    from pytest_coopcloud.docker import Docker
    from pytest_coopcloud.errors import BadInputError
    from pytest_coopcloud.janitor import reap
    from pytest_coopcloud.ledger import LOCK_FILE, Lock, state_folder
    from pytest_coopcloud.naming import RUN_ID
    from pytest_coopcloud.proxy import release_proxy

    folder = state_folder() / "runs" / arguments.run_id
    if not RUN_ID.fullmatch(arguments.run_id) or not folder.is_dir():
        raise BadInputError(f"there is no run {arguments.run_id[:40]!r}", hint=f"see {state_folder() / 'runs'}")
    with Lock(folder / LOCK_FILE) as lock:
        if not lock.try_exclusive():
            raise BadInputError(f"run {arguments.run_id} is still going on", hint="end it, or wait for its end")
        done = reap(folder, say=print)
    with contextlib.closing(Docker()) as docker, Lock(state_folder() / "proxy" / "users.lock") as users:
        release_proxy(docker, users)
    for thing in done.leaks:
        print(f"still there: {thing}")
    return 1 if done.leaks else 0


def _reap(arguments: argparse.Namespace) -> int:
    """Take down the app of a run that has died. The descriptors are its locks: they are held until this ends."""
    from pytest_coopcloud.docker import Docker
    from pytest_coopcloud.janitor import reap
    from pytest_coopcloud.ledger import Lock, state_folder
    from pytest_coopcloud.proxy import release_proxy

    def say(text: str) -> None:
        print(time.strftime("%Y-%m-%dT%H:%M:%S"), text, flush=True)

    try:
        done = reap(arguments.folder, say=say)
    except CoopCloudError as error:
        say(f"gave up: {error}")
        return 1
    if len(arguments.descriptors) >= 3:  # lock, slot, users of the proxy
        users = Lock.inherited(arguments.descriptors[2], state_folder() / "proxy" / "users.lock")
        with contextlib.closing(Docker()) as docker:
            release_proxy(docker, users)
    return 1 if done.leaks else 0


if __name__ == "__main__":
    sys.exit(main())
