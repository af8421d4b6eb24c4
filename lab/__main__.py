"""`python -m lab up | status | down | logs | testme`: the whole system on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lab import control, rounds
from lab.builds import BuildError
from lab.gitea import Forge
from lab.processes import LabError, find, log_file
from lab.state import CI_REPO, ORG, Lab, default_folder


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = _parser().parse_args(argv)
    try:
        return int(options.command(options))
    except (LabError, BuildError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dev lab", description="The whole system on this machine.")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, function, text in (
        ("up", _up, "build what is missing and start everything; again: print how to use it"),
        ("status", _status, "say what runs, and where"),
        ("down", _down, "stop everything and remove all that it made"),
        ("push", _push, "make this checkout's HEAD the CI repository's, which runs its fast tests"),
        ("help", _help, "print this"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=function)
    logs = commands.add_parser("logs", help="print the end of the logs")
    logs.add_argument("process", nargs="?", choices=control.PROCESSES)
    logs.add_argument("-n", "--lines", type=int, default=40)
    logs.set_defaults(command=_logs)
    testme = commands.add_parser(
        "testme", help="comment !testme on a sample recipe's pull request and follow the answer"
    )
    testme.add_argument("recipe")
    testme.add_argument("--sha", default="", help="expect this commit to be tested")
    testme.add_argument("--variant", default="", help="a pull request with this variant of the sample recipe")
    testme.add_argument(
        "--break-upgrade", dest="variant", action="store_const", const="upgrade-drops-table",
        help="a pull request whose upgrade loses data",
    )  # fmt: skip
    testme.add_argument("--timeout", type=float, default=900.0, help="seconds until this gives up")
    testme.set_defaults(command=_testme)
    parser.set_defaults(parser=parser)
    return parser


def _say(text: str) -> None:
    print(f"lab: {text}", file=sys.stderr, flush=True)


def _help(options: argparse.Namespace) -> int:
    options.parser.print_help()
    return 0


def _up(_: argparse.Namespace) -> int:
    lab = control.up(default_folder(), say=_say)
    print(_guide(lab))
    return 0


def _guide(lab: Lab) -> str:
    lines = ["", "where things are"]
    for name in control.wanted():
        lines.append(f"  {name:<10} {lab.url(name)}")
    lines += ["", "who can log in, at the forge and (with the same name) at Drone"]
    for account in lab.accounts.values():
        lines.append(f"  {account.login:<14} {account.password:<18} {account.role}")
    lines += ["", "open pull requests"]
    for recipe, number in lab.pulls.items():
        lines.append(f"  {recipe:<14} {lab.url('gitea')}/{ORG}/{recipe}/pulls/{number}")
    first = next(iter(lab.pulls), "guestbook")
    lines += [
        "",
        f"the CI repository is {CI_REPO}: this checkout's HEAD. All of the lab lies in {lab.folder}",
        "",
        "what next",
        f"  ./dev lab testme {first:<20} comment !testme as maya, and follow the answer",
        "  ./dev lab testme guestbook --break-upgrade   the same with an upgrade that loses data",
        "  ./dev lab push                       test with this checkout's newest commit",
        "  ./dev lab logs bridge",
        "  ./dev lab down                       stop everything and remove all that it made",
    ]
    return "\n".join(lines)


def _status(_: argparse.Namespace) -> int:
    lab = Lab.open(default_folder())
    for name in control.wanted():
        programs = [process for process in find(lab, name) if not process.is_honcho]
        where = lab.url(name) if name in lab.ports else ""
        said = f"process {programs[0].pid}" if programs else "not running"
        print(f"{name:<10} {said:<16} {where}")
    up = control.is_up(lab)
    print("the lab is up" if up else "the lab is not up\n\nhint: `./dev lab up`")
    return 0 if up else 1


def _push(_: argparse.Namespace) -> int:
    lab = Lab.open(default_folder())
    if not control.is_up(lab):
        raise LabError("the lab is not up.\n\nhint: `./dev lab up`")
    with Forge(lab) as forge:
        commit = control.push_ci(lab, forge)
    print(f"{CI_REPO} is at {commit[:12]}: {lab.url('drone')}/{CI_REPO}")
    return 0


def _down(_: argparse.Namespace) -> int:
    control.down(default_folder(), say=_say)
    return 0


def _logs(options: argparse.Namespace) -> int:
    lab = Lab.open(default_folder())
    for name in (options.process,) if options.process else control.PROCESSES:
        log: Path = log_file(lab, name)
        if log.exists():
            print(f"==> {log}")
            print("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-options.lines :]))
    return 0


def _testme(options: argparse.Namespace) -> int:
    lab = Lab.open(default_folder())
    if not control.is_up(lab):
        raise LabError("the lab is not up.\n\nhint: `./dev lab up`")
    return rounds.testme(
        lab, options.recipe, variant=options.variant, sha=options.sha, timeout=options.timeout, say=print
    )


if __name__ == "__main__":
    sys.exit(main())
