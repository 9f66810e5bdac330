import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import pytest

from balancesim import balancers
from balancesim.balancers import AlfLB, Delayed
from balancesim.errors import ConfigurationError
from balancesim.groups import GroupLimit
from balancesim.sweep.cells import tasks_of
from balancesim.sweep.configuration import differences, reference_rule, resolve, rule_types
from balancesim.sweep.delays import NO_DELAYS, delay_keys
from balancesim.sweep.experiment import Setting, find_experiment, read_draft
from balancesim.sweep.labels import group_labels, rule_labels
from balancesim.sweep.parameters import axis
from balancesim.sweep.scales import build_rule
from balancesim.sweep.toml_text import toml_text
from tests.sweep.tiny import TINY, configuration

SOURCE = "[[source]]\nkind = 'normal'\nn_experts = 4\n"
RULE = "[[rule]]\nkind = 'none'\n"
ALF = "[[rule]]\nkind = 'alf-lb'\n"


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        configuration(folder, text)
    return str(caught.value)


def test_the_regret_sweep_is_what_it_says() -> None:
    config = resolve(read_draft(find_experiment("regret-sweep")))
    assert [(group.source["kind"], group.source["n_experts"]) for group in config.groups] == [
        ("uniform", 16),
        ("normal", 16),
        ("gumbel", 16),
        ("student-t", 16),
        ("pareto", 16),
        ("pareto", 16),
        ("token-stream", 64),
    ]
    assert [group.source.get("tail_index") for group in config.groups[4:6]] == [1.5, 0.8]
    assert [(group.run.n_tokens, group.run.k) for group in config.groups] == [(256, 2)] * 6 + [(64, 8)]
    assert {group.run.horizon for group in config.groups} == {10_000}
    assert [group.source["offsets"] for group in config.groups] == ["iqr"] * 6 + [None]
    assert config.seeds == tuple(range(16))
    steps = {(rule["schedule"], rule["step_size"], rule["step_unit"]) for rule in config.rules[1:]}
    units = {
        "sign": "percent-of-spread",
        "constant": "spread",
        "sqrt": "spread",
        "harmonic": "inverse-modulus",
    }
    assert steps == {(name, step, unit) for name, unit in units.items() for step in (0.3, 1.0, 3.0)}
    assert sum(len(task.cells) for task in tasks_of(config)) == 7 * 13 * 16
    assert config.rules[reference_rule(config)]["schedule"] == "harmonic"


def test_the_balance_race_is_what_it_says() -> None:
    config = resolve(read_draft(find_experiment("balance-race")))
    assert config.report == "race"
    assert len(config.seeds) == 8
    for group in config.groups:
        run = group.run
        assert (run.n_tokens, run.k, run.horizon, run.n_exact, run.comparator) == (1024, 8, 2000, 0, "none")
        assert group.source["n_experts"] == 64
    kinds = [group.source["kind"] for group in config.groups]
    assert kinds == ["uniform", "normal", "gumbel", "student-t", "pareto", "token-stream", "drifting"]
    assert config.groups[-1].source["switch_at"] == 1000
    registry = balancers.registry()
    current = [rule for rule in config.rules if not registry[rule["kind"]].causal]
    # Current-batch rules are run for fewer steps, and only they are.
    assert all(rule["run"]["horizon"] < 2000 for rule in current)
    assert {rule["kind"] for rule in config.rules if "run" in rule} == {rule["kind"] for rule in current}
    assert len(set(rule_labels(config))) == len(config.rules)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    for text in (TINY, find_experiment("regret-sweep").read_text(encoding="utf-8")):
        config = configuration(tmp_path, text)
        document = toml_text(config.document())
        assert tomllib.loads(document) == config.document()
        again = configuration(tmp_path, document)
        assert again == config
        assert [task.key for task in tasks_of(again)] == [task.key for task in tasks_of(config)]


def test_a_none_that_overrides_a_default_reads_back(tmp_path: Path) -> None:
    text = TINY + '\n[[source]]\nkind = "token-stream"\nn_experts = 64\noffsets = "none"\n'
    config = configuration(tmp_path, text)
    assert config.choices[-1].parameters["offsets"] is None
    assert configuration(tmp_path, toml_text(config.document())) == config


