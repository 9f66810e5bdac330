"""What each area measures, on tiny cases. No test asserts a time."""

import sys
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest

from balancesim.bench import AREAS, exact, exact_peers, online, process, routing, scaling, sweep
from balancesim.bench.exact_ours import Gaps, Ours
from balancesim.bench.instances import FAMILIES, Shape, normal
from balancesim.bench.timing import Parts, Plan
from balancesim.bench.worker import Worker
from balancesim.exact import solve
from balancesim.routing import route
from tests.bench import fakes

TINY = Shape(64, 8, 2)
ONCE = Plan(1)
needs_ortools = pytest.mark.skipif(find_spec("ortools") is None, reason="ortools is not installed")
needs_pot = pytest.mark.skipif(find_spec("ot") is None, reason="POT is not installed")


@pytest.mark.parametrize("name", AREAS)
def test_every_area_has_its_function(name: str) -> None:
    assert callable(getattr(import_module(AREAS[name].module), name))
    assert AREAS[name].seconds > 0.0


def test_exact_rows_say_which_peers_there_are() -> None:
    said: list[str] = []
    gaps = Gaps()
    goals = {fakes.RIGHT: 1e9, fakes.WRONG: None, fakes.REFUSES: 2.0, fakes.ABSENT: 3.0}
    found = list(exact.against_peers(Plan(2, 1.0, said.append), TINY, goals, gaps))
    right, wrong, refuses, missing = found
    assert [row.peer_name for row in found] == [peer.name for peer in goals]
    assert {row.case for row in found} == {"64x8 K=2"}
    assert right.ratio is not None
    assert right.ratio.rounds == 2
    assert (right.verdict, right.note) == ("missed", "")
    assert right.ours_solve is not None
    assert wrong.peer_build is not None
    assert wrong.note.startswith("its value differs by ")
    assert refuses.note == "no answer for 64 tokens, K = 2"
    assert missing.note == "not installed: pip install no-such-package"
    assert (missing.verdict, missing.ratio) == ("not measured", None)
    assert said[0] == "64x8 K=2 against right"
    assert gaps.row("exact").met


def test_exact_rows_of_ours_alone() -> None:
    gaps = Gaps()
    assert exact.by_itself(ONCE, TINY, gaps).note.startswith("relative gap ")
    assert exact.in_passes(ONCE, TINY, gaps).goal.text() == "ours / peer at most 40"
    families = list(exact.over_families(ONCE, TINY, gaps))
    assert [row.case for row in families] == [f"64x8 K=2 {family}" for family in FAMILIES]
    assert {row.goal.text() for row in families} == {"ours / peer at most 3"}
    warm = exact.warm_start(ONCE, TINY, gaps)
    assert warm.goal.text() == "peer / ours at least 2"
    assert warm.peer is not None
    row = gaps.row("exact")
    assert row.verdict == "reached"
    assert row.note == "feasible and integral, all of them"


def test_a_gap_that_does_not_close_is_missed() -> None:
    gaps = Gaps()
    Ours(normal(TINY), TINY.k, gaps)()
    gaps.add(solve(normal(TINY), k=TINY.k, method="highs", time_limit=1e-9))
    row = gaps.row("exact")
    assert (row.case, row.verdict, row.note) == ("largest relative gap of 2 solves", "missed", "")


def test_families_keep_their_promises() -> None:
    shape = Shape(640, 8, 2)
    made = {family: make(shape) for family, make in FAMILIES.items()}
    assert all(scores.shape == (640, 8) and scores.dtype == np.float64 for scores in made.values())
    np.testing.assert_allclose(made["softmax"].sum(axis=1), 1.0)
    assert len(np.unique(made["repeated rows"], axis=0)) == 10
    assert np.array_equal(np.unique(made["integers 0-3"]), np.arange(4.0))
    assert made["skewed"].mean(axis=0).std() > 2.0


@needs_ortools
def test_ortools_finds_the_optimum_of_the_rounded_scores() -> None:
    scores = normal(TINY)
    with Worker(exact_peers.OR_TOOLS, scores, TINY.k) as worker:
        parts = worker()
        # Each of T K rounded costs is off by at most half a unit.
        assert worker.value == pytest.approx(
            solve(scores, k=TINY.k).value, abs=0.5 * 128 / exact_peers.COST_SCALE
        )
    assert min(parts) > 0.0
    uneven = normal(Shape(9, 8, 2))
    with (
        Worker(exact_peers.OR_TOOLS, uneven, 2) as worker,
        pytest.raises(exact_peers.PeerError, match="T K / E to be whole"),
    ):
        worker()


