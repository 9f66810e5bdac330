"""What every source of scores is: a pure function of (source, seed, step) to a batch of scores."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from balancesim.errors import InputError
from balancesim.numbers import check_int, check_positive
from balancesim.rng import check_seed, philox_key
from balancesim.types import Float64Array, FloatArray, IntArray

if TYPE_CHECKING:
    from balancesim.kernels.model import ScoreModel

Transform = Literal["raw", "sigmoid", "softmax"]
TRANSFORMS = ("raw", "sigmoid", "softmax")

OVERFLOW_PROBABILITY = 1e-12
"""Scores are drawn in float64 where float32 would overflow with a larger probability than this."""

RESOLVED_HEIGHT = 2.0**12
"""Height above its spread from which noise is drawn in float64: float32 would leave it 2000 values."""

HEADROOM = 1e-3
"""Part of float32's range that a draw may use, so that adding offsets and biases cannot overflow."""


class Source(ABC):
    """A source of token-expert scores.

    Sources are immutable: the same source, step and number of tokens give the same batch, whatever was drawn
    before. A source of one's own must define `batch` and `with_seed`, beside ``n_experts`` and ``seed``.
    """

    name: ClassVar[str]
    """The name in configurations and tables."""

    n_experts: int
    """Number of experts, E."""

    seed: int
    """Key of all draws."""

    @abstractmethod
    def batch(self, step: int, n_tokens: int) -> FloatArray:
        """Draw the scores of one step.

        Parameters
        ----------
        step : int
            The step, counted from 0.
        n_tokens : int
            Tokens in the batch, T.

        Returns
        -------
        (T, E) ndarray of float32 or float64
            Token t of a step is the same whatever T is (recorded scores excepted: they are keyed by row).
        """

    @abstractmethod
    def with_seed(self, seed: int) -> Self:
        """Return the same source with another seed."""

    def kernel_model(self) -> "ScoreModel | None":
        """Return the model that a kernel draws from by itself, or None if batches come from `batch`."""
        return None

    def n_steps(self, n_tokens: int) -> int | None:
        """Return the number of batches of this size there are, or None if there is no end to them."""
        del n_tokens
        return None

    def population_bias(self) -> Float64Array | None:
        """Return the zero-mean minimiser p* of the expected dual, (E,), or None where it is not known."""
        return None

    def noise_distribution(self) -> Any:
        """Return the frozen SciPy distribution of the standard noise z, for i.i.d. scores.

        Raises
        ------
        InputError
            If the scores are not independent and identically distributed up to location.
        """
        raise InputError(
            f"{self.describe()} has no i.i.d. score distribution; measure it on drawn scores instead"
        )

    def describe(self) -> str:
        """Return one line for tables and figures."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class DrawnSource(Source):
    """A source that draws E scores per token inside the kernels.

    Parameters
    ----------
    n_experts : int
        Number of experts, at least 2.
    seed : int, optional
        Key of all draws.
    offsets : (E,) sequence of float, "iqr" or None, optional
        Added to each expert's scores before the transform. "iqr" spaces them evenly over one interquartile
        range of the scaled noise, lowest for expert 0. Omitted: none.
    scale : float, optional
        Factor on the noise, positive.
    transform : {"raw", "sigmoid", "softmax"}, optional
        What becomes of the sum of offset and noise; softmax is taken over the experts.
    """

    n_experts: int
    seed: int = 0
    offsets: Sequence[float] | Literal["iqr"] | None = None
    scale: float = 1.0
    transform: Transform = "raw"

    def __post_init__(self) -> None:
        """Validate, and freeze the offsets into a tuple."""
        check_int("n_experts", self.n_experts, 2)
        check_seed(self.seed)
        check_positive("scale", self.scale)
        check_choice("transform", self.transform, TRANSFORMS)
        if self.offsets is not None and not isinstance(self.offsets, str):
            set_offsets(self, "offsets", self.offsets)
        elif isinstance(self.offsets, str):
            check_choice("offsets", self.offsets, ("iqr",))
        if self._may_overflow(np.float64):
            raise InputError(
                f"{self.describe()} with `scale` = {self.scale:g} is too heavy-tailed for float64: "
                "scores would overflow with probability above 1e-12"
            )

    def with_seed(self, seed: int) -> Self:
        return dataclasses.replace(self, seed=seed)

    def batch(self, step: int, n_tokens: int) -> FloatArray:
        return draw_from(self.kernel_model(), step, n_tokens)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32, or float64 where float32 would overflow or blur.

        Overflow: with probability above 1e-12. Blur: typical scores are thousands of times their spread.
        """
        offsets = () if self.offsets is None or isinstance(self.offsets, str) else self.offsets
        height = max([self.height(), *(abs(offset) / self.scale for offset in offsets)])
        wide = height > RESOLVED_HEIGHT or self._may_overflow(np.float32)
        return np.dtype(np.float64 if wide else np.float32)

    def _may_overflow(self, real: Any) -> bool:
        return self.exceedance(float(np.finfo(real).max) * HEADROOM / self.scale) > OVERFLOW_PROBABILITY

    def height(self) -> float:
        """Typical size of the standard noise over its spread."""
        return 1.0

    def exceedance(self, magnitude: float) -> float:
        """Probability that the standard noise exceeds a (large) magnitude; zero for light tails."""
        del magnitude
        return 0.0

    def expert_offsets(self) -> Float64Array:
        """The offsets as numbers, (E,)."""
        if self.offsets is None:
            return np.zeros(self.n_experts)
        if isinstance(self.offsets, str):
            low, high = self.noise_quartiles()
            return np.linspace(-0.5, 0.5, self.n_experts) * (self.scale * (high - low))
        return np.array(self.offsets, dtype=np.float64)

    def noise_quartiles(self) -> tuple[float, float]:
        """The quartiles of the standard noise."""
        distribution = self.noise_distribution()
        return float(distribution.ppf(0.25)), float(distribution.ppf(0.75))

    def kernel_model(self) -> "ScoreModel":
        """Return the model that a kernel draws from; made once."""
        return self._model

    @cached_property
    def _model(self) -> "ScoreModel":
        return self.make_model()

    @abstractmethod
    def make_model(self) -> "ScoreModel":
        """Make the model that a kernel draws from."""

    def build_model(
        self,
        family: int,
        *,
        shape: float = 1.0,
        scale: float | None = None,
        offsets: Float64Array | None = None,
        phase_start: Sequence[int] = (0,),
        walk_rate: float = 0.0,
        table: Float64Array | None = None,
        phase_row: Sequence[int] = (0,),
        aliases: Sequence[tuple[Float64Array, IntArray]] = (),
        loadings: Float64Array | None = None,
    ) -> "ScoreModel":
        """Flatten into the record that kernels read; ``aliases`` holds an alias table per phase."""
        from balancesim.kernels.model import DRAWN_ROWS, NO_ROWS, RAW, SIGMOID, SOFTMAX, ScoreModel

        key0, key1 = philox_key(self.seed)
        rows = np.zeros((0, self.n_experts)) if table is None else table
        return ScoreModel(
            n_experts=self.n_experts,
            key0=np.uint64(key0),
            key1=np.uint64(key1),
            family=family,
            shape=float(shape),
            scale=float(self.scale if scale is None else scale),
            transform={"raw": RAW, "sigmoid": SIGMOID, "softmax": SOFTMAX}[self.transform],
            phase_start=np.array(phase_start, dtype=np.int64),
            offsets=self.expert_offsets()[None, :] if offsets is None else offsets,
            walk_rate=float(walk_rate),
            row_mode=NO_ROWS if table is None else DRAWN_ROWS,
            row_origin=0,
            phase_row=np.array(phase_row, dtype=np.int64),
            alias_threshold=np.concatenate([np.zeros(0), *(threshold for threshold, _ in aliases)]),
            alias_row=np.concatenate([np.zeros(0, np.int64), *(row for _, row in aliases)]),
            table=np.ascontiguousarray(rows, dtype=self.dtype),
            loadings=np.zeros((self.n_experts, 0)) if loadings is None else loadings,
        )


