"""Reading arrays from files that may be anything: never unpickled, never left open."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balancesim.errors import InputError


def read_npy(path: Path) -> NDArray[Any]:
    """Map a .npy file; raise `InputError` if it is no plain array."""
    try:
        mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise _unreadable(path, error) from error
    return mapped


def is_archive(path: Path) -> bool:
    """Whether a file begins like an .npz archive."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read every array of an .npz archive; raise `InputError` if it is damaged or holds pickled objects."""
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{str(path)!r} cannot be read as plain NumPy arrays ({error}). Pickled objects are never loaded: "
        "save arrays of numbers with numpy.save or numpy.savez"
    )