@needs_pot
def test_pot_finds_the_optimum() -> None:
    scores = normal(TINY)
    answer = exact_peers.solve_pot(scores, 1)
    assert answer.value == pytest.approx(solve(scores, k=1).value, rel=1e-12)
    with pytest.raises(exact_peers.PeerError, match="K = 1"):
        exact_peers.solve_pot(scores, 2)


@pytest.mark.parametrize("peer", [exact_peers.HIGHS, exact_peers.CVXPY_HIGHS, exact_peers.CVXPY_CLARABEL])
def test_witnesses_report_build_and_solve(peer: exact_peers.Peer) -> None:
    scores = normal(TINY)
    answer = peer.solver(scores, TINY.k)
    assert min(answer.parts) > 0.0
    assert answer.value == pytest.approx(solve(scores, k=TINY.k).value, rel=1e-9)


@needs_ortools
def test_extra_memory_of_both() -> None:
    row = exact.memory(ONCE, Shape(1024, 16, 2))
    assert row.unit == "MiB"
    assert row.ours is not None
    assert row.ours.median > 0.0


def test_extra_memory_without_ortools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ortools", None)
    assert exact.memory(ONCE, TINY).note == "not installed: pip install ortools"


def test_routing_peers_agree() -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((300, 16), dtype=np.float32)
    bias = rng.standard_normal(16).astype(np.float32)
    expected = route(scores, bias, k=3)
    for peer in (routing.route_by_numpy, routing.route_by_insertion):
        loads, value = peer(scores, bias, 3)
        np.testing.assert_array_equal(loads, expected.loads)
        assert value == pytest.approx(expected.value, rel=1e-12)


def test_routing_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "jax", None)
    case = routing.Case(TINY, routing.Goals(1e9, 10.0), routing.Goals(0.0, 20.0, 1e9))
    found = list(routing.routing_of(ONCE, case))
    peers = [routing.NUMPY, routing.NUMBA, routing.TORCH, routing.JAX]
    assert [row.peer_name for row in found] == [*peers, *peers, *peers, routing.READ]
    assert [row.verdict for row in found[:4]] == ["missed", "", "not measured", ""]
    assert [row.verdict for row in found[8:11]] == ["reached", "missed", "not measured"]
    assert found[2].note == "not installed: pip install torch"
    assert found[-1].goal.text() == "ours / peer at most 2.5"
    assert "GB/s" in found[-1].note


def test_the_read_reads_all() -> None:
    scores = np.random.default_rng(0).integers(0, 9, (1000, 8)).astype(np.float32)
    assert routing.read_all(scores) == scores.sum()


def test_online_rows() -> None:
    rows = list(online.step(ONCE, TINY, n_rules=2, n_steps=3, factor=None))
    assert [row.peer_name for row in rows] == [online.NUMPY, online.MKL]
    assert {row.unit for row in rows if row.ours} == {"s per step and rule"}
    assert {row.case for row in rows} == {"64x8 K=2, 2 rules a draw"}


def test_sweep_rows() -> None:
    rows = list(sweep.workers(ONCE, horizon=20))
    assert [row.peer_name for row in rows] == ["one worker", "two unlinked processes"]
    assert [row.goal.text() for row in rows] == ["peer / ours at least 1.8", "peer / ours at least 0.9"]


def test_scaling_rows() -> None:
    axis = scaling.Axis("n_tokens", (64, 128), 1.05, 1.1)
    row = scaling.exponent(ONCE, axis)
    assert row.case == "exponent of time in n_tokens, 64 to 128"
    assert [size for size, _ in row.curve] == [64.0, 128.0]
    assert row.ours is not None
    (_, low), (_, high) = row.curve
    assert row.ours.median == pytest.approx(np.log2(high / low))
    assert scaling.peak(ONCE, axis).goal.text() == "ours / peer at most 1.1"


def test_startup_runs_the_command() -> None:
    row = process.helping(ONCE)
    assert row.case == "balancesim --help"
    assert row.ratio is not None
    assert row.ratio.median > 0.0


def test_compilation_is_the_cold_start_less_the_warm() -> None:
    slow_once = """
import os, pathlib, sys, time
compiled = pathlib.Path(os.environ["NUMBA_CACHE_DIR"]) / "compiled"
if not compiled.exists():
    time.sleep(0.5)
    compiled.touch()
pathlib.Path(sys.argv[2]).mkdir()
"""
    row = process.compiling(ONCE, [sys.executable, "-c", slow_once])
    assert row.ours is not None
    assert 0.25 < row.ours.median < 10.0
    assert (row.goal.text(), row.verdict) == ("ours at most 10", "reached")
    assert "s where nothing is compiled" in row.note


def test_the_peak_is_this_process_own() -> None:
    assert process.peak_mebibytes() > 1.0
    assert isinstance(Ours(normal(TINY), TINY.k, Gaps())(), Parts)
