"""What drives a simulation on a CUDA card: launches of many steps, and what they leave behind."""

from collections.abc import Iterator, Sequence

import numpy as np

from balancesim.balancers import Rule, alf_lb
from balancesim.balancers.protocol import PriceRule
from balancesim.driver import Driver
from balancesim.errors import InputError
from balancesim.feed import Chunk
from balancesim.groups import GroupLimit
from balancesim.kernels.rules import NOT_FINITE, RUNNING
from balancesim.kernels_cupy import device
from balancesim.kernels_cupy.loop import MOST_RECORDS, Problem, Records, Steps, most_rules
from balancesim.kernels_cupy.scores import DeviceModel

_STEPS_PER_LAUNCH = 1 << 16
_SCORES_PER_LAUNCH = 1 << 36
"""Scores, times rules, of one launch: some tenths of a second, for Ctrl-C and progress to work."""


def check_rules(rules: Sequence[Rule], groups: GroupLimit | None, n_experts: int) -> None:
    """Refuse what the card's loop does not run.

    Parameters
    ----------
    rules : sequence of Rule
        The rules, with their step sizes as numbers.
    groups : GroupLimit or None
        The limit on groups.
    n_experts : int
        E.

    Raises
    ------
    InputError
        The message names what is not supported, and the way out.
    """
    way_out = 'use backend "numba" for it'
    if groups is not None:
        raise InputError(f'`backend` "cupy" routes among all experts, without a limit on groups; {way_out}')
    for rule in rules:
        form = rule.kernel_form(n_experts, 1, 1) if isinstance(rule, PriceRule) else None
        moves_otherwise = form is None or not (form.update is None or form.update is alf_lb.update)
        if form is None or moves_otherwise or form.threshold or form.observe is not None:
            raise InputError(
                f'`backend` "cupy" runs ALF-LB and "none" only, got {rule.describe()}; {way_out}'
            )
        if (form.every, form.lag, form.n_ranks) != (1, 0, 1):
            raise InputError(
                f'`backend` "cupy" updates a price once a batch, at once, got {rule.describe()}; {way_out}'
            )


class CardDriver(Driver):
    """A `Driver` whose steps run on the card: loads, biases and choices are those of the Numba kernels."""

    _model: DeviceModel | None = None
    _loops: Sequence[tuple[list[int], Steps]] = ()

    def _steps_per_chunk(self, scores_per_step: int) -> int:
        """Steps a launch at the most."""
        return max(1, min(_STEPS_PER_LAUNCH, _SCORES_PER_LAUNCH // scores_per_step))

    def _run_chunk(self, chunk: Chunk) -> None:
        """Run a chunk's steps, launch by launch."""
        if self._model is None or self._model.model is not chunk.model:
            self._model = DeviceModel(chunk.model, self.workspace.tile.dtype)
        self._loops = self._loops or self._parts(self._model)
        for first, last, places in self._launches(chunk.first + 1, chunk.last + 1):
            for members, steps in self._loops:
                found = steps.run(self._model, first, last, self.record.steps[places].tolist())
                self._fill(members, places, found, steps.stopped())

    def _parts(self, model: DeviceModel) -> list[tuple[list[int], Steps]]:
        """The rules that start at all, in parts that a block's shared memory holds, and their state."""
        running = [s for s in range(len(self.rules)) if self.kernel_rules.state[s] == RUNNING]
        if not running:
            return []
        comparators = np.array([one.bias for one in self._distinct]).reshape(-1, self.source.n_experts)
        most = most_rules(self.source.n_experts, self.n_tokens, self.k, len(comparators), model)
        n_parts = -(-len(running) // most)
        borders = [len(running) * i // n_parts for i in range(n_parts + 1)]
        members = [running[borders[i] : borders[i + 1]] for i in range(n_parts)]
        return [(own, Steps(self._problem(own, comparators), model)) for own in members]

    def _problem(self, members: list[int], comparators: np.ndarray) -> Problem:
        rules = self.kernel_rules
        parameters = np.zeros((len(members), 5))
        for row, s in enumerate(members):
            given = rules.parameters[rules.parameters_at[s] : rules.parameters_at[s + 1]]
            parameters[row, : given.size] = given
        return Problem(
            n_tokens=self.n_tokens,
            k=self.k,
            parameters=parameters,
            updates=rules.update[members] != 0,
            against=rules.against[members],
            comparators=comparators,
            price=rules.price[members],
            limit=self.wide_limit,
            largest_price=self.largest_price,
        )

    def _launches(self, first: int, last: int) -> Iterator[tuple[int, int, slice]]:
        """Cut steps so that no launch has more records than it has room for."""
        steps = self.record.steps
        while first <= last:
            place = int(np.searchsorted(steps, first))
            end = min(place + MOST_RECORDS, int(np.searchsorted(steps, last, side="right")))
            is_cut = end < steps.size and steps[end] <= last
            until = int(steps[end]) - 1 if is_cut else last
            yield first, until, slice(place, end)
            first = until + 1

    def _fill(self, members: list[int], places: slice, found: Records, stopped: np.ndarray) -> None:
        """Write a launch's records where the Numba loop writes them."""
        record, n_tokens, n_experts = self.record, self.n_tokens, self.source.n_experts
        steps = record.steps[places]
        since = np.diff(record.steps[: places.stop], prepend=0)[places]
        for i, s in enumerate(members):
            n = steps.size if stopped[i] == 0 else int(np.searchsorted(steps, stopped[i], side="right"))
            if stopped[i] != 0 and self.kernel_rules.state[s] == RUNNING:
                self.kernel_rules.state[s], self.kernel_rules.stopped[s] = NOT_FINITE, stopped[i]
            here = slice(places.start, places.start + n)
            violation, window, price_sum, moved = found.numbers[:n, i].T
            record.loads[s, here] = found.loads[:n, i]
            record.window_loads[s, here] = found.window_loads[:n, i]
            record.bias[s, here] = found.price[:n, i]
            record.max_violation[s, here] = violation
            record.mean_max_violation[s, here] = window / since[:n]
            record.regret[s, here] = found.regret[:n, i] / n_tokens - self.k / n_experts * price_sum
            record.score_lost[s, here] = (found.lost[:n, i] + moved) / n_tokens
            record.top_score[s, here] = found.top[:n] / n_tokens
            if n > 0:
                record.n_filled[s] = here.stop


def require() -> None:
    """Raise `MissingDependencyError` unless CuPy and a card are there."""
    device.cupy()
