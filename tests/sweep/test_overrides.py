from collections.abc import Sequence
from pathlib import Path

import pytest

from balancesim.errors import ConfigurationError
from balancesim.sweep.cells import tasks_of
from balancesim.sweep.configuration import Configuration, resolve
from balancesim.sweep.experiment import load_draft, read_draft
from balancesim.sweep.overrides import apply_overrides, override_keys, parse_override
from tests.sweep.tiny import TINY, write


def overridden(path: Path, *texts: str) -> Configuration:
    return resolve(apply_overrides(read_draft(path), texts)[0])


def kinds(config: Configuration) -> list[str]:
    return [choice.parameters["kind"] for choice in config.choices]


def schedules(config: Configuration) -> list[str | None]:
    return [rule.get("schedule") for rule in config.rules]


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("k=2", "k", 2),
        ("run.k=2", "k", 2),
        ("source.tail_index=0.8,1.2", "source.tail_index", [0.8, 1.2]),
        ("source=normal,pareto", "source", ["normal", "pareto"]),
        ("rule.recentre=true", "rule.recentre", True),
        ("source.offsets=[0, 1.5]", "source.offsets", [0, 1.5]),
        ("source.offsets=[0,1],[1,0]", "source.offsets", [[0, 1], [1, 0]]),
        ("rule.radius=inf", "rule.radius", float("inf")),
        ("source.counts=a=b.npz", "source.counts", "a=b.npz"),
        ("seeds=0:4", "seeds", "0:4"),
    ],
)
def test_texts(text: str, key: str, value: object) -> None:
    assert parse_override(text) == (key, value)


@pytest.mark.parametrize("text", ["k", "=2", "k=", " = "])
def test_what_is_no_override(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--set wants KEY=VALUE"):
        parse_override(text)


def test_the_issue_s_grid_has_24_cells() -> None:
    texts = (
        "source=pareto",
        "source.tail_index=0.8,1.2,2.5",
        "rule.schedule=sign,harmonic",
        "rule.step_size=1",
        "seeds=0:4",
    )
    config = resolve(apply_overrides(load_draft("regret-sweep", None), texts)[0])
    cells = [cell for task in tasks_of(config) for cell in task.cells]
    assert len(cells) == len({cell.key for cell in cells}) == 24
    assert kinds(config) == ["pareto"] * 3
    assert schedules(config) == ["sign", "harmonic"]


def test_the_order_of_keys_does_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path)
    texts = ("source.tail_index=2,3", "source=pareto", "rule.schedule=sqrt")
    assert overridden(path, *texts) == overridden(path, *reversed(texts))


def test_the_last_of_one_key_wins(tmp_path: Path) -> None:
    assert overridden(write(tmp_path), "k=1", "k=3").run["k"] == (3,)


def test_a_source_axis_keeps_the_file_s_entries(tmp_path: Path) -> None:
    config = overridden(write(tmp_path), "source=pareto,uniform")
    assert kinds(config) == ["pareto", "uniform"]
    assert config.choices[0].parameters["tail_index"] == 0.8
    assert config.choices[1].parameters["n_experts"] == 6


def test_the_stream_keeps_its_own_batch() -> None:
    draft, notes = apply_overrides(load_draft("regret-sweep", None), ["source=token-stream"])
    (group,) = resolve(draft).groups
    assert (group.run.n_tokens, group.run.k, group.source["n_experts"]) == (64, 8, 64)
    assert notes == ()


def test_a_source_key_keeps_the_sources_that_have_it(tmp_path: Path) -> None:
    draft, notes = apply_overrides(read_draft(write(tmp_path)), ["source.tail_index=3"])
    assert kinds(resolve(draft)) == ["pareto"]
    assert notes == ("--set source.tail_index: leaves out normal, which have no such key",)


def test_entries_that_become_equal_are_one() -> None:
    draft, _ = apply_overrides(load_draft("regret-sweep", None), ["source.tail_index=3"])
    assert len(resolve(draft).groups) == 1


def test_a_rule_key_keeps_the_rules_that_have_it(tmp_path: Path) -> None:
    draft, notes = apply_overrides(read_draft(write(tmp_path)), ["rule.schedule=sign"])
    assert schedules(resolve(draft)) == ["sign"]
    assert notes == ("--set rule.schedule: leaves out none, which have no such key",)
    assert schedules(overridden(write(tmp_path), "rule=none")) == [None]


def test_a_run_key_beats_a_source_s_own() -> None:
    draft, _ = apply_overrides(load_draft("regret-sweep", None), ["n_tokens=32", "k=1,4"])
    assert {group.run.n_tokens for group in resolve(draft).groups} == {32}
    assert {group.run.k for group in resolve(draft).groups} == {1, 4}


def test_no_value_is_spelt_none(tmp_path: Path) -> None:
    config = overridden(write(tmp_path), "source.offsets=none")
    assert [choice.parameters["offsets"] for choice in config.choices] == [None, None]


def test_source_with_defaults_is_noted(tmp_path: Path) -> None:
    _, notes = apply_overrides(read_draft(write(tmp_path)), ["source=gumbel"])
    assert notes == ("--set source: the experiment has no source gumbel, so one with defaults is taken",)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["horizn=3"], "--set horizn: unknown key 'horizn'; did you mean 'horizon'?"),
        (["source.tail_indx=3"], "did you mean 'source.tail_index'?"),
        (["rule.schdule=sign"], "did you mean 'rule.schedule'?"),
        (["source=paretto"], "--set source: unknown source 'paretto'; did you mean 'pareto'?"),
        (["rule=alf"], "--set rule: unknown rule 'alf'; did you mean 'alf-lb'?"),
        (
            ["source.degrees=3"],
            "no source of this experiment has this key (normal, pareto); it belongs to student-t",
        ),
        (["source=uniform", "source.tail_index=3"], "no source of this experiment has this key (uniform)"),
        (["source.tail_index=-1"], "--set source.tail_index: `tail_index` must be"),
        (["rule.schedule=sine"], "--set rule.schedule: unknown value 'sine'; did you mean 'sign'?"),
        (["k=two"], "--set k: expected `int`, got `str`; the value is 'two'"),
        (["name=x"], "--set name: unknown key 'name'"),
    ],
)
def test_one_clear_error(tmp_path: Path, texts: Sequence[str], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        overridden(write(tmp_path), *texts)
    assert words in str(caught.value)


def test_every_key_is_offered() -> None:
    assert {"source", "rule", "horizon", "seeds", "source.tail_index", "rule.step_unit"} <= set(
        override_keys()
    )
    assert "source.seed" not in override_keys()


def test_a_run_key_beats_a_rule_s_own(tmp_path: Path) -> None:
    path = write(tmp_path, TINY + '\n[[rule]]\nkind = "exact"\nrun.horizon = 7\nrun.n_records = 4\n')
    assert overridden(path).rules[-1]["run"] == {"horizon": 7, "n_records": 4}
    assert overridden(path, "horizon=9").rules[-1]["run"] == {"n_records": 4}
    assert "run" not in overridden(path, "horizon=9", "n_records=3").rules[-1]
