from pathlib import Path

import pytest

from balancesim.errors import ConfigurationError
from balancesim.sweep.experiment import experiment_files, find_experiment, load_draft, read_draft
from tests.sweep.tiny import TINY, write


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_draft(write(folder, text))
    return str(caught.value)


def test_values_know_where_they_were_written(tmp_path: Path) -> None:
    draft = read_draft(write(tmp_path))
    assert draft.name == "tiny"
    assert draft.run["horizon"] == (50, "run.horizon")
    assert draft.sources[1].settings["tail_index"] == (0.8, "source[1].tail_index")
    assert draft.rules[1].kind == ("alf-lb", "rule[1].kind")


def test_a_file_without_a_name_is_named_after_itself(tmp_path: Path) -> None:
    assert read_draft(write(tmp_path, "", "my_own.toml")).name == "my-own"


@pytest.mark.parametrize("text", ["[run]\nk = \n", "a = 1\n= 2\n", "name = 'x'\nname = 'y'\n"])
def test_a_syntax_error_names_file_and_line(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path, text)
    assert "tiny.toml" in message
    assert "at line 2" in message


def test_an_unknown_table_names_the_nearest(tmp_path: Path) -> None:
    assert "unknown key 'sources'; did you mean 'source'?" in refusal(
        tmp_path, "[[sources]]\nkind = 'normal'\n"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = 3", "name must be a string"),
        ("name = 'a/b'", "name must be letters"),
        ("run = 3", "run must be a table"),
        ("source = 'normal'", "source must be a list of tables"),
        ("[source]\nkind = 'normal'", "source must be a list of tables"),
        ("[[rule]]\nschedule = 'sign'", "rule[0] has no kind"),
    ],
)
def test_what_is_not_an_experiment_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*missing\.toml: No such file"):
        read_draft(tmp_path / "missing.toml")
    with pytest.raises(ConfigurationError, match="Is a directory"):
        read_draft(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_draft(tmp_path / "latin.toml")


def test_the_named_experiment_is_found() -> None:
    assert experiment_files()["regret-sweep"].name == "regret_sweep.toml"
    assert load_draft("regret-sweep", None).name == "regret-sweep"


def test_an_unknown_experiment_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'regret-sweep'"):
        find_experiment("regret-swep")
    with pytest.raises(ConfigurationError, match="an experiment is needed: one of balance-race"):
        load_draft(None, None)


def test_a_file_is_laid_over_a_named_experiment(tmp_path: Path) -> None:
    top = write(tmp_path, "[run]\nhorizon = 99\n[[rule]]\nkind = 'none'\n")
    base, draft = load_draft("regret-sweep", None), load_draft("regret-sweep", top)
    assert draft.name == base.name
    assert draft.run == {**base.run, "horizon": (99, "run.horizon")}
    assert draft.sources == base.sources
    assert [rule.kind.value for rule in draft.rules] == ["none"]


def test_a_file_alone(tmp_path: Path) -> None:
    assert load_draft(None, write(tmp_path, TINY)).name == "tiny"
