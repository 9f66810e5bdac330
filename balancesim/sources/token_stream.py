"""Scores of a token stream whose routing statistics were recorded from a real model.

These are not router logits: tokens come by their recorded frequency, and a token's expected scores are the
logarithms of the recorded, smoothed P(expert | token id); noise of a stated family and scale is added.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from balancesim.errors import InputError, unknown_name
from balancesim.numbers import check_int, check_positive
from balancesim.sources.base import alias_table
from balancesim.sources.files import is_archive, read_npz
from balancesim.sources.structured import NoisySource
from balancesim.types import Float64Array, IntArray

if TYPE_CHECKING:
    from balancesim.kernels.model import ScoreModel

_DATA = Path(__file__).parent / "data" / "olmoe"
BUNDLED = {
    "olmoe-wikipedia": _DATA / "token_expert_counts_wikipedia.npz",
    "olmoe-arxiv": _DATA / "token_expert_counts_arxiv.npz",
}
"""Counts that come with the package (their origin and licence: sources/data/olmoe/README.md)."""

BUNDLED_EXPERTS = 64
_PARTS = ("token", "expert", "count")


class TokenCounts(NamedTuple):
    """How often each token id was sent to each expert.

    ``frequency`` (tokens,) float64: assignments per token id; ``counts`` (tokens, E) int64.
    """

    frequency: Float64Array
    counts: IntArray


def read_counts(name: str, layer: int, n_experts: int) -> TokenCounts:
    """Read one layer of a bundled set, or of an .npz file of the same form.

    Parameters
    ----------
    name : str
        A bundled name, or the path of an .npz with ``layer<n>_token``, ``_expert`` and ``_count``.
    layer : int
        The layer's number.
    n_experts : int
        Number of experts; those never recorded have count zero.

    Returns
    -------
    TokenCounts
        Dense counts of the token ids that occur.

    Raises
    ------
    InputError
        If the name, layer or file is unknown or damaged.
    """
    path = BUNDLED.get(name) or Path(name)
    if not path.is_file():
        raise InputError(
            f"`counts` must be an .npz file or a bundled name: {unknown_name('name', name, BUNDLED)}"
        )
    arrays = read_npz(path) if is_archive(path) else {}
    layers = sorted({key.split("_")[0].removeprefix("layer") for key in arrays if key.startswith("layer")})
    missing = [key for key in (f"layer{layer}_{part}" for part in _PARTS) if key not in arrays]
    if missing:
        raise InputError(
            f"`layer` must be one of those in {name!r} ({', '.join(layers) or 'none'}), got {layer}: "
            f"the file has no {', '.join(missing)}"
        )
    token, expert, count = (arrays[f"layer{layer}_{part}"].astype(np.int64) for part in _PARTS)
    if token.size == 0 or not token.shape == expert.shape == count.shape:
        raise InputError(
            f"`counts` file {str(path)!r} must hold three arrays of one length, got {token.shape}"
        )
    if count.min() < 0 or expert.min() < 0 or expert.max() >= n_experts:
        raise InputError(
            f"`counts` file {str(path)!r} has experts up to {expert.max()} and counts from {count.min()}; "
            f"expected experts below n_experts = {n_experts} and no negative count"
        )
    ids, row = np.unique(token, return_inverse=True)
    dense = np.zeros((ids.size, n_experts), np.int64)
    np.add.at(dense, (row, expert), count)
    return TokenCounts(dense.sum(axis=1).astype(np.float64), dense)


@dataclass(frozen=True, kw_only=True)
class TokenStream(NoisySource):
    """A stream of token ids with recorded routing statistics.

    scores = log((count + a) / (total + a E)) + scale z, for a token drawn by its recorded frequency.

    Parameters
    ----------
    counts : str, optional
        "olmoe-wikipedia", "olmoe-arxiv", or the path of an .npz file of the same form.
    layer : int, optional
        Layer of the recorded model; 0, 7 or 15 in the bundled sets.
    noise : str, optional
        Family of the noise, "gumbel" by default.
    scale : float, optional
        Scale of the noise in units of the log frequency, positive.
    pseudo_count : float, optional
        a: added to every count, so that an expert a token never went to has a finite score.
    switch_to : str, optional
        Counts of the domain that the stream switches to.
    switch_at : int, optional
        The step of the switch; needed with ``switch_to``.
    n_experts : int, optional
        64 for the bundled sets.
    seed : int, optional
        Key of all draws.
    offsets : (E,) sequence of float, "iqr" or None, optional
        Added to each expert's scores.
    transform : {"raw", "sigmoid", "softmax"}, optional
        What becomes of the sum.

    Notes
    -----
    The statistics are facts about a trained router's choices, not its logits: say so where results are shown.
    """

    name = "token-stream"
    n_experts: int = BUNDLED_EXPERTS
    counts: str = "olmoe-wikipedia"
    layer: int = 7
    noise: str = "gumbel"
    pseudo_count: float = 1.0
    switch_to: str | None = None
    switch_at: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("pseudo_count", self.pseudo_count)
        if (self.switch_to is None) != (self.switch_at is None):
            raise InputError(
                "`switch_to` and `switch_at` go together: the domain to switch to and the step of the switch"
            )
        if self.switch_at is not None:
            check_int("switch_at", self.switch_at, 1)
        _ = self._phases

    @property
    def _phases(self) -> list["_Phase"]:
        names = [self.counts] if self.switch_to is None else [self.counts, self.switch_to]
        return [_phase(name, self.layer, self.n_experts, self.pseudo_count) for name in names]

    def make_model(self) -> "ScoreModel":
        phases = self._phases
        starts = (0,) if self.switch_at is None else (0, self.switch_at)
        return self.build_model(
            self.noise_source.family,
            offsets=np.tile(self.expert_offsets(), (len(starts), 1)),
            phase_start=starts,
            table=np.concatenate([phase.table for phase in phases]),
            phase_row=np.cumsum([0] + [len(phase.table) for phase in phases]).tolist(),
            aliases=[phase.alias for phase in phases],
        )

    def describe(self) -> str:
        shift = "" if self.switch_to is None else f", then {self.switch_to}"
        return f"TokenStream ({self.counts} layer {self.layer}{shift}; statistics, not logits)"


class _Phase(NamedTuple):
    table: Float64Array
    alias: tuple[Float64Array, IntArray]


@lru_cache(maxsize=8)
def _phase(name: str, layer: int, n_experts: int, pseudo_count: float) -> _Phase:
    """Expected scores per token id, and how to draw ids; shared by all seeds of a stream."""
    frequency, counts = read_counts(name, layer, n_experts)
    smoothed = (counts + pseudo_count) / (frequency + pseudo_count * n_experts)[:, None]
    return _Phase(np.log(smoothed), alias_table(frequency))