def test_a_list_is_an_axis_where_one_value_is_wanted(tmp_path: Path) -> None:
    text = (
        "[run]\nk = [1, 2]\n[[source]]\nkind = 'pareto'\nn_experts = [4, 6]\ntail_index = [1, 1.0, 2]\n"
        + RULE
    )
    config = configuration(tmp_path, text)
    assert [(c.parameters["n_experts"], c.parameters["tail_index"]) for c in config.choices] == [
        (4, 1.0),
        (4, 2.0),
        (6, 1.0),
        (6, 2.0),
    ]
    assert [(group.source["n_experts"], group.run.k) for group in config.groups[:3]] == [
        (4, 1),
        (4, 2),
        (4, 1),
    ]
    assert len(config.groups) == 8


def test_a_list_is_a_value_where_a_list_is_wanted(tmp_path: Path) -> None:
    source = "[[source]]\nkind = 'normal'\nn_experts = 3\n"
    one = configuration(tmp_path, source + "offsets = [0, 1, 2]\n" + RULE)
    assert [choice.parameters["offsets"] for choice in one.choices] == [[0.0, 1.0, 2.0]]
    two = configuration(tmp_path, source + "offsets = [[0, 1, 2], 'iqr']\n" + RULE)
    assert [choice.parameters["offsets"] for choice in two.choices] == [[0.0, 1.0, 2.0], "iqr"]


class Potential:
    """A class that only Python can make an object of."""


def test_of_a_choice_between_names_and_objects_a_file_gives_the_names() -> None:
    hint = Literal["entropy", "norm"] | Potential | None
    assert axis(Setting(["entropy", "norm"], "here"), hint) == ["entropy", "norm"]
    assert axis(Setting("norm", "here"), hint) == ["norm"]
    assert axis(Setting("none", "here"), hint) == [None]
    with pytest.raises(ConfigurationError, match="here: unknown value 'nurm'; did you mean 'norm'"):
        axis(Setting("nurm", "here"), hint)
    with pytest.raises(ConfigurationError, match="here: unknown value 'nurm'; did you mean 'norm'"):
        axis(Setting(["entropy", "nurm"], "here"), hint)


def test_source_defaults_go_where_they_fit(tmp_path: Path) -> None:
    text = "[source_defaults]\nn_experts = 4\ntail_index = 3.0\n[[source]]\nkind = 'normal'\n"
    config = configuration(tmp_path, text + "[[source]]\nkind = 'pareto'\n" + RULE)
    assert "tail_index" not in config.choices[0].parameters
    assert config.choices[1].parameters["tail_index"] == 3.0


def test_a_source_may_set_its_own_batch(tmp_path: Path) -> None:
    config = configuration(
        tmp_path, "[run]\nn_tokens = 32\n" + SOURCE + "n_tokens = 8\nk = 1\n" + SOURCE + RULE
    )
    assert [(group.run.n_tokens, group.run.k) for group in config.groups] == [(8, 1), (32, 2)]
    first, second = group_labels(config)
    assert first != second


def test_a_rule_may_set_the_length_of_its_own_run(tmp_path: Path) -> None:
    config = configuration(tmp_path, SOURCE + RULE + RULE + "run.horizon = 20\nrun.n_records = 5\n")
    assert [rule.get("run") for rule in config.rules] == [None, {"horizon": 20, "n_records": 5}]
    assert len(set(rule_labels(config))) == 2
    again = configuration(tmp_path, toml_text(config.document()))
    assert again.rules == config.rules
    assert again.identity() == config.identity()


def test_the_report_is_no_part_of_what_cells_are(tmp_path: Path) -> None:
    config = configuration(tmp_path, SOURCE + RULE)
    assert config.report == "regret"
    other = configuration(tmp_path, 'report = "race"\n' + SOURCE + RULE)
    assert other.report == "race"
    assert other.identity() == config.identity()
    assert configuration(tmp_path, toml_text(other.document())).report == "race"


