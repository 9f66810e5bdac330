"""The box of shapes that kernels are tested over, scores of every kind in it, and the twin that sorts.

E = 2..130 crosses the groups of eight rows, the words of 64 bits and their tails; K = 1..E-1 the widths
1, 2, 4 and 8 of the running top-K and its chunks of eight; T = 1..300 tiles of 128 tokens, blocks of eight.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from balancesim.kernels.model import LANES, n_rows
from tests.conftest import INTERPRETED

MAX_EXPERTS, MAX_TOKENS = 130, 300
EXPERTS = (2, 3, 9, 17) if INTERPRETED else range(2, MAX_EXPERTS + 1)
DTYPES = (np.float32, np.float64)
KINDS = ("continuous", "ties", "masked", "huge", "magnitudes", "denormal", "near", "zeros")
"""What scores are made of; see `scores_of`."""

POISONS = (0xFF, 0x7F)
"""Bytes of poison: floats of 0xff are NaN and integers -1, floats of 0x7f are larger than any score."""

_RANKS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17)
_BORDERS = (1, 9) if INTERPRETED else (1, 127, 128, 129, 255, 256, 257, 300)
_STRIDE = 17  # with as many turns as the default design has, every T is met
_M_PERTURB = -6


def ranks(n_experts: int) -> list[int]:
    """The Ks of the default design: around every width of the running top-K, and the largest."""
    return sorted({k for k in (*_RANKS, n_experts - 1) if k < n_experts})


def tokens(index: int, most: int = MAX_TOKENS) -> int:
    """The T of a case: by turns a border of tiles and any other, until all were taken."""
    turn, odd = divmod(index, 2)
    borders = [n for n in _BORDERS if n <= most]
    if odd and not INTERPRETED:
        return 1 + _STRIDE * turn % most
    return borders[turn % len(borders)]


def scores_of(kind: str, rng: Any, n_tokens: int, n_experts: int, dtype: Any) -> tuple[Any, Any]:
    """Scores and a bias of one kind.

    "continuous"; "ties" and "masked", in quarters; "huge", within a few roundings of 1e38 or 1e300 of either
    sign; "magnitudes", of every order that the dtype has; "denormal", a few multiples of its least number;
    "near", normal numbers whose differences are denormal; "zeros", of either sign.
    """
    shape, limits = (n_tokens, n_experts), np.finfo(dtype)
    bias = rng.integers(-4, 5, n_experts) / 4
    if kind == "continuous":
        scores, bias = rng.standard_normal(shape), rng.standard_normal(n_experts)
    elif kind in ("ties", "masked"):
        # All tied, or a few levels, or many.
        levels = int(rng.choice([0, 1, 6]))
        scores = rng.integers(-levels, levels + 1, shape) / 4
        bias = bias * (levels > 0)
    elif kind == "huge":
        large = 1e38 if dtype == np.float32 else 1e300
        scores = rng.choice([-large, large], shape) * (1 + limits.eps * rng.integers(0, 4, shape))
        bias = rng.choice([-large, 0.0, large], n_experts)
    elif kind == "magnitudes":
        low, high = np.log10([limits.smallest_subnormal, limits.max])
        scores = rng.choice([-1.0, 1.0], shape) * 10 ** rng.uniform(low + 1, high - 6, shape)
        bias = rng.choice([-1.0, 1.0], n_experts) * 10 ** rng.uniform(low + 1, high - 6, n_experts)
    elif kind == "denormal":
        least = float(limits.smallest_subnormal)
        scores, bias = rng.integers(-8, 9, shape) * least, rng.integers(-8, 9, n_experts) * least
    elif kind == "near":
        scores = float(limits.tiny) * (1 + float(limits.eps) * rng.integers(-6, 7, shape))
        bias = float(limits.smallest_subnormal) * rng.integers(-2, 3, n_experts)
    else:
        scores, bias = rng.choice([-1.0, -0.0, 0.0, 0.0, 1.0], shape), rng.choice([-0.0, 0.0], n_experts)
    return scores.astype(dtype), np.asarray(bias).astype(dtype)


def masked(rng: Any, scores: Any, k: int) -> Any:
    """The scores with masks: a third of the tokens keep K experts, the others any number from K on."""
    n_tokens, n_experts = scores.shape
    kept = np.where(rng.random(n_tokens) < 1 / 3, k, rng.integers(k, n_experts + 1, n_tokens))
    place = np.argsort(rng.random(scores.shape), axis=1)
    return np.where(place < kept[:, None], scores, scores.dtype.type(-np.inf))


class Sorted(NamedTuple):
    """Scores, a bias of their dtype, and each token's experts by (biased score, lower index).

    ``order`` (T, E) lists the experts, ``place`` is where each of them is in that list, ``ranked`` their
    biased scores, descending.
    """

    scores: Any
    bias: Any
    biased: Any
    order: Any
    place: Any
    ranked: Any

    def chosen(self, k: int) -> Any:
        """Whether each expert is one of a token's K, (T, E) bool."""
        return self.place < k

    def values(self, k: int) -> Any:
        """Each tile's value, added as kernels do: a token's ranks descending, then tokens by halves."""
        n_tiles = -(-len(self.ranked) // LANES)
        sums = np.zeros(n_tiles * LANES)
        sums[: len(self.ranked)] = np.add.accumulate(self.ranked[:, :k].astype(np.float64), axis=1)[:, -1]
        return by_halves(sums.reshape(n_tiles, LANES))


def by_halves(rows: Any) -> Any:
    """Each row's sum, the first half added to the second until one number is left; (n, 2**j)."""
    while rows.shape[1] > 1:
        half = rows.shape[1] // 2
        rows = rows[:, :half] + rows[:, half:]
    return rows[:, 0]


def sort(scores: Any, bias: Any) -> Sorted:
    """Sort every token's experts."""
    biased = scores + bias
    order = np.argsort(-biased, axis=1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(scores.shape[1])[None, :], axis=1)
    return Sorted(scores, bias, biased, order, place, np.take_along_axis(biased, order, axis=1))


class Case(NamedTuple):
    """One point of the box; ``name`` says which."""

    name: str
    k: int
    twin: Sorted


def cases(kind: str, dtype: Any = None, most: int = MAX_TOKENS) -> Iterator[Case]:
    """Every E with its Ks, on poisoned memory; T as the design has it, dtypes by turns or the one named."""
    for n_experts in EXPERTS:
        # An odd stride: borders meet odd E of one kind and even E of the next.
        index = n_experts + (MAX_EXPERTS + 1) * KINDS.index(kind)
        yield from at(kind, dtype, n_experts, tokens(index, most), ranks(n_experts), index // 16)


def lines(kind: str, dtype: Any = None, most: int = MAX_TOKENS) -> Iterator[Case]:
    """Every E with every K, each with a T of its own: as they come, every other one at a border."""
    index = KINDS.index(kind)
    for n_experts in EXPERTS:
        for k in range(1, n_experts):
            index += 1
            yield from at(kind, dtype, n_experts, tokens(index, most), [k], index // 16)


def at(kind: str, dtype: Any, n_experts: int, n_tokens: int, ks: Any, turn: int) -> Iterator[Case]:
    """The cases of one E and T, sorted once for all Ks unless masks depend on K; the turn says the rest."""
    dtype = dtype or DTYPES[turn % 2]
    rng = np.random.default_rng([n_experts, n_tokens, KINDS.index(kind), DTYPES.index(dtype)])
    scores, bias = scores_of(kind, rng, n_tokens, n_experts, dtype)
    twin = sort(scores, bias)
    for k in ks:
        if kind == "masked":
            twin = sort(masked(rng, scores, k), bias)
        with poisoned(POISONS[turn // 2 % 2]):
            yield Case(f"{kind} {np.dtype(dtype)} T={n_tokens} E={n_experts} K={k}", k, twin)


def tile_of(scores: Any) -> Any:
    """One tile, experts along rows; lanes without a token are NaN."""
    n_tokens, n_experts = scores.shape
    tile = np.full((n_rows(n_experts), LANES), np.nan, scores.dtype)
    tile[:, :n_tokens] = -np.inf
    tile[:n_experts, :n_tokens] = scores.T
    return tile


def words_of(marks: Any) -> Any:
    """Bits (T, words) of marks (T, E), the lowest first."""
    n_tokens, n_experts = marks.shape
    padded = np.zeros((n_tokens, -(-n_experts // 64) * 64), np.bool_)
    padded[:, :n_experts] = marks
    return np.packbits(padded, axis=1, bitorder="little").view("<u8")


@contextmanager
def poisoned(byte: int) -> Iterator[bool]:
    """Fill what is allocated meanwhile, kernels' scratch too, with a byte: where malloc is glibc's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield False
        return
    # Memory gets the complement, modulo 256, of the number that is set; 0 would turn it off.
    mallopt(_M_PERTURB, (byte ^ 0xFF) or 0x100)
    try:
        yield True
    finally:
        mallopt(_M_PERTURB, 0)
