"""`train_router`: balancing rules on a router that learns."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from balancesim.balancers import PenaltyRule, PriceRule, Rule
from balancesim.errors import InputError
from balancesim.kernels.router import LARGEST, all_within
from balancesim.numbers import check_int, check_positive
from balancesim.problem import check_sizes
from balancesim.router.driver import Trainer, form_of
from balancesim.router.model import Router
from balancesim.router.reference import References
from balancesim.router.runs import RouterRun
from balancesim.router.task import ClusteredTask
from balancesim.types import Float64Array


@overload
def train_router(
    rule: Rule,
    task: ClusteredTask,
    *,
    router: Router = ...,
    n_tokens: int = ...,
    k: int = ...,
    horizon: int = ...,
    learning_rate: float = ...,
    seed: int | None = ...,
    weights: ArrayLike | None = ...,
    n_records: int = ...,
    n_exact: int = ...,
    progress: Callable[[int], None] | None = ...,
) -> RouterRun: ...


@overload
def train_router(
    rule: Sequence[Rule],
    task: ClusteredTask,
    *,
    router: Router = ...,
    n_tokens: int = ...,
    k: int = ...,
    horizon: int = ...,
    learning_rate: float = ...,
    seed: int | None = ...,
    weights: ArrayLike | None = ...,
    n_records: int = ...,
    n_exact: int = ...,
    progress: Callable[[int], None] | None = ...,
) -> list[RouterRun]: ...


def train_router(
    rule: Rule | Sequence[Rule],
    task: ClusteredTask,
    *,
    router: Router = Router(),  # noqa: B008  # immutable
    n_tokens: int = 1024,
    k: int = 2,
    horizon: int = 2_000,
    learning_rate: float = 3.0,
    seed: int | None = None,
    weights: ArrayLike | None = None,
    n_records: int = 64,
    n_exact: int = 4,
    progress: Callable[[int], None] | None = None,
) -> RouterRun | list[RouterRun]:
    """Train a router under one balancing rule, or one router under each of several.

    Step n = 1, 2, ... draws ``task.batch(n - 1, n_tokens)``, chooses experts, updates the rule, and takes one
    plain gradient step on the batch's mean reward (the gate weights times the rewards of the chosen) minus
    the losses. A selection rule (`PriceRule`) adds its bias before the choice, where no gradient flows, and
    learns from the loads for the next step; a gradient rule (`PenaltyRule`) learns first, and the gradient
    of <mean softmax probabilities, penalty> is subtracted: r_ik (v_k - <r_i, v>)/T in logit (i, k).

    Parameters
    ----------
    rule : PriceRule, PenaltyRule or sequence of these
        Each rule of a sequence has a router of its own, with the same start and the same draws, and the bits
        that it has alone.
    task : ClusteredTask
        Tokens and rewards; its seed keys all draws and the router's start.
    router : Router, optional
        Gates, what a bias is added to, and the z-loss.
    n_tokens : int, optional
        Tokens per batch, T; for trainers that accumulate gradients, those of the global batch.
    k : int, optional
        Experts per token, 1 <= k < E; at least 2 unless the gate is "raw", as one gate that is always 1
        teaches nothing.
    horizon : int, optional
        Gradient steps.
    learning_rate : float, optional
        Size of the gradient steps.
    seed : int, optional
        Replaces the task's own seed.
    weights : (E, d) or (E, d + 1) array_like, optional
        W before the first step, with b as the last column where the router has an offset; drawn if omitted.
    n_records : int, optional
        Recorded steps, log-spaced, the first and the last included; fewer where they coincide.
    n_exact : int, optional
        Of the last so many recorded batches, the best assignments are solved exactly, for reference.
    progress : callable, optional
        Called now and then with the number of steps that a router has done.

    Returns
    -------
    RouterRun or list of RouterRun
        One per rule, in order.

    Raises
    ------
    InputError
        If an argument breaks its rule, or a rule written in Python returns no price.

    Notes
    -----
    All in float64, in one compiled kernel that releases the GIL; one run uses one thread. A rule without a
    kernel form runs too, with a call into Python at every step. A step costs about 2 T E d multiplications
    and additions and three exponentials per token and expert.
    """
    rules = [rule] if isinstance(rule, Rule) else _listed(rule)
    _check_arguments(task, router, n_tokens, k, horizon, learning_rate, n_records, n_exact)
    checked = [_checked_rule(one, task, n_tokens, k) for one in rules]
    if not checked:
        raise InputError("`rule` must be a rule or a non-empty sequence of rules, got an empty sequence")
    if seed is not None:
        task = task.with_seed(seed)
    start = _start(weights, task, router)
    references = References(task, n_tokens, k)
    runs = []
    for one in checked:
        final = start.copy()
        trainer = Trainer(one, task, router, final, n_tokens, k, horizon, float(learning_rate), n_records)
        status = trainer.run(progress)
        rows, n = trainer.rows, int(trainer.rows.n_filled[0])
        runs.append(
            RouterRun(
                rule=one,
                task=task,
                router=router,
                n_tokens=n_tokens,
                k=k,
                horizon=horizon,
                learning_rate=float(learning_rate),
                steps=rows.steps[:n].copy(),
                loads=rows.loads[:n].copy(),
                window_loads=rows.window_loads[:n].copy(),
                price=rows.price[:n].copy(),
                max_violation=rows.violation[:n].copy(),
                mean_max_violation=rows.mean_violation[:n].copy(),
                reward=rows.batch[:n, 0].copy(),
                mean_reward=rows.window[:n, 0].copy(),
                choice_reward=rows.batch[:n, 1].copy(),
                mean_choice_reward=rows.window[:n, 1].copy(),
                entropy=rows.window[:n, 2].copy(),
                squared_log_partition=rows.window[:n, 3].copy(),
                weights=final,
                reference=references.at(rows.steps[max(0, n - n_exact) : n]),
                status=status,
            )
        )
    return runs[0] if isinstance(rule, Rule) else runs


def _listed(rules: Any) -> list[Rule]:
    if isinstance(rules, str | type) or not isinstance(rules, Iterable):
        raise InputError(
            f"`rule` must be a rule or a sequence of rules, got {rules!r}; e.g. SwitchLoss(weight=0.01)"
        )
    return list(rules)


def _check_arguments(
    task: ClusteredTask,
    router: Router,
    n_tokens: int,
    k: int,
    horizon: int,
    learning_rate: float,
    n_records: int,
    n_exact: int,
) -> None:
    if not isinstance(task, ClusteredTask):
        raise InputError(f"`task` must be a ClusteredTask, got {task!r}; see balancesim.router")
    if not isinstance(router, Router):
        raise InputError(f"`router` must be a Router, got {router!r}; see balancesim.router")
    check_sizes(task.n_experts, k, n_tokens)
    if k == 1 and router.gate != "raw":
        raise InputError(f'`k` = 1 leaves the {router.gate} gate at 1, which teaches nothing; use gate="raw"')
    check_int("horizon", horizon, 1)
    check_positive("learning_rate", learning_rate)
    check_int("n_records", n_records, 2)
    check_int("n_exact", n_exact, 0)


def _checked_rule(rule: Any, task: ClusteredTask, n_tokens: int, k: int) -> PriceRule | PenaltyRule:
    if not isinstance(rule, PriceRule | PenaltyRule):
        raise InputError(
            f"`rule` must be a PriceRule or a PenaltyRule, got {rule!r}; a rule that assigns a batch itself "
            "leaves nothing for a price to teach"
        )
    if rule.needs_probabilities:
        if not isinstance(rule, PenaltyRule):
            raise InputError(f"`rule` {rule.describe()} needs probabilities and must be a PenaltyRule")
        if n_tokens % check_int("n_micro_batches", rule.n_micro_batches, 1):
            raise InputError(
                f"`n_tokens` must be a multiple of the rule's n_micro_batches = {rule.n_micro_batches}, "
                f"got {n_tokens} ({rule.describe()})"
            )
        form_of(rule, task.n_experts, n_tokens, k)
        return rule
    if not isinstance(rule, PriceRule):
        raise InputError(f"`rule` {rule.describe()} is a PenaltyRule and must need probabilities")
    form = form_of(rule, task.n_experts, n_tokens, k)
    if rule.threshold:
        raise InputError(f"`rule` {rule.describe()} chooses by threshold; this router chooses K experts")
    if form is None and rule.needs_scores:
        raise InputError(f"`rule` {rule.describe()} learns from scores; make it a CompiledRule to do so here")
    if form is not None and form.n_ranks > 1:
        raise InputError(f"`rule` {rule.describe()}: `n_ranks` above 1 is for `simulate`; use 1 here")
    return rule


def _start(weights: ArrayLike | None, task: ClusteredTask, router: Router) -> Float64Array:
    """Return the weights before the first step, a copy."""
    drawn = router.initial_weights(task.n_experts, task.n_features, task.seed)
    if weights is None:
        if not all_within(drawn, LARGEST):
            raise InputError(
                f"`router` draws weights above {LARGEST:g}, beyond which no step is taken; "
                f"lower its initial_scale, {router.initial_scale:g}"
            )
        return drawn
    try:
        given = np.array(weights, dtype=np.float64, order="C")
    except (TypeError, ValueError):
        raise InputError(f"`weights` must be numbers, one row per expert, got {weights!r:.80}") from None
    if given.shape != drawn.shape:
        raise InputError(
            f"`weights` must have a row per expert and a column per feature"
            f"{' and one for the offset' if router.offset else ''}, {drawn.shape}, got {given.shape}"
        )
    if not all_within(given, LARGEST):
        raise InputError(
            f"`weights` must be finite and at most {LARGEST:g} in magnitude, beyond which no step is taken; "
            f"got {given[~(np.abs(given) <= LARGEST)][0]:g}"
        )
    return given
