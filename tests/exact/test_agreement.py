"""All methods agree in value on instances of every source family, ties and fractional loads included."""

import pytest

import balancesim as bs
from balancesim import sources
from tests.exact.instances import GAP, METHODS, of_family

RELATIVE = 1e-9
FAMILIES = sorted(sources.registry())
N_INSTANCES = 300


def agree(family, n_instances, methods):
    """Solve instances by all methods; return how many, how many with fractional L, the largest difference."""
    solved = fractional = 0
    largest = 0.0
    for scores, k, capacity in of_family(family, n_instances):
        solutions = {name: bs.solve(scores, k=k, capacity=capacity, method=name) for name in methods}
        for name, solution in solutions.items():
            assert solution.certificate.holds(GAP[name]), (solution.status, scores, k, capacity)
        values = [solution.value for solution in solutions.values()]
        spread = max(values) - min(values)
        assert spread <= RELATIVE * max(map(abs, values)), (values, scores, k, capacity)
        largest = max(largest, spread / max(1e-300, *map(abs, values)))
        solved += 1
        fractional += capacity is None and scores.shape[0] * k % scores.shape[1] > 0
    return solved, fractional, largest


def summary(family, methods, solved, fractional, largest):
    return (
        f"{', '.join(methods)} agree on {solved} instances of {family}, {fractional} with fractional L; "
        f"largest relative difference {largest:.1e}"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_dual_and_highs(family, record_property):
    found = agree(family, N_INSTANCES, ("dual", "highs"))
    assert found[0] == N_INSTANCES
    assert found[1] >= N_INSTANCES // 5
    record_property("counted", summary(family, ("dual", "highs"), *found))


@pytest.mark.deep
@pytest.mark.parametrize("family", FAMILIES)
def test_all_methods(family, record_property):
    found = agree(family, N_INSTANCES, METHODS)
    assert found[0] == N_INSTANCES
    record_property("counted", summary(family, METHODS, *found))


@pytest.mark.deep
@pytest.mark.parametrize("family", FAMILIES)
def test_clarabel_where_it_answers(family, record_property):
    """Its middle of all optima is an assignment where there is one only."""
    answered = 0
    for scores, k, capacity in of_family(family, N_INSTANCES):
        solution = bs.solve(scores, k=k, capacity=capacity, method="cvxpy-clarabel")
        if solution.experts is not None:
            expected = bs.solve(scores, k=k, capacity=capacity, method="highs").value
            assert abs(solution.value - expected) <= RELATIVE * abs(expected), (scores, k, capacity)
            answered += 1
    assert answered > N_INSTANCES // 3
    record_property("counted", f"cvxpy-clarabel agrees on {answered} of {N_INSTANCES} of {family}")


def test_cvxpy_on_some(record_property):
    """As `test_all_methods`, of which this is a part that takes seconds."""
    each = 10
    total = sum(agree(family, each, ("highs", "cvxpy"))[0] for family in FAMILIES)
    record_property("counted", f"highs, cvxpy agree on {total} instances, {each} of every family")
