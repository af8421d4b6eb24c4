"""`python -m reconcile COMMAND`: one service, as `RECONCILE_*` says. Exit code 0: as wished; 1: not; 2: wrong usage."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

from .errors import ReconcileError
from .prune import prune
from .repository import reconcile_repository
from .service import AppService, StackService, reconcile
from .settings import Settings
from .swarm import reconcile_swarm

_COMMANDS: dict[str, Callable[[Mapping[str, str]], object]] = {
    "app": lambda environment: reconcile(Settings.from_environment(environment), AppService),
    "prune": prune,
    "repository": reconcile_repository,
    "stack": lambda environment: reconcile(Settings.from_environment(environment), StackService),
    "swarm": reconcile_swarm,
}


def main(argv: list[str], environment: Mapping[str, str]) -> int:
    """Run one command and return the exit code."""
    if len(argv) != 1 or argv[0] not in _COMMANDS:
        print(f"usage: python -m reconcile {{{','.join(_COMMANDS)}}}", file=sys.stderr)
        return 2
    try:
        _COMMANDS[argv[0]](environment)
    except ReconcileError as error:
        print(f"{environment.get('RECONCILE_NAME') or argv[0]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
