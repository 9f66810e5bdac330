"""Calibrating scores to recorded loads: the balancing dual with the recorded loads as targets."""

import dataclasses
import math
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from balancesim.errors import InputError
from balancesim.numbers import check_int
from balancesim.problem import check_sizes
from balancesim.routing import route
from balancesim.sources.base import Source
from balancesim.types import Float64Array, IntArray

CALIBRATION_SEED = 2**63 - 2
"""Seed of the draws that offsets are found on: one that no run is likely to use, the same for all."""

CHECK_SEED = 2**63 - 3
"""Seed of the draws that offsets are checked on."""

_SAMPLES_OF_RECORDED = 4
_TOKENS_AT_LEAST = 1 << 16
_SOLVED_AT_MOST = 1 << 24
_CHECKED_AT_MOST = 1 << 26
_CHUNK = 8192

SourceT = TypeVar("SourceT", bound=Source)


class LoadError(NamedTuple):
    """How far a source's loads are from recorded ones; loads are shares of the tokens, summing to K.

    Attributes
    ----------
    recorded, found : (E,) ndarray of float64
        Share of the tokens that each expert gets in the recording, and in the source's own draws.
    noise : (E,) ndarray of float64
        Standard deviation of a recorded share q: sqrt(q (1 - q) / N), but at least 1 / N.
    n_recorded : int
        N, the tokens that the noise is stated for.
    rms : float
        Root mean square over the experts of the error in units of its noise.
    largest : float
        Largest absolute error in units of its noise.
    typical_largest : float
        Median of ``largest`` if the E errors were independent normals of the same ``rms``.
    """

    recorded: Float64Array
    found: Float64Array
    noise: Float64Array
    n_recorded: int
    rms: float
    largest: float
    typical_largest: float


def calibrated(
    source: SourceT, loads: ArrayLike, *, k: int, n_tokens: int | None = None, seed: int = CALIBRATION_SEED
) -> SourceT:
    """Give a source the offsets with which its unbalanced loads are the recorded ones.

    Draws a sample from the source without its offsets and solves the exact assignment problem with the
    recorded loads as capacity: the optimal bias is the offsets.

    Parameters
    ----------
    source : Source
        A family that takes ``offsets``; those it has are replaced. Its transform does not matter: sigmoid and
        softmax keep each token's order of experts.
    loads : (E,) array_like
        Recorded tokens per expert, or any multiple of them, such as shares.
    k : int
        Experts per token in the recording.
    n_tokens : int, optional
        Tokens of the sample. By default four times the recorded ones (2^16 at least), as far as the sample
        has no more than 2^24 scores.
    seed : int, optional
        Seed of the sample. Not the source's own: its offsets are the same whatever its seed.

    Returns
    -------
    Source
        The same source with ``offsets`` of zero mean.

    Raises
    ------
    InputError
        If the source takes no offsets or changes over time, or the loads are not possible with k experts a
        token; the message names the expert.

    Notes
    -----
    The offsets have sampling noise themselves: on new draws, loads differ from the recorded ones by what two
    samples of ``n_tokens`` and of the new draws differ by (`calibration_error`). Targets are whole tokens, at
    least one and at most all but one of the sample: the offset of an expert without a recorded token would
    be minus infinity, so it is calibrated to one token of the sample.
    """
    share = token_shares(loads, source.n_experts, k)
    size = default_sample(loads, k) if n_tokens is None else n_tokens
    least = math.ceil(source.n_experts / min(k, source.n_experts - k))
    if check_int("n_tokens", size, 1) < least:
        raise InputError(
            f"`n_tokens` must be at least {least}, so that every expert can get a token of the sample and "
            f"miss one, got {size}"
        )
    offsets = _offsets(_bare(source).with_seed(seed), _targets(share, size, k), k)
    return _replaced(source, {"offsets": tuple(offsets.tolist())})


