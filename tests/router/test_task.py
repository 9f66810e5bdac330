"""Clustered tokens: pure functions of seed, step and place, with the population that is asked for."""

import numpy as np
import pytest

from balancesim.errors import InputError
from balancesim.router import ClusteredTask

TASK = ClusteredTask(n_experts=7, n_clusters=5, n_features=9, reward_noise=0.2, seed=4)


def test_a_token_is_the_same_whatever_the_batch():
    whole, part = TASK.batch(3, 300), TASK.batch(3, 130)
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_array_equal(one[:130], other)
    assert not np.array_equal(TASK.batch(4, 130).features, part.features)


def test_seeds_change_the_draws_and_not_the_structure():
    other = TASK.with_seed(5)
    np.testing.assert_array_equal(other.centres, TASK.centres)
    np.testing.assert_array_equal(other.cluster_rewards, TASK.cluster_rewards)
    assert not np.array_equal(other.batch(0, 50).features, TASK.batch(0, 50).features)
    moved = ClusteredTask(n_experts=7, n_clusters=5, n_features=9, structure_seed=1)
    assert not np.array_equal(moved.cluster_rewards, TASK.cluster_rewards)


def test_what_a_token_is_made_of():
    n = 20_000
    batch = TASK.batch(0, n)
    np.testing.assert_array_equal(batch.expected, TASK.cluster_rewards[batch.clusters])
    noise = (batch.features - TASK.centres[batch.clusters]) * np.sqrt(9) / TASK.noise
    own = (batch.rewards - batch.expected) / TASK.reward_noise
    # Standard normals: five standard errors of mean and variance, over fixed draws; 1e-6 a false alarm.
    for values in (noise, own):
        assert abs(values.mean()) < 5 / np.sqrt(values.size)
        assert abs(values.var() - 1) < 5 * np.sqrt(2 / values.size)
    assert abs(np.corrcoef(noise[:, 0], own[:, 0])[0, 1]) < 5 / np.sqrt(n)
    counts = np.bincount(batch.clusters, minlength=5)
    assert (abs(counts - n * TASK.frequencies) < 5 * np.sqrt(n * TASK.frequencies)).all()
    np.testing.assert_allclose(TASK.frequencies, np.array([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]) / (137 / 60))


def test_rewards_are_uniform_and_quality_is_shared():
    rewards = ClusteredTask(n_experts=100, n_clusters=400, quality=0.0).cluster_rewards
    assert rewards.min() > 0.0
    assert rewards.max() < 1.0
    # Kolmogorov-Smirnov over 40,000 values: above 2.7/sqrt(n) once in 1e6.
    gaps = np.sort(rewards.ravel()) - (np.arange(rewards.size) + 0.5) / rewards.size
    assert abs(gaps).max() < 2.7 / np.sqrt(rewards.size)
    same = ClusteredTask(n_experts=100, n_clusters=20, quality=1.0).cluster_rewards
    assert np.ptp(same, axis=0).max() == 0.0
    assert np.ptp(same[0]) > 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_experts": 1}, "`n_experts` must be at least 2"),
        ({"n_clusters": 0}, "`n_clusters` must be at least 1"),
        ({"n_features": 0}, "`n_features` must be at least 1"),
        ({"noise": -0.1}, "`noise` must be a finite number of at least 0, got -0.1"),
        ({"zipf": np.inf}, "`zipf`"),
        ({"reward_noise": "much"}, "`reward_noise`"),
        ({"quality": 1.5}, r"`quality` must lie in \[0, 1\], got 1.5"),
        ({"structure_seed": -1}, "`structure_seed`"),
        ({"seed": -1}, "`seed` must not be negative"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        ClusteredTask(**{"n_experts": 4, **arguments})


def test_bad_batches():
    with pytest.raises(InputError, match="`n_tokens` must be at least 1"):
        TASK.batch(0, 0)
    with pytest.raises(InputError, match="`step`"):
        TASK.batch(-1, 4)
