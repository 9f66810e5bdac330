"""Tokens that a small change of the price may move: collected once, then counted again and again.

A token whose K-th place is further ahead of the next than the width keeps its experts as long as no two
prices move apart by more than the width. What is left is a short list of entries per token near its boundary.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancesim.kernels.boundary import find_boundary, find_near, make_boundary
from balancesim.kernels.jit import inline, inner, kernel
from balancesim.kernels.members import lowest, n_words, write_members
from balancesim.kernels.model import LANES, n_rows
from balancesim.kernels.newton import along, begin, clear, copy, judge, proceed
from balancesim.kernels.topk import find_top, n_ranks
from balancesim.kernels.transpose import load_tile

_rows_of = inline(n_rows)
_PATIENCE = 4
_HITS = 2


class Candidates(NamedTuple):
    """Entries (token, expert) near a boundary, token by token.

    ``token`` (n,) int64; ``start`` (n + 1,) int64, the token's first entry; ``expert`` (m,) int64 ascending
    within a token; ``score`` (m,) float64; ``chosen`` (m,) bool.
    """

    token: NDArray[np.int64]
    start: NDArray[np.int64]
    expert: NDArray[np.int64]
    score: NDArray[np.float64]
    chosen: NDArray[np.bool_]


def joined(parts: list[Candidates]) -> Candidates:
    """Join candidates of consecutive parts of the tokens."""
    if len(parts) == 1:
        return parts[0]
    entries = np.cumsum([0, *(part.expert.size for part in parts)])
    starts = [part.start[:-1] + first for part, first in zip(parts, entries[:-1], strict=True)]
    return Candidates(
        token=np.concatenate([part.token for part in parts]),
        start=np.append(np.concatenate(starts), entries[-1]),
        expert=np.concatenate([part.expert for part in parts]),
        score=np.concatenate([part.score for part in parts]),
        chosen=np.concatenate([part.chosen for part in parts]),
    )


@inline
def noise(token, expert):
    """A number in [-1/2, 1/2) for each entry, to break ties by: four rounds of Philox-2x32."""
    left, right, key = np.uint64(token), np.uint64(expert), np.uint64(0x9E3779B9)
    for _ in range(4):
        product = np.uint64(0xD256D193) * left
        left = ((product >> np.uint64(32)) ^ key ^ right) & np.uint64(0xFFFFFFFF)
        right = product & np.uint64(0xFFFFFFFF)
        key = (key + np.uint64(0x9E3779B9)) & np.uint64(0xFFFFFFFF)
    return np.float64(left) * 2.0**-32 - 0.5


@inner
def perturb(tile, rows, n_experts, n_lanes, amplitude):
    """Add noise to the entries of a tile, the same for a token and an expert wherever they are met."""
    for e in range(n_experts):
        for t in range(n_lanes):
            tile[e, t] += amplitude * noise(rows[t], e)


@kernel
def collect_part(scores, k, price, width, amplitude, first, last, loads, words, keep):
    """Route tokens ``first:last``: add to loads (E,), write ``words`` (T, n_words(E)); return candidates.

    With ``keep`` the choice is what ``words`` holds already.
    """
    n_experts = scores.shape[1]
    tile = np.empty((_rows_of(n_experts), LANES), scores.dtype)
    top = np.empty((n_ranks(k), LANES), scores.dtype)
    group = np.empty((8, LANES), scores.dtype)
    bias = np.zeros(_rows_of(n_experts), scores.dtype)
    copy(price, bias)
    rows = np.empty(LANES, np.int64)
    boundary = make_boundary(tile, n_words(n_experts))
    near = np.zeros(boundary.words.shape, np.uint64)
    room, filled = make_room()
    for token in range(first, last, LANES):
        n_lanes = min(LANES, last - token)
        for t in range(n_lanes):
            rows[t] = token + t
        load_tile(scores, rows, n_lanes, tile)
        if amplitude > 0.0:
            perturb(tile, rows, n_experts, n_lanes, amplitude)
        find_top(tile, bias, k, top, group, n_lanes)
        tied = find_boundary(tile, bias, k, n_experts, top, n_lanes, boundary, loads)
        find_near(tile, bias, k, n_experts, n_lanes, boundary, tied, width, near)
        for w in range(near.shape[0]):
            for t in range(n_lanes):
                if keep:
                    boundary.words[w, t] = words[token + t, w]
                else:
                    words[token + t, w] = boundary.words[w, t]
        room = append_near(tile, near, boundary.words, n_experts, n_lanes, token, room, filled)
    return used_part(room, filled)


@inner
def make_room():
    """Return room for candidates, and how many tokens and entries of it are filled (2,)."""
    room = Candidates(
        np.empty(1024, np.int64),
        np.zeros(1025, np.int64),
        np.empty(4096, np.int64),
        np.empty(4096),
        np.empty(4096, np.bool_),
    )
    return room, np.zeros(2, np.int64)


@inner
def append_near(tile, near, members, n_experts, n_lanes, token, room, filled):
    """Append the entries ``near`` of a tile's tokens, from ``token`` on; return the room, or a wider."""
    n, m = filled[0], filled[1]
    size, n_entries = room.token.size, room.expert.size
    if n + LANES > size or m + LANES * n_experts > n_entries:
        size = 2 * size if n + LANES > size else size
        n_entries = 2 * n_entries + LANES * n_experts if m + LANES * n_experts > n_entries else n_entries
        room = Candidates(
            grown(room.token, size),
            grown(room.start, size + 1),
            grown(room.expert, n_entries),
            grown(room.score, n_entries),
            grown(room.chosen, n_entries),
        )
    for t in range(n_lanes):
        before = m
        for w in range(near.shape[0]):
            chosen = members[w, t]
            left = near[w, t]
            while left != np.uint64(0):
                bit = lowest(left)
                room.expert[m] = 64 * w + bit
                room.score[m] = tile[64 * w + bit, t]
                room.chosen[m] = ((chosen >> np.uint64(bit)) & np.uint64(1)) != np.uint64(0)
                m += 1
                left &= left - np.uint64(1)
        if m > before:
            room.token[n] = token + t
            n += 1
            room.start[n] = m
    filled[0], filled[1] = n, m
    return room


