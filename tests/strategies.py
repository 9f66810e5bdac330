"""What Hypothesis draws: scores in quarters, so that ties really happen and sums are exact."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from balancesim.types import FloatArray


class Batch(NamedTuple):
    scores: FloatArray
    bias: FloatArray
    k: int


@st.composite
def batches(draw: st.DrawFn, max_tokens: int = 40, max_experts: int = 20, masks: bool = False) -> Batch:
    """Scores and biases in quarters, and a K that fits."""
    n_experts = draw(st.integers(2, max_experts))
    n_tokens = draw(st.integers(1, max_tokens))
    k = draw(st.integers(1, n_experts - 1))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    quarters = st.integers(-8, 8).map(lambda q: q / 4)
    scores = draw(hnp.arrays(dtype, (n_tokens, n_experts), elements=quarters.map(dtype)))
    bias = draw(hnp.arrays(dtype, n_experts, elements=quarters.map(dtype)))
    if masks and k < n_experts - 1:
        scores[draw(st.integers(0, n_tokens - 1)), draw(st.integers(0, n_experts - 1))] = -np.inf
    return Batch(scores, bias, k)
