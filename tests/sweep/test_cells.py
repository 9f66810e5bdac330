import re
from pathlib import Path

import pytest

from balancesim.sweep import cells
from balancesim.sweep.cells import tasks_of
from tests.sweep.tiny import N_CELLS, N_TASKS, TINY, configuration


def keys(folder: Path, text: str = TINY) -> list[str]:
    return [cell.key for task in tasks_of(configuration(folder, text)) for cell in task.cells]


def test_cells_that_differ_in_the_rule_form_a_task(tmp_path: Path) -> None:
    tasks = tasks_of(configuration(tmp_path))
    assert len(tasks) == N_TASKS
    for task in tasks:
        assert {cell.seed for cell in task.cells} == {task.seed}
        assert {cell.group.index for cell in task.cells} == {task.group.index}
        assert [cell.rule_index for cell in task.cells] == [0, 1, 2]


def test_keys_are_distinct_and_repeatable(tmp_path: Path) -> None:
    first = keys(tmp_path)
    assert len(set(first)) == N_CELLS
    assert all(re.fullmatch("[0-9a-f]{16}", key) for key in first)
    assert keys(tmp_path) == first


def test_a_key_depends_on_the_numbers_not_on_how_they_are_written(tmp_path: Path) -> None:
    assert keys(tmp_path, TINY.replace("step_size = 1", "step_size = [1.0]")) == keys(tmp_path)
    assert keys(tmp_path, TINY.replace('name = "tiny"', 'name = "other"')) == keys(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("horizon = 50", "horizon = 51"),
        ("n_records = 10", "n_records = 11"),
        ("n_records = 10", "n_records = 10\nn_exact = 3"),
        ("n_experts = 6", "n_experts = 7"),
        ('seeds = "0:2"', 'seeds = "2:4"'),
    ],
)
def test_all_that_decides_the_numbers_changes_every_key(tmp_path: Path, old: str, new: str) -> None:
    assert old in TINY
    assert not set(keys(tmp_path, TINY.replace(old, new))) & set(keys(tmp_path))


def test_the_engine_version_changes_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(tmp_path)
    monkeypatch.setattr(cells, "ENGINE_VERSION", cells.ENGINE_VERSION + 1)
    assert not set(keys(tmp_path)) & set(before)


def test_more_seeds_keep_the_keys(tmp_path: Path) -> None:
    assert set(keys(tmp_path)) < set(keys(tmp_path, TINY.replace("0:2", "0:3")))


OWN_RUN = TINY + '\n[[rule]]\nkind = "alf-lb"\nrun.horizon = 7\n'


def test_a_rule_with_a_run_of_its_own_is_a_task_apart(tmp_path: Path) -> None:
    tasks = tasks_of(configuration(tmp_path, OWN_RUN))
    assert len(tasks) == 2 * N_TASKS
    assert [task.run.horizon for task in tasks] == [50, 7] * N_TASKS
    assert [len(task.cells) for task in tasks] == [3, 1] * N_TASKS
    assert {task.run.n_records for task in tasks} == {10}
    # The other rules' cells are those of the experiment without it.
    assert [cell.key for task in tasks[::2] for cell in task.cells] == keys(tmp_path)


def test_its_cells_are_those_of_a_run_of_that_length(tmp_path: Path) -> None:
    short = TINY.replace("horizon = 50", "horizon = 7") + '\n[[rule]]\nkind = "alf-lb"\n'
    own = [cell.key for task in tasks_of(configuration(tmp_path, OWN_RUN))[1::2] for cell in task.cells]
    assert set(own) < set(keys(tmp_path, short))
