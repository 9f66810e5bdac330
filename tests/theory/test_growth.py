"""Verdicts on curves of known growth, realistic noise included, and on curves that are none of it."""

import math

import numpy as np
import pytest

from balancesim.errors import InputError
from balancesim.theory import fit_growth, sharp_slope

STEPS = np.unique(np.round(np.geomspace(1, 10_000, 64)).astype(np.int64))
N_EXPERTS, K, N_TOKENS, MU = 16, 2, 256, 0.13


def regret_curves(schedule, n_groups, seed, *, n_seeds=16, distance=0.0, steps=STEPS):
    """Realised regret of the linearised iteration around p*: (n_groups, n_seeds, R).

    Per direction that sums to zero: gradient mu d + xi with the variance that routing T tokens has, regret
    mu d^2/2 + xi d; so increments are noisy, correlated through d, and their noise accumulates.
    """
    rng = np.random.default_rng(seed)
    sigma = math.sqrt(K * (1 - K / N_EXPERTS) / (N_TOKENS * (N_EXPERTS - 1)))
    offset = np.full((n_groups * n_seeds, N_EXPERTS - 1), distance)
    total, curves = np.zeros(len(offset)), []
    for n in range(1, int(steps[-1]) + 1):
        noise = sigma * rng.standard_normal(offset.shape)
        total += (offset * (0.5 * MU * offset + noise)).sum(axis=1)
        offset -= schedule(n) * (MU * offset + noise)
        if n in steps:
            curves.append(total.copy())
    return np.stack(curves, axis=1).reshape(n_groups, n_seeds, len(steps))


def harmonic(multiple):
    return lambda n: multiple / (MU * n)


def verdicts(curves):
    return [fit_growth(STEPS, group).verdict for group in curves]


def test_harmonic_steps_are_logarithmic():
    # Seen in 100 groups each, at horizons 4,000 and 10,000: 98 % and more; 8 of 12 or fewer then has
    # probability 1e-5.
    curves = regret_curves(harmonic(1.0), 12, seed=1)
    assert verdicts(curves).count("logarithmic") >= 9
    fits = [fit_growth(STEPS, group) for group in curves]
    slope = sharp_slope(modulus=MU, k=K, n_experts=N_EXPERTS, n_tokens=N_TOKENS)
    assert sum(fit.slope.low <= slope <= fit.slope.high for fit in fits) >= 9
    assert sum(fit.exponent.low <= 0.0 <= fit.exponent.high for fit in fits) >= 9
    assert np.mean([fit.log_error < fit.power_error for fit in fits]) > 0.5


def test_three_times_the_step_is_logarithmic_after_a_wrong_start():
    curves = regret_curves(harmonic(3.0), 6, seed=2, distance=0.3)
    assert verdicts(curves).count("logarithmic") >= 4


@pytest.mark.parametrize(
    ("schedule", "exponent"),
    [(harmonic(0.3), 0.4), (lambda _: 0.5, 1.0), (lambda n: 1.0 / math.sqrt(n), 0.5)],
    ids=["short harmonic", "constant", "square root"],
)
@pytest.mark.parametrize("distance", [0.0, 0.3])
def test_negative_controls_are_powers(schedule, exponent, distance):
    fits = [fit_growth(STEPS, group) for group in regret_curves(schedule, 3, seed=3, distance=distance)]
    assert [fit.verdict for fit in fits] == ["power"] * 3
    # Transients bias the exponent: that of 1/sqrt(n) steps is 0.1 low when they start from afar.
    assert all(fit.exponent.value == pytest.approx(exponent, abs=0.13) for fit in fits)


def test_a_power_hidden_by_a_transient_is_not_logarithmic():
    steps = np.unique(np.round(np.geomspace(1, 4000, 64)).astype(np.int64))
    curves = regret_curves(lambda n: 1.0 / math.sqrt(n), 6, seed=4, distance=0.3, steps=steps)
    assert all(fit_growth(steps, group).verdict != "logarithmic" for group in curves)


@pytest.mark.parametrize("power", [0.2, 0.5, 1.0])
def test_exact_powers(power):
    curves = 3.0 + np.arange(1, 9)[:, None] * STEPS**power
    fit = fit_growth(STEPS, curves)
    assert fit.verdict == "power"
    # The grid of exponents has the spacing 0.01 and a parabola through three of its points.
    assert fit.exponent.value == pytest.approx(power, abs=1e-3)
    assert fit_growth(STEPS, curves - 3.0).plain_exponent.value == pytest.approx(power, abs=1e-3)


