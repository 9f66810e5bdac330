"""The exact optimum of each batch as a rule: balanced at every step, ended with a reason where it must."""

import numpy as np
import pytest

import balancesim as bs
from balancesim.balancers import AlfLB, Exact, NoBalance, registry
from balancesim.balancers import exact as module
from balancesim.exact import SolveOutcome, SolveStatus
from balancesim.runs import Outcome
from balancesim.sources import FromFunction, Normal, Pareto, Recorded, Source

SOURCES = [
    Normal(n_experts=6, offsets="iqr", seed=1),
    Pareto(n_experts=5, tail_index=0.5, seed=2),
    FromFunction(lambda u: np.floor(8.0 * u) / 4.0, n_experts=7, seed=3),  # ties
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.describe())
@pytest.mark.parametrize(("n_tokens", "k"), [(12, 1), (17, 2), (8, 4)])
def test_every_load_is_the_floor_or_the_ceiling(source: Source, n_tokens: int, k: int) -> None:
    run = bs.simulate(Exact(), source, n_tokens=n_tokens, k=k, horizon=12, n_records=20)
    floor, remainder = divmod(n_tokens * k, source.n_experts)
    assert run.steps.size == 12
    assert (run.loads >= floor).all()
    assert (run.loads <= floor + (remainder > 0)).all()
    assert (run.loads.sum(axis=1) == n_tokens * k).all()


def test_a_run_is_what_solve_finds() -> None:
    source, q = SOURCES[0], np.linspace(0.3, -0.3, 6)
    run = bs.simulate(Exact(), source, n_tokens=16, k=2, horizon=6, n_records=9, comparator=q)
    top = lost = regret = 0.0
    for step in range(6):
        scores = source.batch(step, 16).astype(np.float64)
        found = bs.solve(scores, k=2)
        top += bs.route(scores, k=2).score / 16
        lost += (bs.route(scores, k=2).score - found.value) / 16
        # The dual at the batch's own optimal bias, against the comparator; the kernel rounds to float32.
        bias = run.bias[step]
        regret += (bs.dual_value(scores, bias, k=2) - bs.dual_value(scores, q, k=2)) / 16
        assert run.top_score[step] == pytest.approx(top, rel=1e-6)
        assert run.score_lost[step] == pytest.approx(lost, abs=1e-12)
        assert run.regret[step] == pytest.approx(regret, abs=1e-5)
        # T K / E is no integer: D_int at the recorded bias certifies the batch's optimum.
        assert bs.dual_value(scores, bias, k=2, capacity="integral") == pytest.approx(found.value, abs=1e-9)
    assert (np.diff(run.regret, prepend=0.0) <= 1e-6).all()
    assert run.status.outcome is Outcome.HORIZON_REACHED


def test_it_loses_less_score_than_any_balanced_choice_and_more_than_none() -> None:
    exact, free = bs.simulate([Exact(), NoBalance()], SOURCES[0], n_tokens=24, k=2, horizon=10)
    assert (exact.score_lost > 0.0).all()
    assert (free.score_lost == 0.0).all()


def test_a_solve_without_a_certificate_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    solve, calls = module.solve, []

    def third_fails(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        found = solve(*arguments, **options)  # type: ignore[arg-type]
        if len(calls) < 3:
            return found
        object.__setattr__(found, "status", SolveStatus(SolveOutcome.NOT_CERTIFIED, "its gap is 0.5"))
        return found

    monkeypatch.setattr(module, "solve", third_fails)
    rules = [Exact(), AlfLB()]
    run, other = bs.simulate(rules, SOURCES[0], n_tokens=12, k=2, horizon=5, n_records=9, n_exact=0)
    assert run.status.outcome is Outcome.NOT_ASSIGNED
    assert run.status.step == 2
    assert run.status.reason == "the rule found no assignment (at step 3 of 5: its gap is 0.5)"
    assert run.steps.tolist() == [1, 2]
    assert other.status.outcome is Outcome.HORIZON_REACHED


def test_masks_that_leave_no_balanced_assignment_end_the_run() -> None:
    rows = np.random.default_rng(0).standard_normal((24, 4))
    rows[12:, 3] = -np.inf
    for first, n_steps in ((0, 1), (12, 0)):
        run = bs.simulate(
            Exact(), Recorded(rows[first:]), n_tokens=12, k=1, horizon=2, comparator=np.zeros(4)
        )
        assert run.status.outcome is Outcome.NOT_ASSIGNED
        assert run.steps.size == n_steps
        assert f"at step {n_steps + 1} of 2: `scores` leave expert 3" in run.status.reason


def test_it_is_known_by_its_name() -> None:
    assert registry()["exact"] is Exact
    assert not Exact.causal
    assert Exact().describe() == "exact optimum of each batch"
