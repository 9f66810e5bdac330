"""Reading arrays from files that may be anything: never unpickled, never left open."""

import csv
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balancesim.errors import InputError
from balancesim.types import Float64Array


def read_npy(path: Path) -> NDArray[Any]:
    """Map a .npy file; raise `InputError` if it is no plain array."""
    try:
        mapped: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
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


def read_array(path: Path, array: str | None, argument: str) -> NDArray[Any]:
    """Open one array of a .npy or .npz file; a .npy file stays on disk until its rows are read.

    Parameters
    ----------
    path : Path
        The file.
    array : str or None
        Which array of an .npz file; None if it holds one only.
    argument : str
        What the user gave the path as.

    Returns
    -------
    ndarray
        The array, as it is.

    Raises
    ------
    InputError
        If there is no such file or array, or the file is damaged.
    """
    if not path.is_file():
        raise InputError(f"`{argument}` names the file {str(path)!r}, which does not exist")
    if not is_archive(path):
        return read_npy(path)
    arrays = read_npz(path)
    chosen = next(iter(arrays)) if array is None and len(arrays) == 1 else array
    if chosen not in arrays:
        raise InputError(
            f"`array` must name one of the arrays in {str(path)!r} ({', '.join(arrays)}), got {array!r}"
        )
    return arrays[chosen]


def read_text(path: Path) -> str:
    """Read a UTF-8 text file, with or without a byte-order mark; raise `InputError` if it is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def read_csv_rows(path: Path) -> Float64Array:
    """Read a .csv of numbers, (rows, columns); a first row of names is skipped.

    Raises
    ------
    InputError
        If a row is of another length or a cell is no number; the message names the line and the column.
    """
    reader = csv.reader(read_text(path).splitlines())
    rows: list[list[float]] = []
    names = False
    for row in reader:
        if not row:
            continue
        numbers = [as_number(cell) for cell in row]
        if not rows and not names and all(number is None for number in numbers):
            names = True
            continue
        wrong = next((i for i, number in enumerate(numbers) if number is None), None)
        if wrong is not None:
            raise InputError(
                f"{path}, line {reader.line_num}: column {wrong + 1} must be a number, got {row[wrong]!r}"
            )
        if rows and len(row) != len(rows[0]):
            raise InputError(
                f"{path}, line {reader.line_num}: expected {len(rows[0])} columns, got {len(row)}"
            )
        rows.append([number for number in numbers if number is not None])
    if not rows:
        raise InputError(f"{str(path)!r} holds no numbers")
    return np.array(rows, np.float64)


def as_number(text: str) -> float | None:
    """The number that a text is, or None."""
    try:
        return float(text)
    except ValueError:
        return None


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{str(path)!r} cannot be read as plain NumPy arrays ({error}). Pickled objects are never loaded: "
        "save arrays of numbers with numpy.save or numpy.savez"
    )
