"""The table: what it says, and that it fits where it is printed."""

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from balancesim.report import summary_table
from balancesim.report.rows import rule_rows
from tests.report.frames import EXACT, RULES, results


def printed(frame: pd.DataFrame, width: int = 80) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(summary_table(frame))
    return capture.get()


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_says_what_each_rule_did_on_each_source() -> None:
    groups, _, _ = results()
    text = printed(groups)
    assert text.count("E=16, K=2, T=256, N=1,000, seeds: 6") == 2
    assert text.count("regret against the population minimiser p*; μ(p*) = 1.07 per score unit") == 2
    line = line_of(text, "harmonic x1")
    assert line.split() == [
        "harmonic",
        "x1",
        "1.002",
        "±0.010",
        "1",
        "0.00",
        "[-0.05,",
        "0.05]",
        "log",
        "1.0123",
        "1.06",
    ]


def test_current_batch_rules_have_a_table_of_their_own() -> None:
    groups, _, _ = results(rules=(RULES[0], EXACT, RULES[4]))
    text = printed(groups)
    # Below the causal rules, whatever the order of the experiment.
    assert (
        text.index("no balancing") < text.index("harmonic x1") < text.index("current-batch rules: they see")
    )
    assert text.count("current-batch rules: they see the batch they assign") == 2
    assert line_of(text, "exact").split() == ["exact", "-1.002", "±0.010", "1.0000", "1.06"]
    alone, _, _ = results(rules=(EXACT,))
    assert "exponent [95 %]" not in printed(alone)


def test_a_share_of_nothing_is_a_difference() -> None:
    groups, _, _ = results()
    assert line_of(printed(groups.assign(kept_of_exact=np.nan)), "harmonic x1").split()[-2] == "+0.046"
    unknown = groups.assign(
        kept_of_exact=np.nan, score_over_exact=np.nan, exact_reason="after step 3: no way"
    )
    assert line_of(printed(unknown), "harmonic x1").split()[-2] == "-"
    assert printed(unknown).count("no exact optimum after step 3: no way") == 2


def test_empty_places_are_remarked_on() -> None:
    groups, _, _ = results()
    assert "places stay empty" not in printed(groups)
    dropping = groups.assign(drop_rate=[0.0, 0.1234] + [0.0] * (len(groups) - 2))
    assert f"{groups['rule'][1]}: 12.34% of the tokens' K places stay empty" in printed(dropping)


def test_keeps_the_order_of_the_run() -> None:
    groups, _, _ = results()
    text = printed(groups)
    assert text.index("Uniform") < text.index("Pareto")
    assert text.index("no balancing") < text.index("sign x0.3") < text.index("harmonic x1")


@pytest.mark.parametrize("width", [80, 200])
def test_no_column_is_cut(width: int) -> None:
    groups, _, _ = results()
    text = printed(groups, width)
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines() if "[" in line) <= 80


def test_what_is_not_known_is_a_dash() -> None:
    groups, _, _ = results(n_seeds=1)
    unknown = ["regret_low", "regret_high", "exponent", "exponent_low", "exponent_high", "mu_times_step"]
    text = printed(groups.assign(**dict.fromkeys(unknown, np.nan)))
    assert line_of(text, "sign x1").split()[3:7] == ["-", "-", "[-,", "-]"]
    assert "nan" not in text


def test_seeds_that_ended_early_are_named() -> None:
    groups, _, _ = results()
    ended = groups["rule"] == "sign x1"
    groups.loc[ended, ["n_early", "reason"]] = [
        2,
        "the bias became non-finite at step 7; lower the step size",
    ]
    text = " ".join(printed(groups).split())
    assert text.count("sign x1: 2 of 6 seeds left out: the bias became non-finite at step 7") == 2


def test_a_rule_that_ran_for_fewer_steps_is_named() -> None:
    groups, _, _ = results()
    groups.loc[groups["rule"] == "sign x1", "horizon"] = 500
    text = printed(groups)
    assert text.count("sign x1: N=500 for this rule") == 2
    assert "harmonic x1: N=" not in text


def test_unknown_modulus_is_said() -> None:
    groups, _, _ = results()
    text = printed(groups.assign(modulus=np.nan, modulus_low=np.nan, modulus_high=np.nan))
    assert "μ(p*) not known" in text


def test_long_labels_wrap() -> None:
    groups, _, _ = results()
    label = "harmonic x1, recentre=True, radius=2.5, delay=64, and more besides"
    text = printed(groups.replace({"rule": {"harmonic x1": label}}))
    assert "…" not in text
    assert "besides" in text


def test_a_limit_on_groups_is_said() -> None:
    groups, _, _ = results()
    text = printed(groups.assign(n_groups=4, n_chosen_groups=2))
    assert text.count("E=16, K=2, T=256, N=1,000, 2 of 4 groups, seeds: 6") == 2
    assert text.count("regret against nothing: it is not defined under a limit on groups") == 2
    assert "against the population minimiser" in printed(groups.assign(n_groups=4, n_chosen_groups=4))


def test_a_schedule_is_a_family_of_alf_lb_alone() -> None:
    rules = (
        ("sign x1", "alf-lb", "sign", 1.0, 0.5),
        ("megatron x1", "megatron", "sign", 1.0, 0.5),
        ("no balancing", "none", None, np.nan, 1.0),
    )
    rows = rule_rows(results(rules=rules, sources=("Uniform",))[0])
    assert [row.family for row in rows] == ["sign", "megatron", "none"]
    assert [row.variant for row in rows] == ["×1", "×1", "no balancing"]