def rows_model(
    table: NDArray[Any],
    *,
    row_mode: int,
    row_origin: int = 0,
    seed: int = 0,
    alias: tuple[Float64Array, IntArray] | None = None,
) -> "ScoreModel":
    """Make a model whose scores are rows of a table as they are: in order, or drawn by an alias table."""
    from balancesim.kernels.model import NO_NOISE, RAW, ScoreModel

    n_rows, n_experts = table.shape
    key0, key1 = philox_key(seed)
    threshold, alias_row = (np.zeros(0), np.zeros(0, np.int64)) if alias is None else alias
    return ScoreModel(
        n_experts=n_experts,
        key0=np.uint64(key0),
        key1=np.uint64(key1),
        family=NO_NOISE,
        shape=1.0,
        scale=1.0,
        transform=RAW,
        phase_start=np.zeros(1, np.int64),
        offsets=np.zeros((1, n_experts)),
        walk_rate=0.0,
        row_mode=row_mode,
        row_origin=row_origin,
        phase_row=np.array([0, n_rows], np.int64),
        alias_threshold=threshold,
        alias_row=alias_row,
        table=table,
        loadings=np.zeros((n_experts, 0)),
    )


def draw_from(model: "ScoreModel", step: int, n_tokens: int) -> FloatArray:
    """Draw one step's scores from a model, (T, E)."""
    from balancesim.kernels.scores import draw_batch, draw_pointer

    scores: FloatArray = np.empty((check_int("n_tokens", n_tokens, 1), model.n_experts), model.table.dtype)
    draw_batch(draw_pointer(model, scores.dtype), model, check_step(step), scores)
    return scores


