"""Routing one batch: backends, properties of the dual, bad input."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balancesim as bs
from balancesim import batches as layout
from balancesim.errors import InputError
from tests import naive
from tests.strategies import batches


@given(batches(masks=True))
def test_backends_agree(batch):
    scores, bias, k = batch
    ours = bs.route(scores, bias, k=k, experts=True)
    reference = bs.route(scores, bias, k=k, experts=True, backend="numpy")
    assert (ours.loads == reference.loads).all()
    assert (ours.experts == reference.experts).all()
    assert ours.value == reference.value  # quarters: every sum is exact
    assert ours.score == reference.score
    assert ours.loads.sum() == k * len(scores)


@given(batches())
def test_score_is_that_of_the_picks(batch):
    scores, bias, k = batch
    routed = bs.route(scores, bias, k=k, experts=True)
    assert routed.score == np.take_along_axis(scores, routed.experts, axis=1).sum(dtype=np.float64)
    assert bs.route(scores, bias, k=k).experts is None


@given(batches(max_experts=6, max_tokens=4), st.data())
def test_weak_duality(batch, data):
    """D(p) bounds every balanced assignment's value, at every bias; D_int every rounded one."""
    scores, bias, k = batch
    n_tokens, n_experts = scores.shape
    choices = list(itertools.combinations(range(n_experts), k))
    assignment = [data.draw(st.sampled_from(choices)) for _ in range(n_tokens)]
    loads = np.bincount(np.ravel(assignment), minlength=n_experts)
    value = sum(float(scores[i, e]) for i, experts in enumerate(assignment) for e in experts)
    assert value <= bs.dual_value(scores, bias, k=k, capacity=loads)
    floor = n_tokens * k // n_experts
    if loads.min() >= floor and loads.max() <= floor + 1:
        assert value <= bs.dual_value(scores, bias, k=k, capacity="integral")


@given(batches())
def test_dual_of_rounded_loads_is_no_smaller(batch):
    scores, bias, k = batch
    fractional = bs.dual_value(scores, bias, k=k)
    integral = bs.dual_value(scores, bias, k=k, capacity="integral")
    # Only L may be inexact: one rounding of L times the sum of the prices.
    assert integral >= fractional - 1e-12 * (1 + abs(fractional))
    if scores.size and len(scores) * k % scores.shape[1] == 0:
        assert integral == pytest.approx(fractional, abs=1e-9)


def test_fractional_example_of_the_theory():
    scores = np.array([[1.0, 0.0]])
    assert bs.route(scores, k=1).value == 1.0
    assert bs.dual_value(scores, [-0.5, 0.5], k=1) == 0.5
    assert bs.dual_value(scores, [-0.5, 0.5], k=1, capacity="integral") == 1.0


@given(batches(), st.randoms(use_true_random=False))
def test_permuting_experts(batch, random):
    """It never changes the value or D, and permutes the loads where no token ties at its K-th place."""
    scores, bias, k = batch
    order = list(range(scores.shape[1]))
    random.shuffle(order)
    plain, permuted = bs.route(scores, bias, k=k), bs.route(scores[:, order], bias[order], k=k)
    assert plain.value == permuted.value
    assert bs.dual_value(scores, bias, k=k) == pytest.approx(
        bs.dual_value(scores[:, order], bias[order], k=k), abs=1e-9
    )
    ranked = np.sort(scores + bias, axis=1)
    if (ranked[:, -k] > ranked[:, -k - 1]).all():
        assert (plain.loads[order] == permuted.loads).all()


@given(batches(), st.integers(-16, 16))
def test_a_constant_in_the_bias_changes_no_choice(batch, quarters):
    scores, bias, k = batch
    shifted = bias + bias.dtype.type(quarters / 4)
    first, second = (bs.route(scores, b, k=k, experts=True) for b in (bias, shifted))
    assert (first.experts == second.experts).all()


def test_same_bits_for_any_number_of_threads(monkeypatch):
    scores = np.random.default_rng(0).standard_normal((40_001, 33)).astype(np.float32)
    assert scores.size > layout._PARALLEL_FROM
    several = bs.route(scores, k=5, experts=True)
    monkeypatch.setattr(layout, "_n_threads", lambda: 1)
    one = bs.route(scores, k=5, experts=True)
    assert several.value == one.value
    assert (several.loads == one.loads).all()
    assert (several.experts == one.experts).all()


@given(batches(masks=True))
def test_blocked_scores_give_the_same_bits(batch):
    scores, bias, k = batch
    tiles = bs.blocked(scores)
    assert tiles.shape == scores.shape
    assert tiles.dtype == scores.dtype
    one, other = (bs.route(given, bias, k=k, experts=True) for given in (scores, tiles))
    assert (one.value, one.score) == (other.value, other.score)
    assert one.loads.tolist() == other.loads.tolist()
    assert one.experts.tolist() == other.experts.tolist()
    for capacity in (None, "integral"):
        values = [bs.dual_value(given, bias, k=k, capacity=capacity) for given in (scores, tiles)]
        assert values[0] == values[1]


