"""The same bits on any number of threads: batches cut into parts, whatever their size."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import balancesim as bs
from balancesim import batches
from balancesim.exact import AssignmentProblem, certify
from balancesim.hindsight import best_fixed_bias
from balancesim.kernels.model import LANES
from balancesim.sources import Normal
from tests.kernels import box

THREADS = (1, 2, 3, 5, 8)


@pytest.fixture
def on_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Returns what sets the number of threads, from the first token on."""
    pools = []

    def use(n_threads: int) -> None:
        pool = ThreadPoolExecutor(n_threads)
        pools.append(pool)
        monkeypatch.setattr(batches, "_n_threads", lambda: n_threads)
        monkeypatch.setattr(batches, "_threads", lambda: pool)
        monkeypatch.setattr(batches.in_parts, "__defaults__", (1,))

    yield use
    for pool in pools:
        pool.shutdown()


def bits(result: Any) -> list[bytes]:
    """Every number of a result; efforts in seconds apart."""
    return [np.asarray(part).tobytes() for part in result]


@pytest.mark.parametrize("n_threads", THREADS)
@pytest.mark.parametrize("n_tokens", [1, LANES, LANES + 1, 8 * LANES, 11 * LANES + 5])
def test_parts_are_whole_tiles_that_join(on_threads: Any, n_threads: int, n_tokens: int) -> None:
    on_threads(n_threads)
    parts = batches.in_parts(lambda first, last: (first, last), (n_tokens, 9))
    assert len(parts) == min(n_threads, -(-n_tokens // LANES))
    assert parts[0][0] == 0
    assert parts[-1][1] == n_tokens
    assert [last for _, last in parts[:-1]] == [first for first, _ in parts[1:]]
    assert all(first % LANES == 0 and first < last for first, last in parts)


@pytest.mark.parametrize("kind", box.KINDS)
@pytest.mark.parametrize("dtype", box.DTYPES)
def test_routing(on_threads: Any, kind: str, dtype: Any) -> None:
    """Loads, values and experts, of arrays and tiles, and the dual; of groups where two scores have a sum."""
    rng = np.random.default_rng(17)
    for n_tokens, n_experts, k in ((5 * LANES + 3, 9, 2), (8 * LANES, 64, 8), (13 * LANES - 1, 33, 17)):
        scores, bias = box.scores_of(kind, rng, n_tokens, n_experts, dtype)
        if kind == "masked":
            scores = box.masked(rng, scores, k)
        limit = bs.GroupLimit(3, 2, "max") if n_experts % 3 == 0 and kind != "masked" else None
        found = []
        for n_threads in THREADS:
            on_threads(n_threads)
            tiles = bs.blocked(scores)
            found.append(
                [
                    *bits(bs.route(scores, bias, k=k, experts=True, groups=limit)),
                    *bits(bs.route(tiles, bias, k=k, experts=True)),
                    *bits([bs.dual_value(scores, bias, k=k), bs.dual_value(tiles, bias, k=k)]),
                    tiles.tiles.tobytes(),
                ]
            )
        assert all(other == found[0] for other in found[1:])


@pytest.mark.parametrize("kind", ["continuous", "ties", "masked"])
def test_the_exact_solver_and_its_certificate(on_threads: Any, kind: str) -> None:
    rng = np.random.default_rng(23)
    for n_tokens, n_experts, k in ((8 * LANES, 8, 2), (9 * LANES + 7, 12, 1)):
        scores, _ = box.scores_of(kind, rng, n_tokens, n_experts, np.float64)
        if kind == "masked":
            scores[rng.random(scores.shape) < 0.1] = -np.inf
        found = []
        for n_threads in THREADS:
            on_threads(n_threads)
            solved = bs.solve(scores, k=k)
            # And of an assignment that is far from optimal.
            routed = bs.route(scores, k=k, experts=True).experts
            assert routed is not None
            checked = certify(AssignmentProblem.of(scores, k=k), routed, np.linspace(-1.0, 1.0, n_experts))
            found.append(
                [
                    *bits([solved.experts, solved.loads, solved.bias, solved.interval, solved.value]),
                    repr(solved.certificate).encode(),
                    *bits([checked.loads, checked.value, checked.dual_value, checked.slack]),
                    repr(checked.certificate).encode(),
                ]
            )
        assert all(other == found[0] for other in found[1:])


def test_the_best_fixed_bias_in_hindsight(on_threads: Any) -> None:
    source = Normal(n_experts=8, offsets="iqr", seed=5)
    found = []
    for n_threads in THREADS:
        on_threads(n_threads)
        found.append(bits(best_fixed_bias(source, n_tokens=300, k=2, n_steps=20)))
    assert all(other == found[0] for other in found[1:])