def alias_table(frequency: Float64Array) -> tuple[Float64Array, IntArray]:
    """Walker's alias table, for drawing rows by frequency in constant time.

    Parameters
    ----------
    frequency : (R,) array
        Non-negative frequencies of the rows.

    Returns
    -------
    threshold : (R,) ndarray of float64
        A uniform below it keeps the row.
    alias : (R,) ndarray of int64
        The row to take instead.
    """
    share = frequency * (frequency.size / frequency.sum())
    threshold, alias = np.ones(share.size), np.arange(share.size)
    small = [i for i in range(share.size) if share[i] < 1.0]
    large = [i for i in range(share.size) if share[i] >= 1.0]
    while small and large:
        i, j = small.pop(), large[-1]
        threshold[i], alias[i] = share[i], j
        share[j] -= 1.0 - share[i]
        if share[j] < 1.0:
            small.append(large.pop())
    return threshold, alias


def check_step(step: int) -> int:
    """Return a step; raise `InputError` unless it is an integer in [0, 2**32)."""
    number = check_int("step", step, 0)
    if number >= 1 << 32:
        raise InputError(f"`step` must be below 2**32, got {number}")
    return number


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise `InputError` unless the argument is one of the choices."""
    if value not in choices:
        raise InputError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}")


def set_offsets(source: Any, name: str, offsets: Any) -> None:
    """Check a per-expert vector and store it in a frozen source as a tuple."""
    try:
        values = np.asarray(offsets, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"`{name}` must be numbers, one per expert, got {offsets!r}") from None
    if values.shape != (source.n_experts,):
        raise InputError(
            f"`{name}` must have one entry per expert, ({source.n_experts},), got {values.shape}"
        )
    if not np.isfinite(values).all():
        raise InputError(f"`{name}` must be finite, got {values[~np.isfinite(values)][0]}")
    object.__setattr__(source, name, tuple(values.tolist()))


def location_minimiser(offsets: Float64Array, transform: Transform) -> Float64Array | None:
    """p* of scores that are i.i.d. up to offsets: minus the offsets, or zero where all are alike (S2)."""
    if transform == "raw":
        centred: Float64Array = offsets.mean() - offsets
        return centred
    return np.zeros(offsets.size) if np.ptp(offsets) == 0.0 else None