def test_what_blocked_scores_cannot_do():
    scores = np.zeros((3, 4))
    scores[1, :3] = -np.inf
    tiles = bs.blocked(scores)
    with pytest.raises(InputError, match="at least k = 2 experts unmasked, got 1"):
        bs.route(tiles, k=2)
    with pytest.raises(InputError, match="k"):
        bs.route(tiles, k=4)
    with pytest.raises(InputError, match="`bias` must have one entry per expert"):
        bs.route(tiles, np.zeros(5), k=1)
    with pytest.raises(InputError, match="must be an array where `groups` are limited"):
        bs.route(tiles, k=1, groups=bs.GroupLimit(2, 1))
    with pytest.raises(InputError, match='`backend` must be "numba" for BlockedScores'):
        bs.route(tiles, k=1, backend="numpy")
    with pytest.raises(InputError, match="nan at token 0, expert 1"):
        bs.blocked(np.array([[0.0, np.nan]]))


def test_many_experts():
    scores = np.random.default_rng(1).standard_normal((40, 1500))
    for k in (1, 8, 100, 1499):
        assert bs.route(scores, k=k, experts=True).experts.tolist() == naive.choose(scores, np.zeros(1500), k)


def test_input_is_left_alone():
    scores = np.random.default_rng(2).standard_normal((30, 8))
    bias = np.zeros(8)
    for array in (scores, bias):
        array.setflags(write=False)
    bs.route(scores, bias, k=2, experts=True)
    bs.route(np.asfortranarray(scores), bias, k=2)
    bs.route(scores[::2, ::-1], bias, k=2)


GOOD = np.zeros((3, 4))
SIXTH = np.arange(12).reshape(3, 4) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": np.where(SIXTH, np.nan, 0.0), "k": 1}, "nan at token 1, expert 2"),
        ({"scores": np.where(SIXTH, np.inf, 0.0), "k": 1}, "inf at token 1, expert 2"),
        ({"scores": np.where(np.arange(4) > 0, -np.inf, GOOD), "k": 2}, "unmasked, got 1 at token 0"),
        ({"scores": GOOD, "k": 4}, "`k` must satisfy 1 <= k < n_experts = 4, got 4"),
        ({"scores": GOOD, "k": 0}, "got 0"),
        ({"scores": np.zeros(4), "k": 1}, r"got shape \(4,\)"),
        ({"scores": np.zeros((0, 4)), "k": 1}, "at least one token"),
        ({"scores": np.zeros((3, 1)), "k": 1}, "`n_experts` must be at least 2"),
        ({"scores": np.zeros((3, 4), np.int64), "k": 1}, "float32 or float64, got int64"),
        ({"scores": np.zeros((3, 4), np.float16), "k": 1}, "got float16"),
        ({"scores": GOOD, "k": 1.5}, "`k` must be an integer, got 1.5"),
        ({"scores": GOOD, "k": True}, "`k` must be an integer, got True"),
        ({"scores": [[1.0, 2.0], [1.0]], "k": 1}, "rows of different lengths"),
        ({"scores": GOOD, "bias": ["a"] * 4, "k": 1}, "`bias` must be numbers"),
        ({"scores": GOOD, "bias": np.zeros(3), "k": 1}, r"\(4,\), got \(3,\)"),
        ({"scores": GOOD, "bias": [0, np.nan, 0, 0], "k": 1}, "got nan at expert 1"),
        ({"scores": GOOD.astype(np.float32), "bias": [0, 1e300, 0, 0], "k": 1}, "finite in float32"),
        ({"scores": GOOD, "k": 1, "backend": "nunba"}, "did you mean 'numba'"),
    ],
)  # fmt: skip
def test_bad_input(arguments, message):
    scores, k = arguments.pop("scores"), arguments.pop("k")
    with pytest.raises(InputError, match=message):
        bs.route(scores, k=k, **arguments)


@pytest.mark.parametrize(
    ("capacity", "message"),
    [
        ("whole", "got 'whole'"),
        ([1, 1, 1], r"loads, got int64 \(3,\)"),
        ([0.75] * 4, "got float64"),
        ([3, 0, 0, 1], "sum to T K = 3"),
        ([4, -1, 0, 0], "between 0 and T = 3"),
    ],
)
def test_bad_capacity(capacity, message):
    with pytest.raises(InputError, match=message):
        bs.dual_value(GOOD, np.zeros(4), k=1, capacity=capacity)


def test_measures_of_loads():
    loads = np.array([[2, 2, 2, 2], [0, 1, 3, 4]])
    assert bs.max_violation(loads).tolist() == [0.0, 1.0]
    assert bs.max_violation([0, 1, 3, 4]) == 1.0
    assert bs.coefficient_of_variation([0, 4]) == 1.0
    assert bs.dead_experts(loads).tolist() == [0, 1]
    assert bs.dead_experts([0, 0, 1]) == 2


@pytest.mark.parametrize("loads", [[], 3.0, [1, -1], [np.nan, 1.0], [0, 0], [[1, 1], [0, 0]]])
def test_bad_loads(loads):
    with pytest.raises(InputError, match="`loads`"):
        bs.max_violation(loads)
