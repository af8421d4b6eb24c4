"""Every exception this package raises.

    CoopCloudError
    ├── BadInputError            what the user gave cannot be used; nothing was created
    │   ├── BadNameError         a recipe name, ref, domain or Docker name that is out of bounds
    │   ├── BadRecipeError       a recipe checkout that cannot be read
    │   ├── BadEnrolmentError    a conftest whose RecipeMeta is wrong
    │   └── PolicyError          a compose file that asks for more than a recipe may have
    ├── SourceError              the recipe could not be fetched
    ├── CLIError                 a command failed, with its output
    │   └── CLITimeoutError      a command outlived its deadline
    ├── EngineError              the Docker engine is away or refuses
    ├── WaitError                a wait that cannot end well any more, or took too long
    ├── ImageError               an image that cannot be had
    ├── AppError                 the app answers, and not as it should
    ├── DeadlineError            a stage or a run outlived its deadline
    └── Unverified               a stage that should have run, and could not

Each carries a `cause` (whose fault it is by default) and, where there is one, a `hint`: what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_coopcloud.results import CauseClass

__all__ = [
    "AppError",
    "BadEnrolmentError",
    "BadInputError",
    "BadNameError",
    "BadRecipeError",
    "CLIError",
    "CLITimeoutError",
    "CoopCloudError",
    "DeadlineError",
    "EngineError",
    "ImageError",
    "PolicyError",
    "SourceError",
    "Unverified",
    "WaitError",
]


class CoopCloudError(Exception):
    """Say what happened, whose fault it is, and what to do next.

    Args:
        message: What happened, with the values.
        hint: What to do next; printed on a line of its own.
        cause: Whose fault it is, where that differs from the default of the class.
    """

    default_cause = CauseClass.INFRASTRUCTURE

    def __init__(self, message: str, *, hint: str = "", cause: CauseClass | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.cause = cause or self.default_cause

    def __str__(self) -> str:
        return f"{self.message}\n\nhint: {self.hint}" if self.hint else self.message


class BadInputError(CoopCloudError):
    """What the user gave cannot be used. Nothing was created."""

    default_cause = CauseClass.RECIPE


class BadNameError(BadInputError):
    """A recipe name, a ref, a domain or a Docker name is out of bounds."""


class BadRecipeError(BadInputError):
    """A recipe checkout cannot be read."""


class BadEnrolmentError(BadInputError):
    """A conftest returns a `RecipeMeta` that is wrong."""

    default_cause = CauseClass.TEST


class PolicyError(BadInputError):
    """A compose file asks for more of the host than a recipe may have."""


class SourceError(CoopCloudError):
    """The recipe could not be fetched."""


class CLIError(CoopCloudError):
    """A command failed.

    Attributes:
        argv: The command, secrets blotted out.
        returncode: Its exit code, or None where it never ended by itself.
        stdout: What it printed, secrets blotted out.
        stderr: What it complained about, secrets blotted out.
    """

    def __init__(
        self,
        argv: Sequence[str],
        returncode: int | None,
        stdout: str,
        stderr: str,
        *,
        message: str = "",
        hint: str = "",
        cause: CauseClass | None = None,
    ) -> None:
        self.argv = list(argv)
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr
        said = "\n".join(part for part in (stderr.strip(), stdout.strip()) if part)
        super().__init__(
            message or f"`{' '.join(self.argv)}` ended with {returncode}:\n{said or '(it printed nothing)'}",
            hint=hint,
            cause=cause,
        )


class CLITimeoutError(CLIError):
    """A command outlived its deadline and was killed."""


class EngineError(CoopCloudError):
    """The Docker engine is away, or refuses what it should do."""


class WaitError(CoopCloudError):
    """A wait cannot end well any more, or took too long. Carries the last state it saw."""

    default_cause = CauseClass.RECIPE


class ImageError(CoopCloudError):
    """An image cannot be had."""


class AppError(CoopCloudError):
    """The app answers, and not as it should."""

    default_cause = CauseClass.RECIPE


class DeadlineError(CoopCloudError):
    """A stage or a run outlived its deadline."""


class Unverified(CoopCloudError):
    """A stage should have run, and could not."""