@inner
def used_part(room, filled):
    """Return the candidates that the room is filled with."""
    n, m = filled[0], filled[1]
    return Candidates(room.token[:n], room.start[: n + 1], room.expert[:m], room.score[:m], room.chosen[:m])


@inner
def grown(array, size):
    """Return the array with room for ``size`` entries."""
    if array.size == size:
        return array
    larger = np.empty(size, array.dtype)
    copy(array, larger)
    return larger


@inner
def make_sides():
    """What sets the chosen apart from the others by an addition (2, 2): see `ends`."""
    sides = np.zeros((2, 2))
    sides[0, 0], sides[1, 1] = np.inf, -np.inf
    return sides


@inline
def ends(expert, score, chosen, price, first, last, sides):
    """The entries of a token's least chosen and its best left, and their biased scores; infinite if none.

    Whether an entry is chosen is a coin toss that no processor foresees, so that nothing may branch on it:
    ``chosen`` as uint8 is an index into ``sides`` (`make_sides`), and places are counted as floats, whose
    selections compilers leave alone.
    """
    least, best_left = np.inf, -np.inf
    a, b, place = 0.0, 0.0, 0.0
    for j in range(first, last):
        x = score[j] + price[expert[j]]
        inside = x + sides[0, chosen[j]]
        outside = x + sides[1, chosen[j]]
        a = place if inside < least else a
        b = place if outside > best_left else b
        least = inside if inside < least else least
        best_left = outside if outside > best_left else best_left
        place += 1.0
    return first + np.int64(a), first + np.int64(b), least, best_left


@inner
def count_candidates(candidates, state):
    """Let every token choose at the state's price."""
    start, expert, score = candidates.start, candidates.expert, candidates.score
    chosen, sides = candidates.chosen.view(np.uint8), make_sides()
    price, loads, ties, width = state.price, state.loads, state.ties, state.width[0]
    clear(ties)
    near = np.int64(0)
    for i in range(candidates.token.size):
        a, b, least, best_left = ends(expert, score, chosen, price, start[i], start[i + 1], sides)
        while best_left > least:
            chosen[a], chosen[b] = 0, 1
            loads[expert[a]] -= 1
            loads[expert[b]] += 1
            a, b, least, best_left = ends(expert, score, chosen, price, start[i], start[i + 1], sides)
        close = np.int64(least - best_left <= width)
        ties[expert[a], expert[b]] += close
        near += close
    state.n_near[0] = near