def test_exact_logarithm():
    curves = 2.0 + np.linspace(0.9, 1.1, 8)[:, None] * np.log(STEPS)
    fit = fit_growth(STEPS, curves)
    assert fit.verdict == "logarithmic"
    assert fit.slope.value == pytest.approx(1.0, rel=1e-12)
    assert fit.intercept == pytest.approx(2.0, rel=1e-10)
    assert fit.exponent.value == pytest.approx(0.0, abs=1e-6)
    assert 0.05 < fit.plain_exponent.value < 0.2
    assert fit.log_error < 1e-12 < fit.power_error
    assert (fit.first_step, fit.last_step, fit.n_curves) == (STEPS[STEPS >= 100][0], 10_000, 8)
    assert 100 ** (5 / 3) * 0.85 < fit.held_out_step <= 100 ** (5 / 3)


@pytest.mark.parametrize(
    ("curve", "verdict"),
    [
        (0.0 * STEPS, "bounded"),
        (5.0 + 0.0 * STEPS, "bounded"),
        (-0.3 * np.log(STEPS), "bounded"),
        (-2.0 * STEPS, "bounded"),
        (4.0 - STEPS**-0.5, "bounded"),
        (1e300 * STEPS**0.5, "power"),
        (1e-300 * STEPS**0.5, "power"),
    ],
    ids=["zero", "constant", "falling", "negative", "levelling off", "huge", "tiny"],
)
def test_curves_of_every_kind_have_a_verdict(curve, verdict):
    differs = 1e-9 if np.ptp(curve) else 0.0
    fit = fit_growth(STEPS, np.stack([curve * (1.0 + differs * seed) for seed in range(4)]))
    assert fit.verdict == verdict
    assert fit.slope.low <= fit.slope.value <= fit.slope.high


def test_noise_alone_is_inconclusive():
    walks = np.random.default_rng(5).normal(size=(16, STEPS.size)).cumsum(axis=1)
    assert fit_growth(STEPS, walks - walks.mean(axis=0)).verdict in ("inconclusive", "bounded")


@pytest.mark.parametrize("n_curves", [1, 2, 3])
def test_few_curves_are_inconclusive(n_curves):
    fit = fit_growth(STEPS, np.stack([np.log(STEPS)] * n_curves))
    assert fit.verdict == "inconclusive"
    assert "curve(s)" in fit.reason
    if n_curves == 1:
        assert fit.exponent.low == -math.inf
        assert fit.exponent.high == math.inf
        assert fit == fit_growth(STEPS, np.log(STEPS))


@pytest.mark.parametrize("n_records", [1, 2, 3, 4, 5, 9])
def test_few_records_are_inconclusive(n_records):
    steps = np.arange(1, n_records + 1)
    fit = fit_growth(steps, np.random.default_rng(6).normal(size=(8, n_records)).cumsum(axis=1))
    assert fit.verdict == "inconclusive"


def test_deterministic_and_seeded():
    curves = regret_curves(harmonic(1.0), 1, seed=7, steps=STEPS[:40])[0]
    assert fit_growth(STEPS[:40], curves) == fit_growth(STEPS[:40], curves)
    assert fit_growth(STEPS[:40], curves).slope.low != fit_growth(STEPS[:40], curves, seed=1).slope.low


def test_wider_confidence_wider_interval():
    curves = regret_curves(harmonic(1.0), 1, seed=8, steps=STEPS[:40])[0]
    narrow, wide = (fit_growth(STEPS[:40], curves, confidence=c).slope for c in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


@pytest.mark.parametrize(
    ("steps", "regret", "options", "message"),
    [
        (STEPS, np.zeros((4, 3)), {}, "`regret` must have shape"),
        (STEPS, np.zeros((0, STEPS.size)), {}, "`regret` must have shape"),
        (STEPS, np.where(STEPS > 50, math.nan, 0.0), {}, "`regret` must be finite"),
        (STEPS, np.where(STEPS > 50, math.inf, 0.0), {}, "leave out"),
        (STEPS[::-1], np.zeros(STEPS.size), {}, "`steps`"),
        (STEPS - 1, np.zeros(STEPS.size), {}, "`steps`"),
        (STEPS.astype(float), np.zeros(STEPS.size), {}, "`steps`"),
        (np.zeros(0, np.int64), np.zeros(0), {}, "`steps`"),
        (STEPS, np.zeros(STEPS.size), {"confidence": 1.0}, "`confidence`"),
        (STEPS, np.zeros(STEPS.size), {"confidence": math.nan}, "`confidence`"),
        (STEPS, np.zeros(STEPS.size), {"n_bootstrap": 10}, "`n_bootstrap`"),
    ],
)
def test_bad_arguments(steps, regret, options, message):
    with pytest.raises(InputError, match=message):
        fit_growth(steps, regret, **options)


def test_curves_that_repeat_each_other_are_one_observation():
    steps = np.unique(np.geomspace(1, 10_000, 64).astype(int))
    fit = fit_growth(steps, np.tile(np.log(steps), (16, 1)))
    assert fit.verdict == "inconclusive"
    assert "1 different curve" in fit.reason
