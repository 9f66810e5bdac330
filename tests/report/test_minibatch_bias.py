"""Regret against the batch size: late steps alone, the fitted slope, what P5 says beside it, the figure."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from balancesim.report import style
from balancesim.report.minibatch_bias import (
    late_regret,
    log_slope,
    minibatch_bias_rows,
    minibatch_bias_table,
)
from balancesim.report.minibatch_bias_figure import sources_figure
from tests.report.race.frames import printed

SIZES = (16, 64, 256)
STEPS = np.array([1, 10, 50, 80, 100])
PHI = {"kind": "phi-balance", "potential": "squared_norm", "strength": 0.5}
RULES = {
    "slow": {**PHI, "ema_rate": 0.1},
    "fast": {**PHI, "ema_rate": 1.0},
    "harmonic": {**PHI, "ema_rate": "harmonic"},
    "no balancing": {"kind": "none"},
}


def made(power: float = 1.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Late steps lose rate (1 + seed/100)/T^power each, early ones a hundred times that."""
    cells, records = [], []
    sources = [{"kind": kind, "n_experts": 4, "offsets": "iqr"} for kind in ("normal", "cauchy")]
    for group, (source, size) in enumerate((one, size) for one in sources for size in SIZES):
        for rule, parameters in RULES.items():
            for seed in range(3):
                cell = f"{group:02}{rule}{seed}"
                rate = parameters.get("ema_rate", 1.0)
                level = (rate if isinstance(rate, float) else 0.01) * (1.0 + 0.01 * seed) / size**power
                regret = level * (STEPS + 99.0 * np.minimum(STEPS, 50))
                cells.append(
                    {
                        "cell": cell, "group": group, "source": "x", "source_parameters": json.dumps(source),
                        "rule": rule, "rule_parameters": json.dumps(parameters), "n_tokens": size, "k": 2,
                        "n_experts": 4, "horizon": 100, "seed": seed, "outcome": "horizon_reached",
                        "reason": "", "comparator": "population" if rule == "no balancing" else "rule",
                        "n_groups": 0, "n_chosen_groups": 0, "every": 1, "lag": 0, "n_ranks": 1,
                    }
                )  # fmt: skip
                records.append(pd.DataFrame({"cell": cell, "step": STEPS, "regret": regret}))
    return pd.DataFrame(cells), pd.concat(records, ignore_index=True)


def test_late_steps_begin_at_the_last_record_of_the_first_half() -> None:
    assert late_regret(STEPS, 2.0 * STEPS + 1000.0 * np.minimum(STEPS, 50)) == pytest.approx(2.0, rel=1e-12)
    assert np.isnan(late_regret(np.array([100]), np.array([1.0])))


def test_the_slope_is_that_of_the_logarithms() -> None:
    """Exact where seeds are proportional; its interval is Student's over seeds."""
    exact = log_slope({size: {seed: (1.0 + seed) / size for seed in range(3)} for size in SIZES})
    for end in ("", "_low", "_high"):
        assert exact[f"log_slope{end}"] == pytest.approx(-1.0, abs=1e-12)
    # Two sizes and two seeds, 10 % off in opposite ways: slopes -1 +- 0.2/ln 4, t_1(0.975) = 12.706.
    two = log_slope({16: {0: 1.1 / 16, 1: 0.9 / 16}, 64: {0: 0.9 / 64, 1: 1.1 / 64}})
    assert two["log_slope"] == pytest.approx(-1.0, abs=1e-12)
    half = 12.7062 * 0.2 / np.log(4.0)
    assert two["log_slope_high"] - two["log_slope"] == pytest.approx(half, rel=1e-5)
    assert np.isnan(log_slope({16: {0: 1.0}})["log_slope"])
    assert np.isnan(log_slope({16: {0: 1.0}, 64: {0: -1.0}})["log_slope"])
    assert np.isnan(log_slope({16: {0: 1.0}, 64: {1: 1.0}})["log_slope"])


