"""Recorded scores: an array, or a .npy or .npz file, replayed in order or resampled."""

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from balancesim.batches import check_masks
from balancesim.errors import InputError
from balancesim.numbers import check_int
from balancesim.rng import check_seed
from balancesim.sources.base import Source, alias_table, check_choice, check_step, draw_from, rows_model
from balancesim.sources.files import read_array
from balancesim.types import FloatArray

if TYPE_CHECKING:
    from balancesim.kernels.model import ScoreModel

_CHECK_ROWS = 1 << 14


@dataclass(frozen=True, eq=False)
class Recorded(Source):
    """Scores that were recorded.

    Parameters
    ----------
    scores : str, path or (rows, E) array of float16, float32 or float64
        One token's scores a row; minus infinity masks an expert. A .npy file is mapped, not read at once.
    order : {"replay", "resample"}, optional
        "replay" takes the rows in order and ends when they are exhausted; "resample" draws rows with
        replacement, keyed by (seed, step, token).
    array : str, optional
        Which array of an .npz file, if it holds several.
    seed : int, optional
        Key of the resampling.

    Raises
    ------
    InputError
        If the file is missing, pickled or damaged, or its scores have the wrong shape, dtype or values.
    """

    name = "recorded"
    scores: Any
    order: Literal["replay", "resample"] = field(default="replay", kw_only=True)
    array: str | None = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    n_experts: int = field(init=False)

    def __post_init__(self) -> None:
        check_choice("order", self.order, ("replay", "resample"))
        check_seed(self.seed)
        rows = self.rows
        if rows.ndim != 2 or rows.shape[0] == 0 or rows.shape[1] < 2:
            raise InputError(
                f"`scores` must be (rows, E) with a row and 2 experts at least, got {rows.shape}"
            )
        if rows.dtype not in (np.float16, np.float32, np.float64):
            raise InputError(f"`scores` must be float16, float32 or float64, got {rows.dtype}")
        object.__setattr__(self, "n_experts", int(rows.shape[1]))
        for first in range(0, rows.shape[0], _CHECK_ROWS):
            check_masks(np.asarray(rows[first : first + _CHECK_ROWS]), 1, first)

    @cached_property
    def rows(self) -> NDArray[Any]:
        """The recorded array, (rows, E)."""
        if isinstance(self.scores, (str, Path)):
            return read_array(Path(self.scores), self.array, "scores")
        return np.asarray(self.scores)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float64 for float64 recordings, else float32."""
        return np.dtype(np.float64 if self.rows.dtype == np.float64 else np.float32)

    def with_seed(self, seed: int) -> Self:
        return dataclasses.replace(self, seed=seed)

    def n_steps(self, n_tokens: int) -> int | None:
        return self.rows.shape[0] // n_tokens if self.order == "replay" else None

    def batch(self, step: int, n_tokens: int) -> FloatArray:
        check_int("n_tokens", n_tokens, 1)
        first = check_step(step) * n_tokens
        if self.order == "replay":
            if first + n_tokens > self.rows.shape[0]:
                raise InputError(
                    f"`step` {step} of {n_tokens} tokens ends at row {first + n_tokens}, past the "
                    f"{self.rows.shape[0]} recorded; use fewer steps or order='resample'"
                )
            return np.asarray(self.rows[first : first + n_tokens], dtype=self.dtype)
        return draw_from(self._model, step, n_tokens)

    def kernel_model(self) -> "ScoreModel | None":
        return None if self.order == "replay" else self._model

    @cached_property
    def _model(self) -> "ScoreModel":
        from balancesim.kernels.model import DRAWN_ROWS

        table = np.ascontiguousarray(self.rows, dtype=self.dtype)
        alias = alias_table(np.ones(len(table)))
        return rows_model(table, row_mode=DRAWN_ROWS, seed=self.seed, alias=alias)

    def describe(self) -> str:
        origin = Path(self.scores).name if isinstance(self.scores, (str, Path)) else "array"
        return f"Recorded {origin} ({self.order})"
