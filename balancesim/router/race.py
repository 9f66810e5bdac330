"""Several rules on the same router and task, and what each makes of it: one row per run."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from balancesim.balancers import Rule
from balancesim.batches import n_cores
from balancesim.errors import InputError
from balancesim.numbers import check_int
from balancesim.router.model import Router
from balancesim.router.runs import RouterRun
from balancesim.router.task import ClusteredTask
from balancesim.router.training import train_router

if TYPE_CHECKING:
    import pandas as pd


def race(
    rules: Sequence[Rule],
    task: ClusteredTask,
    *,
    router: Router = Router(),  # noqa: B008  # immutable
    n_tokens: int = 1024,
    k: int = 2,
    horizon: int = 2_000,
    learning_rate: float = 3.0,
    seeds: Iterable[int] = (0, 1),
    n_records: int = 64,
    n_exact: int = 4,
    n_threads: int | None = None,
) -> "pd.DataFrame":
    """Train one router under every rule and seed.

    Parameters
    ----------
    rules : sequence of PriceRule or PenaltyRule
        The rules; each seed's runs share draws and start.
    task, router, n_tokens, k, horizon, learning_rate
        As in `train_router`.
    seeds : iterable of int, optional
        Seeds of the draws and of the router's start.
    n_records, n_exact : int, optional
        As in `train_router`.
    n_threads : int, optional
        Seeds that are trained at a time; the processor's threads if omitted. It changes no result.

    Returns
    -------
    DataFrame
        What `summary` makes of the runs, by seed, then by rule.

    Raises
    ------
    InputError
        If an argument breaks its rule.
    """
    chosen = [check_int("seeds", seed, 0) for seed in seeds]
    if not chosen:
        raise InputError("`seeds` must hold at least one seed, got none")
    limit = n_cores() if n_threads is None else check_int("n_threads", n_threads, 1)

    def trained(seed: int) -> list[RouterRun]:
        return train_router(
            list(rules), task, router=router, n_tokens=n_tokens, k=k, horizon=horizon,
            learning_rate=learning_rate, seed=seed, n_records=n_records, n_exact=n_exact,
        )  # fmt: skip

    with ThreadPoolExecutor(min(limit, len(chosen))) as threads:
        return summary([run for runs in threads.map(trained, chosen) for run in runs])


def summary(runs: Sequence[RouterRun]) -> "pd.DataFrame":
    """Return what each router does late in its run: means over the last tenth of its steps.

    Parameters
    ----------
    runs : sequence of RouterRun
        One row each, in order.

    Returns
    -------
    DataFrame
        ``rule`` (text), ``kind``, ``acts`` ("selection" or "gradient"), ``seed``, ``n_tokens``,
        ``n_experts``, ``k``; ``max_violation`` of single batches and ``window_max_violation`` of their
        summed loads; ``dead_experts``; ``reward`` and
        ``choice_reward`` (expected, per token); ``reward_lost`` and ``choice_reward_lost`` against the best
        balanced assignment; ``best_balanced`` and ``best``, what that and every token's best expert earn;
        ``entropy`` in nats; ``outcome`` and ``reason``. Rewards lost are of the batches that were solved.
    """
    import pandas as pd

    return pd.DataFrame([_row(run) for run in runs])


def _row(run: RouterRun) -> dict[str, object]:
    since = np.diff(run.steps, prepend=0)
    late = run.steps - since >= 0.9 * run.horizon
    if not late.any():
        late[-1:] = True
    share = since[late] / since[late].sum() if late.any() else np.zeros(0)

    def mean(values: np.ndarray) -> float:
        return float(values[late] @ share) if late.any() else float("nan")

    loads = run.window_loads[late].sum(axis=0)
    return {
        "rule": run.rule.describe(),
        "kind": run.rule.name,
        "acts": "gradient" if run.rule.needs_probabilities else "selection",
        "seed": run.task.seed,
        "n_tokens": run.n_tokens,
        "n_experts": run.task.n_experts,
        "k": run.k,
        "max_violation": mean(run.mean_max_violation),
        "window_max_violation": float(loads.max() / loads.mean() - 1.0) if loads.any() else float("nan"),
        "dead_experts": int((loads == 0).sum()),
        "reward": mean(run.mean_reward),
        "choice_reward": mean(run.mean_choice_reward),
        "reward_lost": run.reward_lost,
        "choice_reward_lost": run.choice_reward_lost,
        "best_balanced": float(run.reference.balanced.mean()) if run.reference.steps.size else float("nan"),
        "best": float(run.reference.best.mean()) if run.reference.steps.size else float("nan"),
        "entropy": mean(run.entropy),
        "outcome": run.status.outcome.name.lower(),
        "reason": run.status.reason,
    }