def test_rows() -> None:
    rows = minibatch_bias_rows(*made())
    assert len(rows) == 2 * len(RULES) * len(SIZES)
    assert list(dict.fromkeys(rows["source"])) == ["Normal", "Cauchy"]
    np.testing.assert_allclose(rows["log_slope"], -1.0, atol=1e-12)
    slow, fast = rows[rows["rule"] == "slow"], rows[rows["rule"] == "fast"]
    np.testing.assert_allclose(slow["excess"], 0.1 * 1.01 / slow["n_tokens"], rtol=1e-12)
    assert set(fast["label"]) == {"squared norm, rate 1, strength 0.5"}
    # By P5: tr(Hess phi Cov)/2 for either rate; the cost like 1/T, rate/(2 - rate) and more by the curvature.
    np.testing.assert_allclose(slow["ratio"] * slow["analytic"], slow["excess"], rtol=1e-12)
    per_token = (slow["analytic"] * slow["n_tokens"]).to_numpy()
    first_order = 0.1 / 1.9 * 0.5 * slow["bias_analytic"].to_numpy()
    assert (first_order < per_token).all()
    assert (per_token < 1.02 * first_order).all()
    np.testing.assert_array_less(first_order * 19.0, fast["analytic"] * fast["n_tokens"])
    # Two intervals at 95 % of a seed chosen before the first run, tripled: a false alarm in some 10^8.
    half = rows["bias_slope_high"] - rows["bias_slope"]
    known = half.notna()
    assert (abs(rows["bias_slope"] - rows["bias_analytic"])[known] < 3.0 * half[known]).all()
    assert rows.loc[rows["rule"] == "harmonic", "analytic"].isna().all()
    assert rows.loc[rows["rule"] == "no balancing", ["analytic", "bias_slope"]].isna().all(axis=None)


def test_another_power_is_seen() -> None:
    """Negative control: a loss that falls like the root of T has slope -1/2."""
    np.testing.assert_allclose(minibatch_bias_rows(*made(0.5))["log_slope"], -0.5, atol=1e-12)


def test_delays_and_limited_choices_have_no_analytic_value() -> None:
    cells, records = made()
    cells["rule_parameters"] = [
        json.dumps({**json.loads(text), "lag": 1}) for text in cells["rule_parameters"]
    ]
    assert minibatch_bias_rows(cells, records)["analytic"].notna().any()
    for change in ({"lag": 1}, {"n_groups": 2, "n_chosen_groups": 1}):
        rows = minibatch_bias_rows(cells.assign(**change), records)
        assert rows["analytic"].isna().all()
        assert rows["excess"].notna().all()


def test_seeds_that_ended_early_are_left_out_and_named() -> None:
    cells, records = made()
    ended = (cells["rule"] == "fast") & (cells["seed"] > 0) | (cells["rule"] == "slow") & (
        cells["group"] == 0
    )
    cells.loc[ended, ["outcome", "reason"]] = ["bias_not_finite", "the bias became non-finite"]
    rows = minibatch_bias_rows(cells, records)
    fast, slow = (rows[rows["rule"] == rule] for rule in ("fast", "slow"))
    assert (fast["n_early"] == 2).all()
    assert fast["excess"].notna().all()
    assert fast["excess_high"].isna().all()
    assert list(slow["excess"].isna()) == [True] + [False] * 5
    np.testing.assert_allclose(slow["log_slope"], -1.0, atol=1e-12)
    text = printed(minibatch_bias_table(rows))
    assert "rate 0.1, strength 0.5, T=16: 3 of 3 seeds left out: the bias became non-finite" in text


def test_the_table() -> None:
    text = printed(minibatch_bias_table(minibatch_bias_rows(*made())))
    assert text.index("Normal: E=4, K=2, N=100, seeds: 3") < text.index("Cauchy: E=4")
    line = next(line for line in text.splitlines() if line.startswith("squared norm, rate 0.1"))
    assert line.split()[6:8] == ["16", "6.312e-03"]
    assert line.endswith("-1.000 [-1.000, -1.000]")
    assert text.count("squared norm, strength 0.5 ") == 2
    assert "nan" not in text


def test_the_figure_has_a_panel_per_source() -> None:
    rows = minibatch_bias_rows(*made())
    with style.settings():
        figure = sources_figure(rows)
        FigureCanvasAgg(figure).draw()
    assert [axes.get_title(loc="left")[:6] for axes in figure.axes] == ["Normal", "Cauchy"]
    want = rows[(rows["panel"] == 1) & (rows["rule"] == "slow")]
    drawn = [np.asarray(line.get_ydata()) for line in figure.axes[1].lines]
    assert any(np.array_equal(line, want["excess"]) for line in drawn)
    assert any(line.size == 5 and np.allclose(line[1:-1], want["analytic"], rtol=1e-12) for line in drawn)
    assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "log"