def calibration_error(
    source: Source,
    loads: ArrayLike,
    *,
    k: int,
    n_recorded: int | None = None,
    n_tokens: int | None = None,
    seed: int = CHECK_SEED,
) -> LoadError:
    """Compare a source's unbalanced loads, on new draws, with recorded ones.

    Parameters
    ----------
    source : Source
        Any source, calibrated or not.
    loads : (E,) array_like
        Recorded tokens per expert, or any multiple of them.
    k : int
        Experts per token in the recording.
    n_recorded : int, optional
        Recorded tokens, which the noise is stated for. By default the sum of the loads over k where they are
        whole numbers, else 2^16.
    n_tokens : int, optional
        Tokens to draw. By default four times ``n_recorded`` (2^16 at least), but no more than 2^26 scores.
    seed : int, optional
        Seed of the draws.

    Returns
    -------
    LoadError
        Errors of the experts' shares in units of the recording's own sampling noise.

    Notes
    -----
    The noise is that of independent tokens, the least there can be. A source whose expected loads were the
    recorded ones would show an ``rms`` of sqrt(n_recorded / n_tokens) from the new draws alone; one that was
    calibrated on M tokens shows sqrt(n_recorded / M + n_recorded / n_tokens).
    """
    share = token_shares(loads, source.n_experts, k)
    known = recorded_tokens(loads, k) or _TOKENS_AT_LEAST
    n = check_int("n_recorded", known if n_recorded is None else n_recorded, 1)
    wanted = min(max(_SAMPLES_OF_RECORDED * n, _TOKENS_AT_LEAST), _CHECKED_AT_MOST // source.n_experts)
    size = check_int("n_tokens", wanted if n_tokens is None else n_tokens, 1)
    fresh = source.with_seed(seed)
    counts: IntArray = np.zeros(source.n_experts, np.int64)
    for step, first in enumerate(range(0, size, _CHUNK)):
        counts += route(fresh.batch(step, min(_CHUNK, size - first)), k=k).loads
    found: Float64Array = counts / size
    noise: Float64Array = np.maximum(np.sqrt(share * (1.0 - share) / n), 1.0 / n)
    error = (found - share) / noise
    rms = float(np.sqrt(np.mean(error**2)))
    largest = float(np.abs(error).max())
    return LoadError(share, found, noise, n, rms, largest, rms * _median_largest(error.size))


def token_shares(loads: ArrayLike, n_experts: int, k: int) -> Float64Array:
    """Return the share of the tokens that each expert gets; they sum to K and none exceeds 1.

    Parameters
    ----------
    loads : (E,) array_like
        Recorded loads.
    n_experts, k : int
        Experts, and experts per token.

    Returns
    -------
    (E,) ndarray of float64
        k times the expert's share of all assignments.

    Raises
    ------
    InputError
        If the loads are not such numbers; the message names the expert.
    """
    check_sizes(n_experts, k)
    try:
        array = np.asarray(loads, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"`loads` must be numbers, one per expert, got {loads!r}") from None
    if array.shape != (n_experts,):
        raise InputError(
            f"`loads` must have one entry per expert of the source, ({n_experts},), got {array.shape}"
        )
    wrong = np.flatnonzero(~np.isfinite(array) | (array < 0.0))
    if wrong.size:
        raise InputError(
            f"`loads` must be finite and not negative, got {array[wrong[0]]:g} at expert {wrong[0]}"
        )
    total = float(array.sum())
    if total == 0.0:
        raise InputError("`loads` must hold at least one token, got all zeros")
    share = array * (k / total)
    expert = int(share.argmax())
    if share[expert] > 1.0 + 1e-9:
        most = int(total / array[expert])
        way_out = f"give k <= {most}, or loads of" if most else "give loads of"
        raise InputError(
            f"`loads` give expert {expert} a share of {array[expert] / total:.4g} of all assignments, but it "
            f"can have at most one of a token's k = {k} places, 1/k: {way_out} all experts"
        )
    return np.minimum(share, 1.0)


def default_sample(loads: ArrayLike, k: int) -> int:
    """Return the tokens that `calibrated` draws by default.

    Parameters
    ----------
    loads : (E,) array_like
        Recorded loads.
    k : int
        Experts per token.

    Returns
    -------
    int
        Four times the recorded tokens, at least 2^16, as far as they have no more than 2^24 scores.
    """
    n_experts = np.size(loads)
    wanted = _SAMPLES_OF_RECORDED * (recorded_tokens(loads, k) or 0)
    return min(max(wanted, _TOKENS_AT_LEAST), max(_SOLVED_AT_MOST // n_experts, 2 * n_experts))


def recorded_tokens(loads: ArrayLike, k: int) -> int | None:
    """Return the tokens that recorded counts are of, or None where the loads are no counts.

    Parameters
    ----------
    loads : (E,) array_like
        Recorded loads.
    k : int
        Experts per token.

    Returns
    -------
    int or None
        The sum over k, rounded, if all loads are whole numbers and there is a token.
    """
    array = np.asarray(loads, np.float64)
    whole = bool((array == np.round(array)).all())
    return round(float(array.sum()) / k) or None if whole else None


def _bare(source: Source) -> Source:
    """The source without offsets and transform."""
    fields = getattr(source, "__dataclass_fields__", {})
    if "offsets" not in fields:
        raise InputError(
            f"`source` must take `offsets` to be calibrated, which {source.describe()} does not; "
            "take a family such as Normal"
        )
    model = source.kernel_model()
    if model is not None and (model.phase_start.size > 1 or model.walk_rate > 0.0):
        raise InputError(
            f"`source` must draw from one distribution at every step, but {source.describe()} moves; "
            "calibrate it without its switch or walk"
        )
    return _replaced(source, {"offsets": None} | ({"transform": "raw"} if "transform" in fields else {}))


def _replaced(source: SourceT, values: dict[str, Any]) -> SourceT:
    a_dataclass: Any = source
    replaced: SourceT = dataclasses.replace(a_dataclass, **values)
    return replaced


def _targets(share: Float64Array, n_tokens: int, k: int) -> IntArray:
    """Whole tokens by largest remainder, each expert's between 1 and T - 1; they sum to T K."""
    ideal = share * n_tokens
    targets: IntArray = np.clip(np.floor(ideal), 1, n_tokens - 1).astype(np.int64)
    while left := n_tokens * k - int(targets.sum()):
        step = 1 if left > 0 else -1
        movable = targets < n_tokens - 1 if step > 0 else targets > 1
        order = np.argsort(np.where(movable, (targets - ideal) * step, np.inf), kind="stable")
        targets[order[: min(abs(left), int(movable.sum()))]] += step
    return targets


def _offsets(source: Source, targets: IntArray, k: int) -> Float64Array:
    from balancesim.exact import SolveOutcome, solve

    n_tokens = int(targets.sum()) // k
    solution = solve(source.batch(0, n_tokens).astype(np.float64), k=k, capacity=targets)
    if solution.bias is None or solution.status.outcome is not SolveOutcome.OPTIMAL:
        raise InputError(f"no `offsets` of {source.describe()} give these loads: {solution.status.reason}")
    return solution.bias


def _median_largest(n: int) -> float:
    from scipy import special

    return float(special.ndtri((1.0 + 0.5 ** (1.0 / n)) / 2.0))
