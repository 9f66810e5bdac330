"""Files that are there whole or not at all: written under a temporary name, synced and renamed."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from balancesim.errors import RunDirectoryError

TEMPORARY = ".tmp-"
"""Prefix of files being written; what a killed run leaves of them is removed by the next."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, sync it and give it its name.

    Raises
    ------
    RunDirectoryError
        If the disk is full or the folder cannot be written; no temporary file is left.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        try:
            write(temporary)
            _sync(temporary, os.O_RDWR)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if os.name == "posix":  # elsewhere a folder cannot be opened
            _sync(path.parent, os.O_RDONLY)
    except OSError as error:
        raise storage_error(path.parent, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; see :func:`write_atomically`."""
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; see :func:`write_atomically`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def storage_error(folder: Path, error: OSError) -> RunDirectoryError:
    """One sentence for what the operating system says of a folder that cannot be used."""
    if isinstance(error, RunDirectoryError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunDirectoryError(
            f"the disk of {folder} is full; what is finished is kept: "
            "free some space and run the same command again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RunDirectoryError(f"{folder} is not writable ({error.strerror}); give another --out DIR")
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        place = error.filename or folder
        return RunDirectoryError(f"{place} is a file, not a directory; give another --out DIR")
    return RunDirectoryError(f"{folder} cannot be used: {error.strerror or error}; give another --out DIR")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
