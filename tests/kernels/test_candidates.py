"""Tokens near a boundary, and that no other token can move: what makes a short list enough."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancesim.exact.descent import new_descent
from balancesim.kernels import candidates as kernels
from balancesim.kernels.candidates import (
    Candidates,
    collect_part,
    descend_candidates,
    joined,
    list_members,
    narrowed,
    write_choice,
)
from balancesim.kernels.jit import kernel
from balancesim.kernels.model import LANES
from tests import naive
from tests.conftest import INTERPRETED
from tests.kernels.instances import (
    ALL,
    collect,
    experts_of,
    masked,
    near_ties,
    noise,
    perturbed,
    quarters,
    value_of,
    words_of,
)
from tests.strategies import batches


@kernel
def noise_of(tokens, experts, result):
    for i in range(tokens.size):
        result[i] = kernels.noise(tokens[i], experts[i])


@kernel
def count_candidates(found, state):
    kernels.count_candidates(found, state)


def copied(found):
    return Candidates(*(part.copy() for part in found))


def rows_of(found):
    """Per token: its number and its entries (expert, score, chosen)."""
    entries = list(zip(found.expert.tolist(), found.score.tolist(), found.chosen.tolist(), strict=True))
    bounds = found.start.tolist()
    assert bounds[0] == 0
    assert bounds[-1] == len(entries)
    return {
        token: entries[first:last]
        for token, first, last in zip(found.token.tolist(), bounds[:-1], bounds[1:], strict=True)
    }


def near_rows(scores, price, k, width, chosen=None):
    """The same by sorting; the boundary is that at the price, whatever is chosen."""
    rows = {}
    for i, row in enumerate(scores + price):
        inside, _, _, least, best_left = naive.boundary(row, k)
        now = inside if chosen is None else chosen[i]
        near = [e for e in range(row.size) if least - width <= row[e] <= best_left + width]
        if near:
            rows[i] = [(e, float(scores[i, e]), e in now) for e in near]
    return rows


def instance(seed, n_tokens, n_experts, k, *, smooth=False, masks=False):
    rng = np.random.default_rng(seed)
    scores = (rng.standard_normal if smooth else lambda shape: quarters(rng, shape))((n_tokens, n_experts))
    return masked(rng, scores, k) if masks else scores, quarters(rng, n_experts, 2)


SHAPES = [(5, 3, 1), (9, 9, 4), (LANES + 2, 5, 2), (3, 65, 63)]
if not INTERPRETED:
    SHAPES += [(1, 2, 1), (LANES, 8, 7), (LANES - 1, 17, 9), (40, 63, 8), (41, 64, 2), (LANES + 2, 130, 3)]


def test_noise_is_philox():
    rng = np.random.default_rng(0)
    tokens = np.concatenate([np.arange(40), rng.integers(0, 1 << 31, 40)])
    experts = np.concatenate([np.arange(40), rng.integers(0, 1024, 40)])
    found = np.empty(tokens.size)
    noise_of(tokens, experts, found)
    assert found.tolist() == [noise(int(t), int(e)) for t, e in zip(tokens, experts, strict=True)]
    grid = np.array([[noise(t, e) for e in range(40)] for t in range(100)])
    assert np.unique(grid).size == grid.size
    assert -0.5 <= grid.min() < -0.49
    assert 0.49 < grid.max() < 0.5
    # Four standard errors of the mean of as many uniform numbers.
    assert abs(grid.mean()) < 4.0 / np.sqrt(12.0 * grid.size)


@pytest.mark.parametrize("width", [0.0, 0.5, ALL])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_collects_the_entries_within_the_width(shape, width):
    n_tokens, n_experts, k = shape
    scores, price = instance(shape, *shape, masks=n_tokens % 2 == 1)
    found, loads, words = collect(scores, k, price, width)
    expected = naive.choose(scores, price, k)
    assert experts_of(words) == expected
    assert loads.tolist() == naive.loads_of(expected, n_experts)
    assert rows_of(found) == near_rows(scores, price, k, width)


def test_collects_in_parts_that_join():
    n_tokens, n_experts, k = 2 * LANES + 5, 6, 2
    scores, price = instance(0, n_tokens, n_experts, k)
    whole, loads, words = collect(scores, k, price, 0.5)
    again, in_parts, parts = np.zeros_like(words), np.zeros_like(loads), []
    for first in range(0, n_tokens, LANES):
        last = min(first + LANES, n_tokens)
        parts.append(collect_part(scores, k, price, 0.5, 0.0, first, last, in_parts, again, False))
    assert rows_of(joined(parts)) == rows_of(whole)
    assert (again == words).all()
    assert (in_parts == loads).all()
    assert all(a is b for a, b in zip(joined(parts[:1]), parts[0], strict=True))


def test_more_candidates_than_there_was_room_for():
    """The first room is for 1024 tokens and 4096 entries."""
    n_tokens = 1030 if INTERPRETED else 5000
    scores, price = instance(1, n_tokens, 5, 2)
    found, _, _ = collect(scores, 2, price)
    assert rows_of(found) == near_rows(scores, price, 2, ALL)
    assert found.token.size == n_tokens


@pytest.mark.parametrize("n_experts", [5, 65])
def test_a_choice_that_is_kept(n_experts):
    k = 3
    scores, price = instance(n_experts, 20, n_experts, k)
    rng = np.random.default_rng(0)
    chosen = [sorted(rng.permutation(n_experts)[:k].tolist()) for _ in range(20)]
    given = words_of(chosen, n_experts)
    words = given.copy()
    found, loads, _ = collect(scores, k, price, 0.75, words=words)
    assert (words == given).all()
    assert rows_of(found) == near_rows(scores, price, k, 0.75, chosen)
    assert loads.tolist() == naive.loads_of(naive.choose(scores, price, k), n_experts)


def test_noise_is_part_of_the_scores_that_are_collected():
    scores, price = instance(4, 30, 6, 2)
    found, _, words = collect(scores, 2, price, 0.25, amplitude=0.125)
    shaken = perturbed(scores, 0.125)
    assert rows_of(found) == near_rows(shaken, price, 2, 0.25)
    assert experts_of(words) == naive.choose(shaken, price, 2)


@given(batches(max_tokens=25, max_experts=9, masks=True), st.sampled_from([0.25, 0.5, 1.0, 2.0]), st.data())
def test_no_other_entry_moves_within_the_width(batch, width, data):
    """The reason why the method is exact: prices that move apart by no more than the width leave alone what
    is not listed, and what is listed tells the new choice."""
    scores, price, k = batch.scores.astype(np.float64), batch.bias.astype(np.float64), batch.k
    n_experts = price.size
    found, _, words = collect(scores, k, price, width)
    listed = rows_of(found)
    before = experts_of(words)
    shares = data.draw(st.lists(st.integers(0, 8), min_size=n_experts, max_size=n_experts), label="eighths")
    moved = price + np.array(shares) * width / 8 + data.draw(st.integers(-3, 3), label="of all")
    after = naive.choose(scores, moved, k)
    for i in range(len(scores)):
        near = {e: chosen for e, _, chosen in listed.get(i, [])}
        certain = {e for e in before[i] if e not in near}
        assert {e for e, chosen in near.items() if chosen} == set(before[i]) - certain
        # Ties at exactly the width may go by index either way; the value cannot tell.
        order = sorted(near, key=lambda e: (-(scores[i, e] + moved[e]), e))
        told = sorted(certain | set(order[: k - len(certain)]))
        assert value_of(scores + moved, [[]] * i + [told]) == value_of(scores + moved, [[]] * i + [after[i]])
        if i not in listed:
            assert after[i] == before[i]


def test_beyond_the_width_others_move():
    """The control: the same claim for a change of more than the width is false."""
    scores, price = instance(2, 60, 5, 2)
    found, _, words = collect(scores, 2, price, 0.25)
    others = sorted(set(range(60)) - set(rows_of(found)))
    assert others
    before = experts_of(words)
    for change, moves in ((0.25, False), (0.75, True)):
        after = [naive.choose(scores, price + change * np.eye(5)[e], 2) for e in range(5)]
        assert any(chosen[i] != before[i] for chosen in after for i in others) == moves


@given(batches(max_tokens=25, max_experts=9, masks=True), st.data())
def test_candidates_choose_what_is_best(batch, data):
    """Loads, near-ties and choice after a change of the price within the width; ties may go either way."""
    scores, price, k = batch.scores.astype(np.float64), batch.bias.astype(np.float64), batch.k
    n_experts = price.size
    found, loads, words = collect(scores, k, price, 1.0)
    state = new_descent(np.zeros(n_experts), np.zeros(n_experts))
    state.loads[:], state.width[0], state.ties[:] = loads, 0.0, 99
    moved = np.array([data.draw(st.integers(0, 8)) / 8 for _ in range(n_experts)])
    state.price[:] = price + moved
    count_candidates(found, state)
    write_choice(found, words)
    chosen = experts_of(words)
    assert [len(experts) for experts in chosen] == [k] * len(scores)
    assert state.loads.tolist() == naive.loads_of(chosen, n_experts)
    biased = scores + state.price
    assert value_of(biased, chosen) == value_of(biased, naive.choose(scores, state.price, k))
    assert state.n_near[0] == state.ties.sum()
    # Quarters and eighths: a token whose boundary has no width ties there, whichever of them is chosen.
    tied = sum(least == best_left for _, _, _, least, best_left in (naive.boundary(b, k) for b in biased))
    assert state.n_near[0] == tied


def test_candidates_count_like_sorting_without_ties():
    scores, price = instance(6, 200, 6, 2, smooth=True)
    found, loads, words = collect(scores, 2, price, 1.0)
    state = new_descent(np.zeros(6), np.zeros(6))
    state.loads[:], state.width[0] = loads, 0.4
    state.price[:] = price + np.array([0.0, 0.6, 0.1, 0.3, 0.0, 0.5])
    count_candidates(found, state)
    write_choice(found, words)
    assert experts_of(words) == naive.choose(scores, state.price, 2)
    assert (state.ties == near_ties(scores, state.price, 2, 0.4)).all()
    assert (state.loads != loads).any()


def descended(scores, k, reach, *, goal=0.0, max_passes=30, start=None, low=None, high=None):
    n_tokens, n_experts = scores.shape
    load = np.full(n_experts, n_tokens * k / n_experts)
    state = new_descent(load if low is None else low, load.copy() if high is None else high)
    state.width[0], state.limit[0] = 0.3, 50.0
    state.price[:] = 0.0 if start is None else start
    centre = state.price.copy()
    found, state.loads[:], words = collect(scores, k, centre, reach)
    result = descend_candidates(found, state, centre, reach, n_tokens, goal, max_passes)
    write_choice(found, words)
    chosen = experts_of(words)
    # In step with the choice, which is one for the price; and the price has stayed within the reach.
    assert state.loads.tolist() == naive.loads_of(chosen, n_experts)
    biased = scores + state.price
    best = value_of(biased, naive.choose(scores, state.price, k))
    assert value_of(biased, chosen) == pytest.approx(best, abs=1e-10)
    assert np.ptp(state.price - centre) <= reach * (1.0 + 1e-12)
    return state, result


@pytest.mark.parametrize("shape", [(120, 5, 2)] if INTERPRETED else [(120, 5, 2), (400, 8, 1), (300, 12, 9)])
def test_descends_to_a_handful(shape):
    _, n_experts, k = shape
    scores, _ = instance(shape, *shape, smooth=True)
    state, (passes, wrong, too_narrow) = descended(scores, k, 3.0, goal=n_experts / 2)
    assert wrong <= n_experts / 2
    assert not too_narrow
    assert passes <= 20
    excess = state.loads - state.low
    assert wrong == max(np.maximum(excess, 0).sum(), np.maximum(-excess, 0).sum())
    start = np.array(naive.loads_of(naive.choose(scores, np.zeros(n_experts), k), n_experts))
    assert np.maximum(start - state.low, 0).sum() > wrong


def test_a_reach_that_is_too_narrow_is_told():
    scores, _ = instance(8, 200, 5, 2, smooth=True)
    scores += [0.0, 0.0, 0.0, 0.0, 2.0]
    _, (_, wrong, too_narrow) = descended(scores, 2, 0.2)
    assert too_narrow
    assert wrong > 10.0
    _, (_, wrong, too_narrow) = descended(scores, 2, 4.0, goal=3.0)
    assert not too_narrow
    assert wrong <= 3.0


@pytest.mark.parametrize("reach", np.linspace(0.3, 2.4, 8))
def test_no_price_beyond_the_reach(reach):
    """Wherever the optimum is: within, at the border or beyond (`descended` looks at the price)."""
    scores, _ = instance(8, 200, 5, 2, smooth=True)
    _, (_, wrong, too_narrow) = descended(scores + np.array([0.0, 0.0, 0.0, 0.0, 1.0]), 2, reach, goal=3.0)
    assert too_narrow == (wrong > 3.0)


def test_no_more_passes_than_allowed():
    scores, _ = instance(9, 100, 5, 2, smooth=True)
    state, (passes, wrong, too_narrow) = descended(scores, 2, 3.0, max_passes=1)
    assert passes == 2  # one of these to go back to the best price
    assert not too_narrow
    assert (state.price == 0.0).all()
    assert wrong == np.maximum(state.loads - state.low, 0).sum()


@pytest.mark.parametrize("seed", range(6))
def test_descends_with_ties_and_intervals(seed):
    rng = np.random.default_rng(seed)
    n_experts = int(rng.integers(2, 8))
    k = int(rng.integers(1, n_experts))
    scores = quarters(rng, (60, n_experts), 3)
    load = 60 * k / n_experts
    low, high = np.full(n_experts, load - seed % 3), np.full(n_experts, load + seed % 3)
    _, (_, wrong, _) = descended(scores, k, 1.0, low=low, high=high)
    start = np.array(naive.loads_of(naive.choose(scores, np.zeros(n_experts), k), n_experts))
    before = max(np.maximum(start - high, 0).sum(), np.maximum(low - start, 0).sum())
    assert wrong <= before


@pytest.mark.parametrize("width", [0.0, 0.25, 1.0, ALL])
@pytest.mark.parametrize("seed", range(3 if INTERPRETED else 10))
def test_narrowed(seed, width):
    rng = np.random.default_rng(seed)
    n_experts = int(rng.integers(2, 9))
    k = int(rng.integers(1, n_experts))
    scores = masked(rng, quarters(rng, (30, n_experts)), k)
    found, _, _ = collect(scores, k, np.zeros(n_experts), 1.5)
    whole = copied(found)
    price = quarters(rng, n_experts, 2)
    few, entry = narrowed(found, price, width)
    expected = {}
    for token, entries in rows_of(found).items():
        biased = [(score + price[e], chosen) for e, score, chosen in entries]
        least = min((x for x, chosen in biased if chosen), default=np.inf)
        best_left = max((x for x, chosen in biased if not chosen), default=-np.inf)
        near = [
            row
            for row, (x, _) in zip(entries, biased, strict=True)
            if least - width <= x <= best_left + width and least - best_left <= width
        ]
        if near:
            expected[token] = near
    assert rows_of(few) == expected
    for part in ("expert", "score", "chosen"):
        assert (getattr(few, part) == getattr(found, part)[entry]).all()
    assert (np.diff(entry) > 0).all()
    # A copy: what is chosen there is chosen here only once it is written back.
    few.chosen[:] = ~few.chosen
    assert all((a == b).all() for a, b in zip(found, whole, strict=True))


@pytest.mark.parametrize("n_experts", [2, 63, 64, 65, 130])
def test_choices_are_written_and_listed(n_experts):
    rng = np.random.default_rng(n_experts)
    k = max(1, n_experts // 3)
    scores, price = instance(n_experts, 12, n_experts, k)
    found, _, words = collect(scores, k, price, 0.5)
    chosen = experts_of(words)
    for i, (first, last) in enumerate(zip(found.start[:-1], found.start[1:], strict=True)):
        found.chosen[first:last] = rng.permutation(found.chosen[first:last])
        near = found.expert[first:last].tolist()
        now = found.expert[first:last][found.chosen[first:last]].tolist()
        token = int(found.token[i])
        chosen[token] = sorted(set(chosen[token]) - set(near) | set(now))
    assert chosen != experts_of(words)
    write_choice(found, words)
    assert experts_of(words) == chosen
    experts = np.full((12, k), -1)
    list_members(words, 3, 12, experts)
    assert (experts[:3] == -1).all()
    assert experts[3:].tolist() == chosen[3:]
    list_members(words, 0, 3, experts)
    assert experts.tolist() == chosen
