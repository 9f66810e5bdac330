"""A race is its runs, row by row, whatever threads it has; its figure shows every rule."""

import numpy as np
import pytest

from balancesim.balancers import AlfLB, NoBalance, SwitchLoss
from balancesim.errors import InputError
from balancesim.report import style
from balancesim.report.router import router_figure
from balancesim.router import ClusteredTask, Router, race, summary, train_router

TASK = ClusteredTask(n_experts=8, n_clusters=12, n_features=6)
RULES = [
    NoBalance(),
    SwitchLoss(weight=0.03),
    SwitchLoss(weight=0.1),
    AlfLB(schedule="constant", step_size=0.3),
]


@pytest.fixture(scope="module")
def frame():
    return race(RULES, TASK, n_tokens=64, horizon=60, seeds=[3, 4], n_exact=2)


def test_rows_are_the_runs(frame):
    assert frame["seed"].tolist() == [3] * 4 + [4] * 4
    assert frame["acts"].tolist() == ["selection", "gradient", "gradient", "selection"] * 2
    assert frame["rule"].tolist() == [rule.describe() for rule in RULES] * 2
    run = train_router(RULES[2], TASK, n_tokens=64, horizon=60, seed=4, n_exact=2)
    assert frame.iloc[[6]].equals(summary([run]).set_index(frame.index[[6]]))
    assert frame["reward_lost"].iloc[6] == run.reward_lost


def test_threads_change_nothing(frame):
    alone = race(RULES, TASK, n_tokens=64, horizon=60, seeds=[3, 4], n_exact=2, n_threads=1)
    assert alone.equals(frame)


def test_late_means():
    every, rare = (
        train_router(NoBalance(), TASK, n_tokens=64, horizon=20, n_records=n, n_exact=0) for n in (20, 2)
    )
    row = summary([every, rare])
    # The last tenth of 20 steps, or the whole window where no record falls into it.
    assert row["reward"][0] == pytest.approx(every.reward[-2:].mean(), abs=1e-14)
    assert row["max_violation"][0] == pytest.approx(every.max_violation[-2:].mean(), abs=1e-14)
    assert row["reward"][1] == rare.mean_reward[-1]
    assert np.isnan(row["reward_lost"]).all()


def test_a_run_that_ends_at_once_is_a_row():
    row = summary([train_router(SwitchLoss(weight=1e100), TASK, n_tokens=64, horizon=3)])
    assert row["outcome"][0] == "penalty_not_finite"
    assert np.isnan(row["max_violation"][0])
    with pytest.raises(InputError, match="must hold a run that ended well"):
        router_figure(row)


def test_figure(frame, tmp_path):
    with style.settings():
        figure = router_figure(frame)
        written = style.save(figure, tmp_path, "race")
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == [*(rule.describe() for rule in RULES), "sampling floor"]
    assert all(path.stat().st_size > 1000 for path in written)
    with pytest.raises(InputError, match="it lacks reward_lost"):
        router_figure(frame.drop(columns="reward_lost"))


def test_bad_input():
    with pytest.raises(InputError, match="`seeds` must hold at least one"):
        race(RULES, TASK, seeds=[])
    with pytest.raises(InputError, match="`n_threads` must be at least 1"):
        race(RULES, TASK, seeds=[0], n_threads=0)
    with pytest.raises(InputError, match='use gate="raw"'):
        race(RULES, TASK, k=1, seeds=[0], router=Router())
