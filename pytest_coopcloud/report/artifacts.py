"""Open a file of a run's folder, and never one outside of it.

The folder was written by a run that executed foreign code: a path or a link in it may point anywhere.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["image_type", "open_artifact"]

_DEPTH = 16


def open_artifact(folder: Path, relative: str) -> BinaryIO:
    """Open `relative` below `folder` for reading.

    No part of the path may be a symbolic link, `..` or a special file; each is opened relative to the one before, so
    that a link put there in between is refused as well.

    Raises:
        FileNotFoundError: There is no such plain file.
    """
    parts = relative.split("/")
    if len(parts) > _DEPTH or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise FileNotFoundError(relative)
    with contextlib.ExitStack() as opened:
        try:
            here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, here)
            for part in parts[:-1]:
                here = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                opened.callback(os.close, here)
            # Without O_NONBLOCK a FIFO would hold us until somebody writes to it.
            file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
        except (OSError, ValueError) as error:
            raise FileNotFoundError(relative) from error
    # A hard link could be a way out for one who may link to files that he cannot read: the kernel forbids that
    # (fs.protected_hardlinks), so only the kind is checked.
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise FileNotFoundError(relative)
    return os.fdopen(file, "rb")


def image_type(head: bytes) -> str:
    """Say what picture `head`, the first bytes of a file, begins; empty for anything that is none.

    Only what a browser draws without running anything counts: no SVG.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    return ""
