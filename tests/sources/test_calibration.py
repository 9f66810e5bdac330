"""Sources calibrated to recorded loads, and the check that they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import balancesim
from balancesim import sources
from balancesim.errors import InputError
from balancesim.sources.calibration import (
    CALIBRATION_SEED,
    _targets,
    calibrated,
    calibration_error,
    default_sample,
    recorded_tokens,
)
from balancesim.sources.loads import read_loads

RECORDED = read_loads("expert-loads")
FAMILIES = (
    lambda n: sources.Normal(n_experts=n),
    lambda n: sources.Gumbel(n_experts=n),
    lambda n: sources.Logistic(n_experts=n),
    lambda n: sources.StudentT(n_experts=n, degrees=3.0),
    lambda n: sources.Pareto(n_experts=n, tail_index=1.5),
)
SKEWED = np.array([900, 500, 300, 200, 60, 30, 8, 2])


def label(recording):
    return "-".join(recording.labels.values())


def recorded_k(recording):
    return {"olmoe": 8, "mixtral": 2}[recording.labels["model"]]


@pytest.mark.parametrize("recording", RECORDED, ids=label)
def test_every_recorded_layer_on_fewer_tokens(recording):
    # Calibrated on M tokens and checked on 4 n new ones, in units of the noise of n: the mean square over the
    # experts is (n / M + 1 / 4) / E times a chi-square of E - 1 degrees. Above 2 squared: for E = 64 (M = n)
    # with probability below 1e-12, for E = 8 (M = 4 n) below 1e-9.
    n, k, n_experts = 16_384, recorded_k(recording), recording.loads.size
    sample = n if n_experts == 64 else 4 * n
    source = calibrated(sources.Normal(n_experts=n_experts), recording.loads, k=k, n_tokens=sample)
    error = calibration_error(source, recording.loads, k=k, n_recorded=n)
    assert error.rms < 2.0
    assert error.found.sum() == pytest.approx(k)
    assert sum(source.offsets) == pytest.approx(0.0, abs=1e-9 * n_experts)


@pytest.mark.deep
@pytest.mark.parametrize("recording", RECORDED, ids=label)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family(2).describe())
def test_every_recorded_layer_and_family(recording, family):
    # The statement, at the defaults: noise of the 208,896 recorded tokens, M = 1.25 (E = 64) or 4
    # (E = 8) times as many. False alarms of all cases together: below 1e-6.
    k = recorded_k(recording)
    source = calibrated(family(recording.loads.size), recording.loads, k=k)
    error = calibration_error(source, recording.loads, k=k)
    print(f"{label(recording)} {source.describe()}: {error.rms:.2f}, largest {error.largest:.2f}")
    assert error.n_recorded == 208_896
    assert error.rms < 2.0
    # E normals of standard deviation 1.02 (E = 64) or 0.71 all within 6: fails with probability 3e-7.
    assert error.largest < 6.0


def test_what_is_not_calibrated_fails_the_same_statistic():
    # Five times the bar and more.
    one, other = read_loads("expert-loads", {"model": "olmoe", "domain": "c4"})[:2]
    plain = sources.Normal(n_experts=64)
    for source in (plain, sources.Normal(n_experts=64, offsets="iqr"), calibrated(plain, other.loads, k=8)):
        assert calibration_error(source, one.loads, k=8, n_recorded=16_384).rms > 10.0
    first, last = read_loads("expert-loads", {"model": "mixtral", "domain": "c4"})[::2]
    wrong = calibrated(sources.Normal(n_experts=8), last.loads, k=2, n_tokens=65_536)
    assert calibration_error(wrong, first.loads, k=2, n_recorded=208_896).rms > 10.0


@pytest.mark.parametrize(
    "source",
    [
        sources.Pareto(n_experts=8, tail_index=0.8, scale=3.0),
        sources.Normal(n_experts=8, offsets="iqr", seed=5),
        sources.Normal(n_experts=8, transform="sigmoid"),
        sources.Gumbel(n_experts=8, transform="softmax"),
        sources.Factor(n_experts=8, strength=0.9),
        sources.Clustered(n_experts=8, strength=0.8, n_clusters=200),
        sources.Drifting(n_experts=8, walk_rate=0.0),
        sources.FromScipy(stats.skewnorm(4.0), n_experts=8),
        sources.FromFunction(lambda u: u**2, n_experts=8),
    ],
    ids=lambda source: source.describe(),
)
def test_any_source_with_offsets(source):
    # Mean square (1 + 1/4) chi-square(7) / 8: above 9 with probability 1e-9. Tokens of 200 clusters are as
    # independent as others: each draws its own cluster.
    found = calibrated(source, SKEWED, k=2, n_tokens=16_384)
    assert type(found) is type(source)
    assert found.seed == source.seed
    assert calibration_error(found, SKEWED, k=2, n_recorded=16_384).rms < 3.0


def test_token_stream():
    loads = read_loads("expert-loads", {"model": "olmoe", "domain": "wikipedia", "layer": 7})[0].loads
    found = calibrated(sources.TokenStream(), loads, k=8, n_tokens=16_384)
    assert calibration_error(found, loads, k=8, n_recorded=16_384).rms < 2.0


def test_the_sample_is_routed_to_its_targets():
    source = sources.Normal(n_experts=8)
    offsets = np.array(calibrated(source, SKEWED, k=2, n_tokens=2000).offsets)
    sample = source.with_seed(CALIBRATION_SEED).batch(0, 2000).astype(np.float64)
    loads = balancesim.route(sample, offsets, k=2).loads
    # At an optimal price, at most E - 1 tokens tie at their K-th place.
    assert np.abs(loads - 2 * SKEWED).sum() <= 2 * 7


def test_offsets_do_not_depend_on_the_source_s_seed_or_the_loads_unit():
    first = calibrated(sources.Normal(n_experts=8, seed=0), SKEWED, k=2, n_tokens=4000)
    assert (
        calibrated(sources.Normal(n_experts=8, seed=9), SKEWED, k=2, n_tokens=4000).offsets == first.offsets
    )
    assert calibrated(sources.Normal(n_experts=8), SKEWED / 2000, k=2, n_tokens=4000).offsets == first.offsets
    other = calibrated(sources.Normal(n_experts=8), SKEWED, k=2, n_tokens=4000, seed=1)
    assert other.offsets != first.offsets
    wide = calibrated(sources.Normal(n_experts=8, scale=4.0), SKEWED, k=2, n_tokens=4000)
    np.testing.assert_allclose(wide.offsets, 4.0 * np.array(first.offsets), rtol=1e-5)


def test_balanced_loads_need_no_offsets():
    offsets = calibrated(sources.Normal(n_experts=8), np.ones(8), k=2, n_tokens=65_536).offsets
    # Standard deviation of an offset: of a load share, over the density at the boundary (about 0.3).
    assert np.abs(offsets).max() < 5 * np.sqrt(0.25 * 0.75 / 65_536) / 0.3


def test_experts_without_tokens_and_with_all_of_them():
    loads = np.array([1000, 600, 400, 0, 0])
    found = calibrated(sources.Normal(n_experts=5), loads, k=2, n_tokens=20_000)
    assert np.isfinite(found.offsets).all()
    error = calibration_error(found, loads, k=2, n_tokens=20_000)
    assert error.recorded.tolist() == [1.0, 0.6, 0.4, 0.0, 0.0]
    # One token of the sample missing or too many: within ten on new draws.
    assert error.found[0] >= 1.0 - 10 / 20_000
    assert (error.found[3:] <= 10 / 20_000).all()
    assert error.noise[[0, 3]].tolist() == [1 / 1000, 1 / 1000]


def test_the_error_is_what_it_says():
    source = sources.Normal(n_experts=8)
    error = calibration_error(source, SKEWED, k=2, n_tokens=20_000, seed=3)
    drawn = [source.with_seed(3).batch(step, size) for step, size in enumerate((8192, 8192, 3616))]
    loads = balancesim.route(np.concatenate(drawn), k=2).loads
    np.testing.assert_array_equal(error.found, loads / 20_000)
    share = SKEWED / 1000
    assert error.n_recorded == 1000
    np.testing.assert_allclose(error.noise, np.maximum(np.sqrt(share * (1 - share) / 1000), 1 / 1000))
    in_noise = (error.found - share) / error.noise
    assert error.rms == pytest.approx(np.sqrt((in_noise**2).mean()))
    assert error.largest == pytest.approx(np.abs(in_noise).max())
    # The median of the largest of 8 absolute normals.
    assert stats.norm.cdf(error.typical_largest / error.rms) * 2 - 1 == pytest.approx(0.5 ** (1 / 8))


@given(
    loads=st.lists(st.integers(0, 50), min_size=3, max_size=12),
    k=st.integers(1, 3),
    n_tokens=st.integers(12, 300),
)
def test_targets(loads, k, n_tokens):
    array = np.array(loads, np.float64)
    if k >= array.size or array.sum() == 0.0 or k * array.max() > array.sum():
        return
    share = array * k / array.sum()
    targets = _targets(share, n_tokens, k)
    assert targets.sum() == n_tokens * k
    assert targets.min() >= 1
    assert targets.max() <= n_tokens - 1
    ideal = share * n_tokens
    if ideal.min() >= 1.0 and ideal.max() <= n_tokens - 1.0:
        assert np.abs(targets - ideal).max() < 1.0 + 1e-9


def test_recorded_tokens_and_the_default_sample():
    assert recorded_tokens(SKEWED, 2) == 1000
    assert recorded_tokens(SKEWED / 2000, 2) is None
    assert recorded_tokens(np.zeros(3), 2) is None
    assert default_sample(SKEWED, 2) == 1 << 16
    assert default_sample(100 * SKEWED, 2) == 400_000
    assert default_sample(10**6 * SKEWED, 2) == (1 << 24) // 8


NORMAL = sources.Normal(n_experts=8)
SWITCHING = sources.Drifting(n_experts=8, walk_rate=0.0, offsets="iqr", switch_at=5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: calibrated(NORMAL, SKEWED[:7], k=2), r"one entry per expert .*, \(8,\), got \(7,\)"),
        (lambda: calibrated(NORMAL, ["x"] * 8, k=2), "`loads` must be numbers"),
        (lambda: calibrated(NORMAL, [*SKEWED[:7], -1], k=2), "not negative, got -1 at expert 7"),
        (lambda: calibrated(NORMAL, [np.nan, *SKEWED[1:]], k=2), "finite and .*, got nan at expert 0"),
        (lambda: calibrated(NORMAL, np.zeros(8), k=2), "at least one token, got all zeros"),
        (lambda: calibrated(NORMAL, SKEWED, k=3), "expert 0 a share of 0.45 of all .* k = 3 .* give k <= 2"),
        (lambda: calibrated(NORMAL, SKEWED, k=0), "`k` must satisfy"),
        (lambda: calibrated(NORMAL, SKEWED, k=8), "`k` must satisfy"),
        (lambda: calibrated(NORMAL, SKEWED, k=2, n_tokens=3), "`n_tokens` must be at least 4, .* got 3"),
        (lambda: calibrated(NORMAL, SKEWED, k=2, n_tokens=9.5), "`n_tokens` must be an integer"),
        (lambda: calibrated(NORMAL, SKEWED, k=2, seed=-1), "`seed` must not be negative"),
        (
            lambda: calibrated(sources.Recorded(np.zeros((4, 8))), SKEWED, k=2),
            "`source` must take `offsets` to be calibrated, which Recorded array",
        ),
        (
            lambda: calibrated(sources.Drifting(n_experts=8), SKEWED, k=2),
            r"one distribution at every step, but Drifting \(walk 0.01\) moves",
        ),
        (lambda: calibrated(SWITCHING, SKEWED, k=2), "moves; calibrate it without its switch"),
        (lambda: calibration_error(NORMAL, SKEWED, k=2, n_tokens=0), "`n_tokens` must be at least 1"),
        (lambda: calibration_error(NORMAL, SKEWED, k=2, n_recorded=0), "`n_recorded` must be at least 1"),
        (lambda: calibration_error(NORMAL, SKEWED, k=3), "give k <= 2"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_an_expert_that_is_masked_throughout_is_named():
    def masked(u):
        return np.where(np.arange(8) == 2, -np.inf, u)

    with pytest.raises(InputError, match="expert 2"):
        calibrated(sources.FromFunction(masked, n_experts=8), SKEWED, k=2, n_tokens=100)
