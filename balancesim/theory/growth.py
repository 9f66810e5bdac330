"""Does a regret curve grow like a logarithm or like a power? Fits with intervals, and a verdict (S6).

The family A + c (N^beta - 1)/beta holds both answers: beta = 0 is A + c ln N, beta > 0 a power, beta < 0 a
curve that levels off. The constant A takes up the cost of the first steps, which would otherwise bend c
N^beta (a constant plus a power looks like a smaller power, and a logarithm looks like the power 1/ln N). So
the verdict rests on the interval of beta in this family. The two-parameter forms of S6 are fitted beside it
and compared on held-out horizons.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from balancesim.errors import InputError
from balancesim.numbers import check_int
from balancesim.types import Estimate, Float64Array

Verdict = Literal["logarithmic", "power", "bounded", "inconclusive"]

# "logarithmic" must exclude this power: sqrt(N), constant steps (N) and S8's N^0.4 at c = 0.3 lie above it.
_EXCLUDED_POWER = 0.3
# Transients leave curves of a few thousand steps with exponents up to about this size.
_TRANSIENT = 0.05
_MIN_CURVES = 4
_MIN_RECORDS = 8
_EXPONENTS = np.linspace(-2.0, 2.0, 401)


@dataclass(frozen=True)
class GrowthFit:
    """How regret grows with the number of steps N.

    Attributes
    ----------
    slope : Estimate
        b of a + b ln N over the late part, score units per token.
    exponent : Estimate
        beta of A + c (N^beta - 1)/beta over the late part: 0 is a logarithm. Within [-2, 2].
    plain_exponent : Estimate
        beta of c N^beta, without a constant, over the late part. Positive for a logarithm too, near 1/ln N.
    intercept : float
        a of a + b ln N, for drawing the fitted line.
    verdict : {"logarithmic", "power", "bounded", "inconclusive"}
    reason : str
        One sentence with the numbers behind the verdict.
    first_step, held_out_step, last_step : int
        The late part runs from the first to the last of these; predictions for the steps after
        ``held_out_step`` are made from the steps up to it.
    log_error, power_error : float
        Root mean square error of the held-out predictions of a + b ln N and of c N^beta, mean curve.
    log_better : float
        Share of the bootstrap samples in which a + b ln N predicts better.
    n_curves : int
    """

    slope: Estimate
    exponent: Estimate
    plain_exponent: Estimate
    intercept: float
    verdict: Verdict
    reason: str
    first_step: int
    held_out_step: int
    last_step: int
    log_error: float
    power_error: float
    log_better: float
    n_curves: int


def fit_growth(
    steps: ArrayLike, regret: ArrayLike, *, n_bootstrap: int = 1000, confidence: float = 0.95, seed: int = 0
) -> GrowthFit:
    """Tell logarithmic growth from powers, with intervals over seeds.

    Parameters
    ----------
    steps : (R,) array of int
        Rising step numbers >= 1, log-spaced by preference.
    regret : (R,) or (n_seeds, R) array
        Cumulative regret at these steps, finite, score units per token; one curve a seed.
    n_bootstrap : int
        Bootstrap samples of whole curves, at least 100.
    confidence : float
        Of every interval, in (0, 1).
    seed : int
        Of the bootstrap.

    Returns
    -------
    GrowthFit

    Raises
    ------
    InputError
        If shapes do not match, steps do not rise, or a regret is not finite.

    Notes
    -----
    The late part are the records from the square root of the last step on (the upper half of the
    logarithmic axis); its upper third is held out for the comparison of predictions, and counts in the fits
    that are reported. All fits are least squares on the mean curve. Realised regret carries noise that
    accumulates, so the records of a curve are not independent: whole curves are resampled, and the
    percentiles are widened as Student's t widens the normal (Hesterberg 2015, "What teachers should know
    about the bootstrap"), which matters for few curves.

    Verdicts, in this order. Fewer than 4 curves or fewer than 8 late records: "inconclusive". An interval
    of b that does not lie above zero: "bounded" if it lies at or below zero, else "inconclusive". An
    interval of beta above 0.05: "power". A late upturn (the interval of the residual's cubic part lies
    above zero): "inconclusive", as a dying transient may hide a power. An interval of beta below -0.05:
    "bounded" (the growth dies out); meeting [-0.05, 0.05] and below 0.3: "logarithmic"; else
    "inconclusive". So "logarithmic" means that the powers the theory offers as alternatives are excluded,
    not that a small power such as N^0.05 is: transients bend curves by as much. The errors of prediction
    are reported and do not decide: c N^beta with a small exponent and a large c is a constant plus a
    logarithm, and then noise picks the better of the two.

    Seen on simulated curves (E=16, K=2, T=256, horizons 4,000 and 10,000, 80 groups of curves each): steps
    1/(mu n) are called logarithmic in 98 % of the groups with 16 curves, 96 % with 8, 71 % with 4; 3/(mu n)
    in 93 % with 16. Steps 0.3/(mu n), constant, and 1/sqrt(n) from a wrong start are never called so;
    0.4/(mu n), which grows like N^0.2, in 0, 1 and 3 groups of 80 with 16, 8 and 4 curves.

    Source: theory.md S6; the family with a constant is ours. The cost is that of a product of (n_bootstrap,
    R) and (R, 401) matrices.
    """
    numbers, curves = _checked(steps, regret)
    n_samples = check_int("n_bootstrap", n_bootstrap, 100)
    if not 0.0 < confidence < 1.0:
        raise InputError(f"`confidence` must lie between 0 and 1, got {confidence!r}")
    first = int(np.searchsorted(numbers, np.sqrt(numbers[-1])))
    late, curves = numbers[first:], curves[:, first:]
    n_curves = len(curves)
    samples = curves.mean(axis=0)[None]
    if n_curves > 1:
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(n_curves, np.full(n_curves, 1.0 / n_curves), size=n_samples)
        samples = np.concatenate([samples, counts @ curves / n_curves])
    # Regrets of any size: squares neither overflow nor vanish after division by the largest.
    unit = float(np.abs(samples).max()) or 1.0
    samples = samples / unit
    logs = np.log(late / late[0])
    slopes, intercepts = _line(logs, samples)
    exponents, upturns = _bent_fits(logs, samples)
    plain = _plain_exponents(logs, samples)
    held_out = max(1, int(np.searchsorted(logs, logs[-1] * 2.0 / 3.0, side="right")))
    log_errors, power_errors = _held_out_errors(logs, samples, held_out)
    estimates = [
        _estimate(values * size, n_curves, confidence)
        for values, size in ((slopes, unit), (exponents, 1.0), (plain, 1.0), (upturns, unit))
    ]
    log_better = float(np.mean(log_errors <= power_errors))
    slope, exponent, plain_exponent, upturn = estimates
    turns_up = upturn.low > 1e-12 * unit
    # Curves that repeat each other, as of a recording that is replayed, are one observation.
    n_distinct = len(np.unique(curves, axis=0)) if np.ptp(curves, axis=1).any() else n_curves
    verdict, reason = _verdict(slope, exponent, n_distinct, late.size, turns_up)
    return GrowthFit(
        slope=slope,
        exponent=exponent,
        plain_exponent=plain_exponent,
        intercept=float(unit * (intercepts[0] - slopes[0] * np.log(late[0]))),
        verdict=verdict,
        reason=reason,
        first_step=int(late[0]),
        held_out_step=int(late[held_out - 1]),
        last_step=int(late[-1]),
        log_error=float(unit * log_errors[0]),
        power_error=float(unit * power_errors[0]),
        log_better=log_better,
        n_curves=n_curves,
    )


def _checked(steps: ArrayLike, regret: ArrayLike) -> tuple[Float64Array, Float64Array]:
    numbers = np.asarray(steps)
    if numbers.ndim != 1 or numbers.size == 0 or numbers.dtype.kind not in "iu":
        raise InputError(f"`steps` must be (R,) integers, got shape {numbers.shape}, dtype {numbers.dtype}")
    if numbers[0] < 1 or (np.diff(numbers.astype(np.int64)) <= 0).any():
        raise InputError("`steps` must start at 1 or later and rise")
    curves = np.atleast_2d(np.asarray(regret, dtype=np.float64))
    if curves.ndim != 2 or curves.shape[0] == 0 or curves.shape[1] != numbers.size:
        raise InputError(
            f"`regret` must have shape ({numbers.size},) or (n_seeds, {numbers.size}), got {np.shape(regret)}"
        )
    if not np.isfinite(curves).all():
        curve, record = (int(i) for i in np.argwhere(~np.isfinite(curves))[0])
        raise InputError(
            f"`regret` must be finite, got {curves[curve, record]} in curve {curve} at step "
            f"{numbers[record]}; leave out runs that ended early"
        )
    return numbers.astype(np.float64), curves


def _line(logs: Float64Array, samples: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Slope and intercept of every row on ``logs``; slope zero where there is one record."""
    centred = logs - logs.mean()
    squares = float(centred @ centred)
    slopes = samples @ centred / squares if squares > 0.0 else np.zeros(len(samples))
    return slopes, samples.mean(axis=1) - slopes * logs.mean()


