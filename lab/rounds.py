"""A whole round: a comment under a pull request, and the bot's answer until it is final."""

from __future__ import annotations

from lab.control import Say
from lab.state import Lab

__all__ = ["testme"]


def testme(lab: Lab, recipe: str, *, variant: str, sha: str, timeout: float, say: Say) -> int:
    raise NotImplementedError
