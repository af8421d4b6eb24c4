"""The name of a run, and of everything it creates.

A stack name is built here and nowhere else. The limits:

* Docker refuses config and secret names over 64 characters (`<stack>_<name>_<version>`).
* abra cuts stack names at 45 characters, so two long domains could meet; a longer one is refused here instead.

Example:
    >>> name = RunName.new("hedgedoc", base_domain="ci.localhost", token="0a1b2c")
    >>> name.run_id, name.domain, name.stack
    ('hedg-0a1b2c', 'hedg-0a1b2c.ci.localhost', 'hedg-0a1b2c_ci_localhost')
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from pytest_coopcloud.errors import BadNameError

__all__ = ["DOCKER_NAME_LIMIT", "RECIPE_NAME", "RUN_ID", "STACK_NAME_LIMIT", "RunName", "check_recipe_name"]

STACK_NAME_LIMIT = 45
DOCKER_NAME_LIMIT = 64

RECIPE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,3}-[0-9a-f]{6}")
_BASE_DOMAIN = re.compile(r"(?=.{1,200}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


def check_recipe_name(name: str) -> str:
    """Return `name` where it can be the name of a recipe.

    Raises:
        BadNameError: It cannot; the message repeats at most 80 characters of it.
    """
    if not RECIPE_NAME.fullmatch(name):
        raise BadNameError(
            f"{name[:80]!r} is no recipe name",
            hint="a recipe name has 1 to 63 characters of a-z, 0-9, `-` and `_`, and begins with a letter or digit",
        )
    return name


@dataclass(frozen=True)
class RunName:
    """A run id, and the names that follow from it.

    Attributes:
        run_id: `<recipe[:4]>-<6 hex>`, lower case.
        base_domain: What the app's domain ends in, for example `ci.localhost`.
    """

    run_id: str
    base_domain: str

    def __post_init__(self) -> None:
        if not RUN_ID.fullmatch(self.run_id):
            raise BadNameError(f"{self.run_id[:80]!r} is no run id", hint="a run id looks like `hedg-0a1b2c`")
        if not _BASE_DOMAIN.fullmatch(self.base_domain):
            raise BadNameError(
                f"{self.base_domain[:80]!r} is no domain", hint="give one like `ci.example.org`, in lower case"
            )
        if len(self.stack) >= STACK_NAME_LIMIT:
            raise BadNameError(
                f"stack name {self.stack!r} has {len(self.stack)} characters, {STACK_NAME_LIMIT - 1} are allowed",
                hint=f"choose a base domain shorter than {self.base_domain!r}",
            )

    @classmethod
    def new(cls, recipe: str, *, base_domain: str, token: str = "") -> RunName:
        """Make the name of a new run of `recipe`; `token` (6 hex digits) is drawn where it is not given."""
        head = check_recipe_name(recipe)[:4].replace("_", "-")
        return cls(run_id=f"{head}-{token or secrets.token_hex(3)}", base_domain=base_domain)

    @property
    def domain(self) -> str:
        """Where the app answers, for example `hedg-0a1b2c.ci.localhost`."""
        return f"{self.run_id}.{self.base_domain}"

    @property
    def stack(self) -> str:
        """The stack's name: the domain with `.` as `_`, as abra builds it."""
        return self.domain.replace(".", "_")

    @property
    def prefix(self) -> str:
        """What the name of everything this run owns in Docker begins with."""
        return f"{self.stack}_"

    def versioned(self, name: str, version: str) -> str:
        """Return the Docker name of a secret or config at a version.

        Raises:
            BadNameError: It would have 64 characters or more.
        """
        return self.check(f"{self.prefix}{name}_{version}")

    def check(self, name: str) -> str:
        """Return `name`, a Docker name of this run.

        Raises:
            BadNameError: It has 64 characters or more.
        """
        if len(name) >= DOCKER_NAME_LIMIT:
            raise BadNameError(
                f"{name!r} has {len(name)} characters, Docker allows {DOCKER_NAME_LIMIT - 1} here",
                hint="shorten the name in the recipe, or choose a shorter base domain",
            )
        return name
