"""The simulation of balancing rules on a source of scores: draw, route, measure, update."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from balancesim.assignments import at_step
from balancesim.balancers import AlfLB, BatchRule, Delayed, PenaltyRule, PriceRule, Rule
from balancesim.batches import as_bias, check_groups
from balancesim.driver import Driver
from balancesim.errors import InputError, unknown_name
from balancesim.feed import available_steps
from balancesim.groups import GroupLimit
from balancesim.hindsight import best_fixed_bias
from balancesim.numbers import check_int
from balancesim.problem import check_sizes
from balancesim.runs import Comparator, Run
from balancesim.sources.base import Source
from balancesim.types import Float64Array


@overload
def simulate(
    rule: Rule,
    source: Source,
    *,
    n_tokens: int = ...,
    k: int = ...,
    horizon: int = ...,
    seed: int | None = ...,
    comparator: Literal["auto", "population", "hindsight", "rule", "none"] | ArrayLike = ...,
    groups: GroupLimit | None = ...,
    n_records: int = ...,
    n_exact: int = ...,
    backend: Literal["numba", "cupy"] | None = ...,
    progress: Callable[[int], None] | None = ...,
) -> Run: ...


@overload
def simulate(
    rule: Sequence[Rule],
    source: Source,
    *,
    n_tokens: int = ...,
    k: int = ...,
    horizon: int = ...,
    seed: int | None = ...,
    comparator: Literal["auto", "population", "hindsight", "rule", "none"] | ArrayLike = ...,
    groups: GroupLimit | None = ...,
    n_records: int = ...,
    n_exact: int = ...,
    backend: Literal["numba", "cupy"] | None = ...,
    progress: Callable[[int], None] | None = ...,
) -> list[Run]: ...


def simulate(
    rule: Rule | Sequence[Rule],
    source: Source,
    *,
    n_tokens: int = 256,
    k: int = 2,
    horizon: int = 10_000,
    seed: int | None = None,
    comparator: Literal["auto", "population", "hindsight", "rule", "none"] | ArrayLike = "auto",
    groups: GroupLimit | None = None,
    n_records: int = 64,
    n_exact: int = 8,
    backend: Literal["numba", "cupy"] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Run | list[Run]:
    """Run one rule, or several on shared draws, for ``horizon`` batches.

    Step n = 1, 2, ... routes ``source.batch(n - 1, n_tokens)`` with the bias before the update, or as a
    current-batch rule assigns it.

    Parameters
    ----------
    rule : PriceRule, BatchRule or sequence of these
        Each rule of a sequence gets the bits it would have alone.
    source : Source
        Scores; its seed keys all draws.
    n_tokens : int, optional
        Tokens per batch, T.
    k : int, optional
        Experts per token, 1 <= k < E.
    horizon : int, optional
        Batches, N.
    seed : int, optional
        Replaces the source's own seed.
    comparator : {"auto", "population", "hindsight", "rule", "none"} or (E,) array_like, optional
        What regret is measured against: the population minimiser, the best fixed bias in hindsight, or a
        given bias; "auto" is the population minimiser where it is known, else hindsight. "rule": each rule
        that has an objective of its own (P6) is measured on that, against its minimiser; others as "auto".
        "none": regret is left out and NaN, which spares the replays that find a bias in hindsight. It
        replaces hindsight where no rule has regret: under a limit on groups, or if all choose by threshold.
    groups : GroupLimit, optional
        Tokens choose among their best groups of experts only. Regret is then NaN, as the choice maximises no
        sum that the dual is of (docs/groups_and_delays.md); score is lost against the K best without bias and
        without groups. A limit that allows every group is none.
    n_records : int, optional
        Recorded steps, log-spaced, the first and the last included; fewer where they coincide.
    n_exact : int, optional
        Of the last so many records, the batch that follows is also solved exactly, and what the rule makes of
        it held against that optimum; 0 leaves this out.
    backend : {"numba", "cupy"}, optional
        "numba" (default), or "cupy": steps run on a CUDA card, for ALF-LB and no balancing. Loads, choices
        and biases have the same bits on both; sums of scores differ in their last digits (docs/gpu.md).
    progress : callable, optional
        Called now and then with the number of steps done.

    Returns
    -------
    Run or list of Run
        One per rule, in order.

    Raises
    ------
    InputError
        If an argument breaks its rule, a step size is "auto" where no modulus is known, a rule written in
        Python returns what is no bias or no assignment, or the backend does not run a rule.
    MissingDependencyError
        If the backend is "cupy" and there is no CuPy or no card.

    Notes
    -----
    The loop runs in one compiled kernel that releases the GIL; memory does not grow with the horizon. A rule
    without a kernel form runs too, with a call into Python at every step; so do current-batch rules. Results
    depend on no number of threads. Scores are drawn and routed in the source's dtype; biases, losses and
    regret are kept in float64. Eight exact optima cost about as much as a few hundred steps.
    """
    rules = [rule] if isinstance(rule, Rule) else _listed(rule)
    _check_arguments(rules, source, n_tokens, k, horizon, n_records, n_exact, groups)
    if seed is not None:
        source = source.with_seed(seed)
    rules = [_with_step_size(one, source, k) for one in rules]
    n_steps = available_steps(source, n_tokens, horizon)
    if n_steps == 0:
        raise InputError(f"`n_tokens` = {n_tokens} is more than the recording holds; use smaller batches")
    if groups is not None and groups.n_chosen == groups.n_groups:
        groups = None
    make_driver = _driver(backend, rules, groups, source.n_experts)
    has_regret = [groups is None and not (isinstance(one, PriceRule) and one.threshold) for one in rules]
    comparators, start = _find_comparators(comparator, rules, has_regret, source, n_tokens, k, n_steps)
    driver = make_driver(
        rules, source, comparators, n_tokens, k, horizon, n_steps, n_records, n_exact, groups, start
    )
    runs = driver.run(progress)
    return runs[0] if isinstance(rule, Rule) else runs


def _driver(backend: Any, rules: list[Rule], groups: GroupLimit | None, n_experts: int) -> type[Driver]:
    """Return what drives the run; refuse at once what the backend does not run, or a missing backend."""
    if backend is None or backend == "numba":
        return Driver
    if backend != "cupy":
        raise InputError(unknown_name("backend", str(backend), ("numba", "cupy")))
    from balancesim.driver_cupy import CardDriver, check_rules, require

    check_rules(rules, groups, n_experts)
    require()
    return CardDriver


def _listed(rules: Any) -> list[Rule]:
    if isinstance(rules, str | type) or not isinstance(rules, Iterable):
        raise InputError(
            f"`rule` must be a rule or a sequence of rules, got {rules!r}; e.g. AlfLB(step_size=1.0)"
        )
    return list(rules)


def _check_arguments(
    rules: list[Rule],
    source: Source,
    n_tokens: int,
    k: int,
    horizon: int,
    n_records: int,
    n_exact: int,
    groups: GroupLimit | None,
) -> None:
    if not rules:
        raise InputError("`rule` must be a rule or a non-empty sequence of rules, got an empty sequence")
    for one in rules:
        if not isinstance(one, PriceRule | BatchRule | PenaltyRule):
            raise InputError(
                f"`rule` must be a PriceRule or a BatchRule, got {one!r}; "
                "derive from one of these in balancesim.balancers"
            )
        if one.needs_probabilities or not isinstance(one, PriceRule | BatchRule):
            raise InputError(
                f"`rule` {one.describe()} needs router probabilities, which scores alone do not give; "
                "use balancesim.train_router"
            )
    if not isinstance(source, Source):
        raise InputError(f"`source` must be a Source, got {source!r}; see balancesim.sources")
    check_sizes(source.n_experts, k, n_tokens)
    check_int("horizon", horizon, 1)
    check_int("n_records", n_records, 2)
    check_int("n_exact", n_exact, 0)
    if groups is None:
        return
    check_groups(groups, source.n_experts, k)
    for one in rules:
        if isinstance(one, BatchRule):
            raise InputError(f"`groups` limits what a price chooses; {one.describe()} assigns without one")
        if isinstance(one, PriceRule) and not one.allows_groups:
            raise InputError(
                f"`groups` makes tokens choose among few experts; {one.describe()} balances a choice among "
                "all: leave one of them out"
            )


def _find_comparators(
    comparator: Any,
    rules: list[Rule],
    has_regret: list[bool],
    source: Source,
    n_tokens: int,
    k: int,
    n_steps: int,
) -> tuple[list[Comparator], Float64Array]:
    """One comparator per rule, the same object wherever it is the same; and where exact solves start.

    That start is the same whatever other rules there are.
    """
    by_rule = isinstance(comparator, str) and comparator == "rule"
    own = [
        _own_comparator(one, source, n_tokens, k) if by_rule and measured else None
        for one, measured in zip(rules, has_regret, strict=True)
    ]
    replays = any(measured and found is None for measured, found in zip(has_regret, own, strict=True))
    shared = _find_comparator("auto" if by_rule else comparator, source, n_tokens, k, n_steps, replays)
    # Which rules there are decides whether hindsight is replayed beside their own comparators.
    start = np.zeros(source.n_experts) if by_rule and shared.kind == "hindsight" else shared.bias
    return [shared if found is None else found for found in own], start


def _own_comparator(rule: Rule, source: Source, n_tokens: int, k: int) -> Comparator | None:
    """The minimiser of the rule's own objective, or None where it has none."""
    own = rule.own_objective(source, n_tokens, k) if isinstance(rule, PriceRule) else None
    if own is None or not isinstance(rule, PriceRule):
        return None
    with at_step(rule, 0):
        form = rule.kernel_form(source.n_experts, n_tokens, k)
    if form is None or form.memory.size == 0:
        raise InputError(
            f'`comparator` "rule" needs the objective\'s term of rule {rule.describe()}, which a kernel form '
            f"sums in the first cell of its memory; it has no {'kernel form' if form is None else 'memory'}. "
            'Let own_objective return None, or use another comparator, e.g. "auto"'
        )
    return Comparator("rule", own.bias, 0.0, own.term, own.excess)