@kernel
def descend_candidates(candidates, state, centre, reach, n_tokens, goal, max_passes):
    """Minimise the dual on the candidates until at most ``goal`` tokens are on the wrong side.

    ``state.loads`` are those of the candidates' choice and stay so. Prices that move apart from ``centre``
    by more than ``reach`` would move other tokens too: steps end there, and the third that would go beyond
    ends the descent. Ends at the best price seen. Returns the passes, the tokens on the wrong side there, and
    whether it was the reach that ended it.
    """
    begin(state)
    state.width[0] = min(state.width[0], reach)
    passes, hits = 0, 0
    while passes < max_passes:
        count_candidates(candidates, state)
        passes += 1
        if judge(state) <= goal:
            return passes, state.best_wrong[0], False
        if state.since[0] >= _PATIENCE:
            break
        proceed(state, n_tokens)
        # Beyond the reach not all near-ties are among the candidates.
        state.width[0] = min(state.width[0], reach)
        apart = spread(state.price, centre)
        if apart > reach:
            hits += 1
            if hits > _HITS:
                break
            for e in range(centre.size):
                price = centre[e] + (state.price[e] - centre[e]) * (reach / apart)
                state.step[e] += price - state.price[e]
                state.price[e] = price
            state.slope[0] = along(state)
    copy(state.best, state.price)
    count_candidates(candidates, state)
    return passes + 1, state.best_wrong[0], hits > _HITS


@inline
def spread(price, centre):
    """How far two prices have moved apart."""
    largest, least = -np.inf, np.inf
    for e in range(centre.size):
        move = price[e] - centre[e]
        largest = max(largest, move)
        least = min(least, move)
    return largest - least


@kernel
def narrowed(candidates, price, width):
    """Return the candidates within the width of their boundary at the price, and where their entries were."""
    start, expert, score, chosen = candidates.start, candidates.expert, candidates.score, candidates.chosen
    bits, sides = chosen.view(np.uint8), make_sides()
    n_entries = expert.size
    token = np.empty(candidates.token.size, np.int64)
    new_start = np.empty(start.size, np.int64)
    entry, new_expert = np.empty(n_entries, np.int64), np.empty(n_entries, np.int64)
    new_score, new_chosen = np.empty(n_entries), np.empty(n_entries, np.bool_)
    n, m = 0, 0
    new_start[0] = 0
    for i in range(candidates.token.size):
        _, _, least, best_left = ends(expert, score, bits, price, start[i], start[i + 1], sides)
        if least - best_left > width:
            continue
        for j in range(start[i], start[i + 1]):
            x = score[j] + price[expert[j]]
            entry[m], new_expert[m], new_score[m], new_chosen[m] = j, expert[j], score[j], chosen[j]
            m += int((x >= least - width) & (x <= best_left + width))
        if m > new_start[n]:
            token[n] = candidates.token[i]
            n += 1
            new_start[n] = m
    few = Candidates(token[:n], new_start[: n + 1], new_expert[:m], new_score[:m], new_chosen[:m])
    return few, entry[:m]


@kernel
def write_choice(candidates, words):
    """Write the candidates' choice into the bits ``words`` (T, n_words(E))."""
    for i in range(candidates.token.size):
        row = words[candidates.token[i]]
        for j in range(candidates.start[i], candidates.start[i + 1]):
            e = candidates.expert[j]
            place = np.uint64(e & 63)
            # No branch on who is chosen: see `ends`.
            row[e >> 6] &= ~(np.uint64(1) << place)
            row[e >> 6] |= np.uint64(candidates.chosen[j]) << place


@kernel
def list_members(words, first, last, experts):
    """Write the chosen experts of tokens ``first:last``, ascending, into ``experts`` (T, K)."""
    for i in range(first, last):
        write_members(words, i, experts[i])