def _powers(logs: Float64Array) -> Float64Array:
    """N**beta for every exponent of the grid, (n_exponents, R), scaled so that the largest entry is 1."""
    reference = np.where(_EXPONENTS[:, None] > 0.0, logs[-1], 0.0)
    return np.asarray(np.exp(_EXPONENTS[:, None] * (logs - reference)), dtype=np.float64)


def _bent_fits(logs: Float64Array, samples: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Least-squares beta of A + c (N^beta - 1)/beta, and the late upturn that this form leaves unexplained.

    The upturn is the residual's component along the cubic in ln N orthogonal to lower powers: above zero
    where the local slope falls, or stays, and then rises, as it does when a dying transient hides a growing
    power.
    """
    if logs.size < 5:
        return np.zeros(len(samples)), np.zeros(len(samples))
    basis = _powers(logs)
    basis[_EXPONENTS == 0.0] = logs
    basis = basis - basis.mean(axis=1, keepdims=True)
    centred = samples - samples.mean(axis=1, keepdims=True)
    exponents, direction = _best_exponents(basis, centred)
    cubic = np.linalg.qr(np.vander(logs, 4, increasing=True))[0][:, 3]
    cubic = cubic * np.sign(cubic[-1])
    explained = np.einsum("ij,ij->i", centred, direction)
    return exponents, centred @ cubic - explained * (direction @ cubic)


def _plain_exponents(logs: Float64Array, samples: Float64Array) -> Float64Array:
    """Least-squares beta of c N^beta."""
    if logs.size < 3:
        return np.zeros(len(samples))
    return _best_exponents(_powers(logs), samples)[0]


def _best_exponents(basis: Float64Array, samples: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Exponent whose basis vector explains most of each row (zero for a row of zeros), and that unit vector.

    The exponent is refined by a parabola through three points of the grid.
    """
    unit = basis / np.linalg.norm(basis, axis=1, keepdims=True)
    explained = (samples @ unit.T) ** 2
    best = np.clip(np.argmax(explained, axis=1), 1, _EXPONENTS.size - 2)
    rows = np.arange(len(samples))
    left, middle, right = (explained[rows, best + offset] for offset in (-1, 0, 1))
    bend = left - 2.0 * middle + right
    # At an end of the grid, or in a row without growth, there is no parabola.
    curved = (bend < 0.0) & (middle >= left) & (middle >= right)
    shift = np.where(curved, 0.5 * (left - right) / np.where(curved, bend, 1.0), 0.0)
    exponents = _EXPONENTS[best] + shift * (_EXPONENTS[1] - _EXPONENTS[0])
    # Samples are divided by their largest entry: what is left of a constant row is rounding.
    return np.where(explained.max(axis=1) <= 1e-24, 0.0, exponents), unit[best]


def _held_out_errors(
    logs: Float64Array, samples: Float64Array, split: int
) -> tuple[Float64Array, Float64Array]:
    """Root mean square errors after ``split`` of both two-parameter forms fitted before it."""
    early, later = samples[:, :split], samples[:, split:]
    if later.shape[1] == 0:
        return np.zeros(len(samples)), np.zeros(len(samples))
    slopes, intercepts = _line(logs[:split], early)
    line = intercepts[:, None] + slopes[:, None] * logs[split:]
    exponents = _plain_exponents(logs[:split], early)
    shape = np.exp(exponents[:, None] * (logs - logs[split - 1]))
    factors = (early * shape[:, :split]).sum(axis=1) / (shape[:, :split] ** 2).sum(axis=1)
    power = factors[:, None] * shape[:, split:]
    return _root_mean_square(line - later), _root_mean_square(power - later)


def _root_mean_square(errors: Float64Array) -> Float64Array:
    return np.asarray(np.sqrt(np.mean(errors**2, axis=1)), dtype=np.float64)


def _estimate(values: Float64Array, n_curves: int, confidence: float) -> Estimate:
    """Value from the mean curve (first entry), percentiles from the bootstrap samples (the others)."""
    value = float(values[0])
    if n_curves == 1:
        return Estimate(value, -np.inf, np.inf, "least squares, one curve: no interval")
    from scipy.special import ndtr, stdtrit

    tail = float(ndtr(np.sqrt(n_curves / (n_curves - 1)) * stdtrit(n_curves - 1, 0.5 - confidence / 2.0)))
    low, high = np.quantile(values[1:], [tail, 1.0 - tail])
    method = f"least squares, bootstrap over {n_curves} curves, {100 * confidence:g} % interval"
    return Estimate(value, min(value, float(low)), max(value, float(high)), method)


def _verdict(
    slope: Estimate, exponent: Estimate, n_curves: int, n_records: int, turns_up: bool
) -> tuple[Verdict, str]:
    if n_curves < _MIN_CURVES:
        return "inconclusive", f"{n_curves} different curve(s) are too few; {_MIN_CURVES} are needed"
    if n_records < _MIN_RECORDS:
        return "inconclusive", f"{n_records} late record(s) are too few; {_MIN_RECORDS} are needed"
    b = f"b in [{slope.low:.3g}, {slope.high:.3g}]"
    if slope.high <= 0.0:
        return "bounded", f"the regret does not grow over the late part: {b}"
    if slope.low <= 0.0:
        return "inconclusive", f"growth is not told from none: {b}"
    beta = f"exponent in [{exponent.low:.3g}, {exponent.high:.3g}]"
    if turns_up and exponent.low <= _TRANSIENT:
        return "inconclusive", f"{beta}, yet the local slope turns up late: a transient may hide a power"
    if exponent.high < -_TRANSIENT:
        return "bounded", f"the growth dies out over these steps: {beta}, below {-_TRANSIENT:g}"
    if exponent.low > _TRANSIENT:
        return "power", f"{beta}, above {_TRANSIENT:g}"
    if exponent.high >= _EXCLUDED_POWER:
        return "inconclusive", f"{beta}: neither 0 nor the power {_EXCLUDED_POWER:g} is excluded"
    return "logarithmic", f"{beta}, 0 within {_TRANSIENT:g} and below {_EXCLUDED_POWER:g}; {b}"