def _with_step_size(rule: Rule, source: Source, k: int) -> Rule:
    """Replace a step size of "auto" by 1/mu(p*)."""
    if isinstance(rule, Delayed):
        inner = _with_step_size(rule.rule, source, k)
        return rule if inner is rule.rule else dataclasses.replace(rule, rule=inner)  # type: ignore[arg-type]
    if not isinstance(rule, AlfLB) or rule.step_size != "auto":
        return rule
    from balancesim.theory import modulus

    try:
        mu = modulus(source, k)
    except InputError as error:
        raise InputError(
            f'`step_size` "auto" needs a source whose modulus is known: {error}. Give a number, or estimate '
            '1/mu by balancesim.theory.modulus(source, k, method="gap", bias=...)'
        ) from error
    return dataclasses.replace(rule, step_size=1.0 / mu.value)


def _find_comparator(
    comparator: Any, source: Source, n_tokens: int, k: int, n_steps: int, replays: bool
) -> Comparator:
    """What the argument names; nothing in place of a bias in hindsight where that is not worth a replay."""
    if not isinstance(comparator, str):
        return Comparator("given", as_bias(comparator, source.n_experts, "comparator"), 0.0)
    if comparator not in ("auto", "population", "hindsight", "none"):
        raise InputError(
            '`comparator` must be "auto", "population", "hindsight", "rule", "none" or an (E,) bias, '
            f"got {comparator!r}"
        )
    nothing = Comparator("none", np.zeros(source.n_experts), 0.0)
    if comparator == "none":
        return nothing
    population = source.population_bias() if comparator != "hindsight" else None
    if population is not None:
        return Comparator("population", population, 0.0)
    if comparator == "population":
        raise InputError(
            f'`comparator` "population" is not known for {source.describe()}; use "hindsight" or "auto"'
        )
    if not replays:
        return nothing
    found = best_fixed_bias(source, n_tokens=n_tokens, k=k, n_steps=n_steps)
    return Comparator("hindsight", found.bias, found.gain)
