"""Exact solves: against other people's solvers, over score families, warm starts, memory, and the gap."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import numpy as np

from balancesim.bench.exact_ours import Gaps, Ours
from balancesim.bench.exact_peers import CVXPY_CLARABEL, CVXPY_HIGHS, HIGHS, OR_TOOLS, POT, Peer, PeerError
from balancesim.bench.instances import FAMILIES, Shape, normal
from balancesim.bench.process import extra_memory
from balancesim.bench.rows import Row, at_least, at_most, compared, measured, missing
from balancesim.bench.timing import Plan, alone, interleaved, per_unit, plain_pairs
from balancesim.bench.worker import Worker, absent
from balancesim.exact import solve
from balancesim.routing import route
from balancesim.sources import Drifting

AREA = "exact"

Goals = Mapping[Peer, float | None]

_CASES: tuple[tuple[Shape, Goals], ...] = (
    (Shape(1024, 16, 2), {OR_TOOLS: None, HIGHS: None, CVXPY_HIGHS: None, CVXPY_CLARABEL: None}),
    (Shape(4096, 64, 1), {OR_TOOLS: 25.0, POT: 25.0}),
    (Shape(4096, 64, 4), {OR_TOOLS: 25.0, HIGHS: 250.0}),
    (Shape(4096, 64, 8), {OR_TOOLS: 25.0}),
    (Shape(16384, 64, 1), {OR_TOOLS: 25.0, POT: 25.0}),
    (Shape(16384, 64, 8), {OR_TOOLS: 25.0}),
    (Shape(65536, 64, 8), {OR_TOOLS: 25.0}),
)
_LARGEST = Shape(65536, 256, 8)
_MIDDLE = Shape(4096, 64, 4)
_LAYER = Shape(16384, 64, 8)
_MEMORY_ROUNDS = 3
_BATCHES = 8

_PASSES = 40.0
_FAMILY = 3.0
_WARM = 2.0
_MEMORY = 0.25
_SAME_VALUE = 1e-6

_N_COMPARISONS = sum(len(goals) for _, goals in _CASES) + 2 * len(FAMILIES) + 3


def exact(plan: Plan) -> Iterator[Row]:
    """Measure `balancesim.solve`, the whole call: checking, solving, and the certificate.

    Parameters
    ----------
    plan : Plan
        Rounds, and the time for the whole area.

    Yields
    ------
    Row
    """
    gaps = Gaps()
    each = plan.share(_N_COMPARISONS)
    for shape, goals in _CASES:
        yield from against_peers(each, shape, goals, gaps)
    yield by_itself(Plan(min(plan.rounds, 3), each.seconds, plan.say), _LARGEST, gaps)
    yield in_passes(each, _LAYER, gaps)
    for shape in (_MIDDLE, _LAYER):
        yield from over_families(each, shape, gaps)
    yield warm_start(each, _MIDDLE, gaps)
    yield memory(plan, _LAYER)
    yield gaps.row(AREA)


def against_peers(plan: Plan, shape: Shape, goals: Goals, gaps: Gaps) -> Iterator[Row]:
    """Compare with peers on normal scores; a peer that is missing or fails gets a row that says so.

    Parameters
    ----------
    plan : Plan
        Rounds, and the time for one peer.
    shape : Shape
        The instance.
    goals : mapping of Peer to float or None
        The peers, and the factor to reach.
    gaps : Gaps
        Gets our certificates.

    Yields
    ------
    Row
        One a peer, in their order.
    """
    scores = normal(shape)
    ours = Ours(scores, shape.k, gaps)
    ours()
    failures: dict[str, str] = {}
    workers: dict[str, Worker] = {}
    with ExitStack() as stack:
        for peer in goals:
            plan.say(f"{shape} against {peer.name}")
            note = absent(peer)
            if note is None:
                workers[peer.name] = stack.enter_context(Worker(peer, scores, shape.k))
                note = _failure(workers[peer.name])
            if note is not None:
                failures[peer.name] = note
        ready = {name: worker for name, worker in workers.items() if name not in failures}
        pairs = interleaved(ours, ready, plan)
    for peer, bound in goals.items():
        goal = at_least(bound)
        if peer.name in failures:
            yield missing(AREA, str(shape), peer.name, goal, failures[peer.name])
            continue
        off = abs(workers[peer.name].value - ours.value) / max(1.0, abs(ours.value))
        note = f"its value differs by {off:.0e}" if not off <= _SAME_VALUE else ""
        yield compared(AREA, str(shape), peer.name, pairs[peer.name], goal, note=note)


def by_itself(plan: Plan, shape: Shape, gaps: Gaps) -> Row:
    """Solve what no peer is asked to.

    Parameters
    ----------
    plan : Plan
        Rounds and time.
    shape : Shape
        The instance.
    gaps : Gaps
        Gets our certificates.

    Returns
    -------
    Row
    """
    plan.say(f"{shape} alone")
    ours = Ours(normal(shape), shape.k, gaps)
    samples = alone(ours, plan)
    return measured(AREA, str(shape), samples, note=f"relative gap {ours.gap:.1e}")


def in_passes(plan: Plan, shape: Shape, gaps: Gaps) -> Row:
    """Count a solve in routing passes over the same scores.

    Parameters
    ----------
    plan : Plan
        Rounds and time.
    shape : Shape
        The instance.
    gaps : Gaps
        Gets our certificates.

    Returns
    -------
    Row
    """
    plan.say(f"{shape} against routing passes")
    scores = normal(shape)
    name = "one routing pass, float64"
    pairs = interleaved(Ours(scores, shape.k, gaps), {name: lambda: route(scores, k=shape.k)}, plan)
    return compared(AREA, str(shape), name, pairs[name], at_most(_PASSES))


def over_families(plan: Plan, shape: Shape, gaps: Gaps) -> Iterator[Row]:
    """Compare other scores with normal ones.

    Parameters
    ----------
    plan : Plan
        Rounds, and the time for one family.
    shape : Shape
        The size of all.
    gaps : Gaps
        Gets our certificates.

    Yields
    ------
    Row
        One a family.
    """
    usual = Ours(normal(shape), shape.k, gaps)
    for family, make in FAMILIES.items():
        plan.say(f"{shape} {family} scores")
        pairs = interleaved(Ours(make(shape), shape.k, gaps), {family: usual}, plan)[family]
        # Both are ours: the whole call is what counts on either side.
        whole = [pair._replace(peer=pair.peer._replace(build=0.0, solve=pair.peer.whole)) for pair in pairs]
        yield compared(AREA, f"{shape} {family}", "normal scores", whole, at_most(_FAMILY))


def warm_start(plan: Plan, shape: Shape, gaps: Gaps) -> Row:
    """Compare starting from the bias of the batch before with starting cold, on a drifting source.

    Parameters
    ----------
    plan : Plan
        Rounds and time.
    shape : Shape
        The batches.
    gaps : Gaps
        Gets our certificates.

    Returns
    -------
    Row
    """
    plan.say(f"{shape} warm start")
    source = Drifting(n_experts=shape.n_experts, offsets="iqr")
    batches = [source.batch(step, shape.n_tokens).astype(np.float64) for step in range(_BATCHES + 1)]
    before = solve(batches[0], k=shape.k).bias

    def warm() -> None:
        bias = before
        for batch in batches[1:]:
            found = solve(batch, k=shape.k, bias=bias)
            gaps.add(found)
            bias = found.bias

    def cold() -> None:
        for batch in batches[1:]:
            gaps.add(solve(batch, k=shape.k))

    name = "cold start"
    pairs = per_unit(interleaved(warm, {name: cold}, plan)[name], _BATCHES, _BATCHES)
    case = f"{shape} drifting, warm start"
    return compared(AREA, case, name, pairs, at_least(_WARM))


def memory(plan: Plan, shape: Shape) -> Row:
    """Compare the memory that a solve takes on top of its scores with OR-tools'.

    Parameters
    ----------
    plan : Plan
        Rounds; a few are enough.
    shape : Shape
        The instance.

    Returns
    -------
    Row
    """
    case, goal = f"{shape} extra memory", at_most(_MEMORY)
    plan.say(case)
    note = absent(OR_TOOLS)
    if note is not None:
        return missing(AREA, case, OR_TOOLS.name, goal, note)
    extra_memory("ours", shape)  # compiles, if need be, which takes more memory than any solve
    rounds = range(min(plan.rounds, _MEMORY_ROUNDS))
    figures = [[extra_memory(name, shape) for name in ("ours", "ortools")] for _ in rounds]
    pairs = plain_pairs(*zip(*figures, strict=True))
    return compared(AREA, case, OR_TOOLS.name, pairs, goal, unit="MiB")


def _failure(worker: Worker) -> str | None:
    """Call a peer once, and say what goes wrong, if anything."""
    try:
        worker()
    except PeerError as error:
        return str(error)
    return None
