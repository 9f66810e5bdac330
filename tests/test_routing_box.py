"""Routing and its dual, as users call them, over the box of shapes, against sorting."""

from typing import Any

import numpy as np
import pytest

import balancesim as bs
from tests import naive
from tests.kernels import box


def check(case: box.Case, turn: int) -> None:
    scores, bias, k = case.twin.scores, case.twin.bias, case.k
    n_tokens, n_experts = scores.shape
    given: Any = bs.blocked(scores) if turn % 2 else scores
    routed = bs.route(given, bias, k=k, experts=turn % 3 > 0)
    marks = case.twin.chosen(k)
    loads, prices = marks.sum(axis=0), bias.astype(np.float64)
    value = float(case.twin.values(k).sum())
    assert routed.loads.tolist() == loads.tolist(), case.name
    assert (routed.value, routed.score) == (value, value - float(loads @ prices)), case.name
    if turn % 3:
        assert routed.experts is not None
        assert (routed.experts.ravel() == np.nonzero(marks)[1]).all(), case.name
    else:
        assert routed.experts is None
    dual = bs.dual_value(given, bias, k=k)
    assert dual == value - n_tokens * k / n_experts * float(prices.sum()), case.name
    if turn % 8 == 0:
        floor, remainder = divmod(n_tokens * k, n_experts)
        low, high = [floor] * n_experts, [floor + (remainder > 0)] * n_experts
        cheapest = naive.cheapest_price(prices, low, high, n_tokens * k)
        # Sums of E products in another order.
        bound = 2.0 * n_experts * np.finfo(float).eps * (floor + 1) * float(np.abs(prices).sum())
        integral = bs.dual_value(given, bias, k=k, capacity="integral")
        assert abs(integral - (value - cheapest)) <= bound + np.finfo(float).eps * abs(value), case.name


@pytest.mark.parametrize("kind", box.KINDS)
def test_routing_over_the_box(kind: str) -> None:
    """Every E with some of its Ks."""
    for turn, case in enumerate(box.cases(kind)):
        if turn % 7 == 0:
            check(case, turn // 7)


@pytest.mark.parametrize("kind", ["continuous", "ties", "near", "zeros"])
def test_groups_over_the_box(kind: str) -> None:
    """Equal to the reference, which sorts."""
    for turn, case in enumerate(box.cases(kind)):
        n_tokens, n_experts = case.twin.scores.shape
        divisors = [n for n in range(2, n_experts) if n_experts % n == 0]
        if turn % 5 or not divisors:
            continue
        n_groups = divisors[turn // 5 % len(divisors)]
        n_chosen = -(-case.k * n_groups // n_experts)
        limit = bs.GroupLimit(n_groups, n_chosen, "max" if turn % 2 else "top2")
        scores, bias = case.twin.scores, case.twin.bias
        found = bs.route(scores, bias, k=case.k, groups=limit, experts=True)
        expected = bs.route(scores, bias, k=case.k, groups=limit, experts=True, backend="numpy")
        assert found.experts is not None
        assert expected.experts is not None
        assert (found.experts == expected.experts).all(), case.name
        assert found.loads.tolist() == expected.loads.tolist(), case.name
        # Both round each of T K additions by half an ulp of what is added so far.
        limited = box.sort(limit.apply(scores, bias), bias).ranked[:, : case.k]
        scale = float(np.abs(limited.astype(np.float64)).sum())
        bound = n_tokens * case.k * np.finfo(float).eps * scale
        assert abs(found.value - expected.value) <= bound, case.name
