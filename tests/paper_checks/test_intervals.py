"""Student's half-widths against SciPy's own intervals, and how often they cover."""

import numpy as np
import pytest
from scipy import stats

from paper_checks.intervals import half_width


@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_equals_scipys_interval(confidence):
    sample = np.random.default_rng(1).exponential(size=(12, 3))
    low, high = stats.t.interval(confidence, 11, loc=sample.mean(axis=0), scale=stats.sem(sample))
    np.testing.assert_allclose(half_width(sample, confidence), (high - low) / 2, rtol=1e-12)
    assert half_width(sample[:, 1], confidence) == pytest.approx(half_width(sample, confidence)[1], rel=1e-12)


def test_covers_as_often_as_it_says():
    sample = np.random.default_rng(2).normal(size=(5, 20_000))
    missed = np.mean(np.abs(sample.mean(axis=0)) > half_width(sample, 0.95))
    # Standard error 0.0015: four of them, one false alarm in 15,000.
    assert missed == pytest.approx(0.05, abs=0.0062)
    normal = 1.96 * sample.std(axis=0, ddof=1) / np.sqrt(5)
    assert np.mean(np.abs(sample.mean(axis=0)) > normal) > 0.1