def test_twins_are_one(tmp_path: Path) -> None:
    config = configuration(tmp_path, SOURCE + SOURCE + RULE + RULE)
    assert len(config.groups) == 1
    assert len(config.rules) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (RULE, "has no source"),
        (SOURCE, "has no rule"),
        (
            "[[source]]\nkind = 'paretto'\n" + RULE,
            "source[0].kind: unknown source 'paretto'; did you mean 'pareto'?",
        ),
        (
            SOURCE + "[[rule]]\nkind = 'alf_lb'\n",
            "rule[0].kind: unknown rule 'alf_lb'; did you mean 'alf-lb'?",
        ),
        (SOURCE + RULE + "[run]\nhorizn = 3\n", "run.horizn: unknown key 'horizn'; did you mean 'horizon'?"),
        (
            SOURCE + RULE + "[source_defaults]\noffset = 1\n",
            "source_defaults.offset: unknown key 'offset'; did you",
        ),
        (
            SOURCE + "scal = 2.0\n" + RULE,
            "source[0].scal: unknown key of normal 'scal'; did you mean 'scale'?",
        ),
        (SOURCE + "tail_index = 2.0\n" + RULE, "source[0].tail_index: unknown key of normal 'tail_index'"),
        (SOURCE + "seed = 2\n" + RULE, "source[0].seed: unknown key of normal 'seed'"),
        (SOURCE + "scale = -1.0\n" + RULE, "source[0].scale: `scale` must be"),
        (
            SOURCE + "scale = 'big'\n" + RULE,
            "source[0].scale: expected `float`, got `str`; the value is 'big'",
        ),
        (SOURCE + "scale = [1.0, 'big']\n" + RULE, "source[0].scale: expected `float`, got `str`"),
        (SOURCE + "scale = []\n" + RULE, "source[0].scale is an empty list"),
        (
            SOURCE + RULE + "run.horizn = 3\n",
            "rule[0].run.horizn: unknown key of a rule's run 'horizn'; did you mean 'horizon'?",
        ),
        (SOURCE + RULE + "run.k = 3\n", "rule[0].run.k: unknown key of a rule's run 'k'"),
        (SOURCE + RULE + "run.horizon = [3, 4]\n", "rule[0].run: a list makes no axis here"),
        (SOURCE + RULE + "run.horizon = 0\n", "rule[0].run.horizon: `horizon` must be at least 1"),
        (SOURCE + RULE + "run = 3\n", "rule[0].run: expected `object`, got `int`"),
        (
            SOURCE + "transform = 'sigmod'\n" + RULE,
            "source[0].transform: unknown value 'sigmod'; did you mean",
        ),
        (SOURCE + "[[rule]]\nkind = 'alf-lb'\nstep_size = 0.0\n", "rule[0].step_size: `step_size` must be"),
        (
            SOURCE + "[[rule]]\nkind = 'alf-lb'\nstep_unit = 'spred'\n",
            "rule[0].step_unit: unknown value 'spred'; did",
        ),
        (
            SOURCE + "[[rule]]\nkind = 'none'\nstep_size = 1.0\n",
            "rule[0].step_size: unknown key of none 'step_size'",
        ),
        (
            SOURCE + RULE + "[run]\nk = 4\n",
            "k must be below the source's number of experts; normal has 4, k is 4",
        ),
        (SOURCE + RULE + "[run]\nk = 0\n", "run.k: `k` must be at least 1, got 0"),
        (SOURCE + "k = 0\n" + RULE, "source[0].k: `k` must be at least 1, got 0"),
        (SOURCE + RULE + "[run]\nhorizon = 1.5\n", "run.horizon: expected `int`, got `float`"),
        (SOURCE + RULE + "[run]\nn_records = 1\n", "run.n_records: `n_records` must be at least 2, got 1"),
        (SOURCE + RULE + "[run]\ncomparator = 'best'\n", "run.comparator: unknown value 'best'"),
        (SOURCE + RULE + "[run]\nseeds = 'x'\n", "run.seeds is FIRST:END"),
        (
            SOURCE + RULE + "[reference]\nschedul = 'sign'\n",
            "reference.schedul: unknown key 'schedul'; did you mean",
        ),
        (SOURCE + RULE + "every = 4\n", "rule[0].every: unknown key of none 'every'"),
        (SOURCE + "[[rule]]\nkind = 'exact'\nlag = 1\n", "rule[0].lag: unknown key of exact 'lag'"),
        (SOURCE + ALF + "evry = 4\n", "rule[0].evry: unknown key of alf-lb 'evry'; did you mean 'every'?"),
        (SOURCE + ALF + "every = 0\n", "rule[0].every: `every` must be at least 1, got 0"),
        (SOURCE + ALF + "lag = [0, -1]\n", "rule[0].lag: `lag` must be at least 0, got -1"),
        (SOURCE + ALF + "n_ranks = 1.5\n", "rule[0].n_ranks: expected `int`, got `float`"),
        (SOURCE + ALF + "n_ranks = 0\n", "rule[0].n_ranks: `n_ranks` must be at least 1, got 0"),
        (SOURCE + ALF + "n_ranks = 300\n", "n_ranks of rule alf-lb must be at most n_tokens = 256, got 300"),
        (SOURCE + RULE + "[run]\nn_groups = -1\n", "run.n_groups: `n_groups` must be at least 0, got -1"),
        (
            SOURCE + RULE + "[run]\nn_group = 2\n",
            "run.n_group: unknown key 'n_group'; did you mean",
        ),
        (SOURCE + RULE + "[run]\nn_groups = 2\n", "n_groups = 2 needs n_chosen_groups"),
        (SOURCE + RULE + "[run]\nn_chosen_groups = 2\n", "n_chosen_groups = 2 needs n_groups"),
        (
            SOURCE + RULE + "[run]\nn_groups = 3\nn_chosen_groups = 1\n",
            "groups on source normal: `n_groups` must divide the 4 experts, got 3",
        ),
        (
            SOURCE + RULE + "[run]\nn_groups = 2\nn_chosen_groups = 3\n",
            "run: `n_chosen_groups` must be at most n_groups = 2, got 3",
        ),
        (
            SOURCE + RULE + "[run]\nk = 3\nn_groups = 2\nn_chosen_groups = 1\n",
            "`n_chosen_groups` = 1 groups hold 2 experts, below k = 3",
        ),
        (
            SOURCE + RULE + "[run]\nn_groups = 4\nn_chosen_groups = 2\n",
            'leaves one expert a group; "top2" needs two, use group_score = "max"',
        ),
        (
            SOURCE + RULE + "[run]\nn_groups = 2\nn_chosen_groups = 1\ngroup_score = 'top3'\n",
            "run.group_score: unknown value 'top3'; did you mean 'top2'?",
        ),
        (
            SOURCE + "[[rule]]\nkind = 'exact'\n[run]\nn_groups = 2\nn_chosen_groups = 1\n",
            "n_groups limits what a price chooses, and rule exact assigns without one",
        ),
        (
            SOURCE + "[[rule]]\nkind = 'switch-loss'\n",
            "acts in the loss of a router that learns, and an experiment's sources have none; use balancesim",
        ),
        (
            SOURCE + "[[rule]]\nkind = 'phi-balance'\nform = 'gradient'\n",
            "rule[0]: phi-balancing gradient, negative entropy",
        ),
        (
            SOURCE + "[[rule]]\nkind = 'quantile'\n[run]\nn_groups = 2\nn_chosen_groups = 1\n",
            "n_groups makes tokens choose among few experts, and rule quantile balances a choice among all",
        ),
        ("[[source]]\nkind = 'normal'\n" + RULE, "source[0] (Normal) needs n_experts"),
        ("[[source]]\nkind = ['normal']\n" + RULE, "source[0].kind: unknown source"),
        (
            "[[source]]\nkind = 'recorded'\nscores = 'nowhere.npy'\n" + RULE,
            "source[0].scores: `scores` names the file",
        ),
        ("[[source]]\nkind = 'token-stream'\ncounts = 'olmo'\n" + RULE, "source[0].counts: `counts` must be"),
    ],
)
def test_one_clear_error(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_the_default_unit_depends_on_the_schedule(tmp_path: Path) -> None:
    rule = "[[rule]]\nkind = 'alf-lb'\n"
    config = configuration(tmp_path, SOURCE + rule + rule + "step_size = 'auto'\nstep_unit = 'default'\n")
    assert [rule["step_unit"] for rule in config.rules] == ["score", "score"]
    assert rule_labels(config) == ("harmonic 1", "harmonic auto")


def test_labels_tell_rules_apart(tmp_path: Path) -> None:
    rule = "[[rule]]\nkind = 'alf-lb'\nschedule = 'sign'\n"
    units = "step_unit = ['spread', 'percent-of-spread']\n"
    config = configuration(tmp_path, SOURCE + rule + units + rule + "delay = 3\nrecentre = true\n")
    assert rule_labels(config) == (
        "sign x1, spread",
        "sign x1, percent-of-spread",
        "sign 1, recentre=True, delay=3",
    )


def test_a_preset_is_a_kind_whose_keys_can_be_overridden(tmp_path: Path) -> None:
    rules = "[[rule]]\nkind = 'megatron'\nstep_size = [1e-3, 0.01]\n[[rule]]\nkind = 'olmo-core'\n"
    rules += "[[rule]]\nkind = 'torchtitan-qb'\nn_bins = 64\n"
    config = configuration(tmp_path, SOURCE + rules)
    assert [rule["kind"] for rule in config.rules] == ["megatron", "megatron", "olmo-core", "torchtitan-qb"]
    assert [rule.get("step_size") for rule in config.rules] == [1e-3, 0.01, 1e-4, None]
    assert all(rule.get("schedule", "sign") == "sign" for rule in config.rules)
    assert config.rules[3]["estimate"] == "histogram"
    # Rules that do the same keep names of their own.
    assert rule_labels(config) == (
        "megatron 0.001",
        "megatron 0.01",
        "olmo-core 0.0001",
        "torchtitan-qb, n_bins=64",
    )
    assert "unknown rule 'megatro'; did you mean 'megatron'" in refusal(
        tmp_path, SOURCE + "[[rule]]\nkind = 'megatro'\n"
    )


def test_differences_name_the_keys(tmp_path: Path) -> None:
    here = configuration(tmp_path, TINY)
    there = configuration(tmp_path, TINY.replace("0.8", "1.5").replace("horizon = 50", "horizon = 51"))
    assert differences(here.identity(), there.identity()) == [
        "run.horizon (51 there, 50 here)",
        "source[1].tail_index (1.5 there, 0.8 here)",
    ]
    fewer = configuration(tmp_path, TINY + RULE.replace("none", "alf-lb"))
    assert differences(here.identity(), fewer.identity()) == ["rule (4 there, 3 here)"]
    seeds = configuration(tmp_path, TINY.replace("0:2", "0:9"))
    assert differences(here.identity(), seeds.identity()) == []


def test_the_reference_falls_back_to_the_first_rule(tmp_path: Path) -> None:
    assert reference_rule(configuration(tmp_path, TINY)) == 2
    assert reference_rule(configuration(tmp_path, SOURCE + RULE)) == 0
    assert (
        reference_rule(configuration(tmp_path, TINY.replace('reference = { schedule = "harmonic" }', "")))
        == 0
    )


def test_delays_are_keys_of_every_rule_with_a_price_of_its_own(tmp_path: Path) -> None:
    config = configuration(tmp_path, SOURCE + ALF + "every = [1, 4]\nlag = [0, 1]\nn_ranks = 1\n")
    # What is omitted and what has its default are the same rule, with the same key of its cells.
    assert config.rules[0] == configuration(tmp_path, SOURCE + ALF).rules[0]
    assert [(rule.get("every"), rule.get("lag")) for rule in config.rules] == [
        (None, None),
        (None, 1),
        (4, None),
        (4, 1),
    ]
    assert rule_labels(config) == (
        "harmonic 1",
        "harmonic 1, lag=1",
        "harmonic 1, every=4",
        "harmonic 1, every=4, lag=1",
    )
    again = configuration(tmp_path, toml_text(config.document()))
    assert again.rules == config.rules
    assert set(rule_types(AlfLB)) - {item.name for item in fields(AlfLB)} == {"step_unit", *NO_DELAYS}


def test_a_reference_may_name_a_delay(tmp_path: Path) -> None:
    rules = ALF + "every = [4, 1]\n"
    for every, index in ((4, 0), (1, 1), (2, 0)):
        text = SOURCE + rules + f"[reference]\nevery = {every}\n"
        assert reference_rule(configuration(tmp_path, text)) == index


def test_a_rule_s_own_key_wins_over_a_delay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Lagging(AlfLB):
        lag: float = 0.5

    assert delay_keys(Lagging) == ("every", "n_ranks")
    known = {**balancers.registry(), "lagging": Lagging}
    monkeypatch.setattr("balancesim.balancers.registry", lambda: known)
    rule = configuration(tmp_path, SOURCE + "[[rule]]\nkind = 'lagging'\nlag = 0.25\nevery = 2\n").rules[0]
    built = build_rule(rule, 1.0)
    assert isinstance(built, Delayed)
    assert (built.rule.lag, built.lag, built.every) == (0.25, 0, 2)


def test_groups_are_an_axis_of_a_run(tmp_path: Path) -> None:
    text = SOURCE.replace("4", "8") + RULE + "[run]\nn_groups = 4\nn_chosen_groups = [4, 2]\n"
    config = configuration(tmp_path, text)
    assert [group.run.groups for group in config.groups] == [GroupLimit(4, 4), GroupLimit(4, 2)]
    assert group_labels(config) == ("Normal, 4 of 4 groups (top2)", "Normal, 2 of 4 groups (top2)")
    assert configuration(tmp_path, toml_text(config.document())) == config


def test_no_groups_leave_the_cells_as_they_were(tmp_path: Path) -> None:
    plain = configuration(tmp_path, SOURCE + RULE).groups[0].run
    assert plain.groups is None
    assert not [key for key in plain.deciding() if "group" in key]
    assert replace(plain, group_score="max").deciding() == plain.deciding()
    limited = replace(plain, n_groups=2, n_chosen_groups=1)
    assert limited.deciding() != replace(limited, group_score="max").deciding()
