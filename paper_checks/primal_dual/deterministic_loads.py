"""D4 and D5: where tokens go in one step of ALF-LB on one batch, and where its loads end up."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

import balancesim as bs
from balancesim.checks import Case, Depth, Findings, at_least, at_most, statement
from balancesim.theory import SignRun, balance_band, breakpoint_gap, preference, sign_run
from balancesim.types import Float64Array, IntArray
from paper_checks.primal_dual import deterministic_figures as figures
from paper_checks.primal_dual.fixed_batch import dyadic_normal, pairs_against, residues, widest_cycle

_OURS = "our derivation of a claim of [H] arXiv:2512.03915"
_SAME = "the scores are the same at every step"
_TIE_ORDER = "the choice is the K best of all biased scores, ties in one order of the experts"
_SWING = "largest max|A - L| in the cycle / (E - 1)"

_T_SHOWN, _SHOWN = 59, 64
"""Tokens and steps of the runs that D5's figure shows."""


@statement(
    label="D4",
    paper=_OURS,
    title="Preference rule",
    claim="If a token drops expert k for expert j in one step, then delta_j > delta_k, for every (left, "
    "entered) pair and every K. Sign: never from the underloaded side to the overloaded; one common eps: "
    "only to a strictly less loaded expert.",
    hypotheses=(
        _SAME,
        _TIE_ORDER,
        "exact arithmetic; in floating point a pair's scores may be up to 2 ulp apart",
    ),
    statistic="(left, entered) pairs against the price; in floating point the largest gap of one [ulp]",
    control="ties to the lower index at p and to the higher at p+; a limit on groups of experts",
    figure=figures.preference,
    caption="Left: delta_j - delta_k of all (left, entered) pairs of one step on scores in quarters: nothing "
    "at or below zero (shaded), unless the tie order changes in between or experts come in groups. Right: "
    "pairs against the price in floating point, by how far apart their biased scores are; rounding explains "
    "2 ulp.",
)
def preference_rule(depth: Depth) -> Findings:
    """Compare every pair with the prices: exactly on dyadic scores, up to rounding on others."""
    rng = np.random.default_rng(31)
    n_tokens, n_experts, k = 4096, 64, 8
    wanted = depth.pick(10_000_000, 30_000_000) // 2
    cases: list[Case] = []
    n_all = 0
    for dtype in (np.float32, np.float64):
        scores = (rng.integers(-512, 512, size=(n_tokens, n_experts)) / 256.0).astype(dtype)
        for kind, share, size in (("sign", 0.02, 0.125), ("common eps", 0.03, 2.0), ("any", 0.95, 2.0)):
            n_pairs = n_against = 0
            bias = np.zeros(n_experts)
            while n_pairs < share * wanted:
                loads = bs.route(scores, bias, k=k).loads
                new_bias = bias + _dyadic_step(kind, size, loads, n_tokens * k, rng)
                found = preference(scores, bias, new_bias, k=k)
                n_pairs, n_against = n_pairs + found.n_switches, n_against + found.token.size
                bias = np.zeros(n_experts) if np.ptp(new_bias) > 8.0 else new_bias
            what = f"dyadic, T={n_tokens}, E={n_experts}, K={k}, {np.dtype(dtype)}, {kind}"
            cases.append(at_most(what, f"pairs against the price, of {n_pairs}", float(n_against), 0.0))
            n_all += n_pairs
    gaps, n_float = _float_exceptions(depth, cases)
    rises = _quarters(cases)
    remark = f"{n_all} pairs on dyadic scores; {gaps.size} of {n_float} float pairs go against the price"
    return Findings(cases, {"gaps": gaps, **rises}, (remark,))


def _dyadic_step(kind: str, size: float, loads: IntArray, total: int, rng: Any) -> Float64Array:
    """Return a step whose sums with dyadic scores are exact in float32."""
    excess = (loads - total // loads.size).astype(np.float64)
    if kind == "any":
        excess = rng.integers(-256, 256, size=loads.size).astype(np.float64)
    return np.asarray(-size * np.sign(excess) if kind == "sign" else -size / 256.0 * excess)


def _float_exceptions(depth: Depth, cases: list[Case]) -> tuple[Float64Array, int]:
    """Take steps of a few units in the last place on scores that tie up to rounding."""
    rng = np.random.default_rng(32)
    gaps: list[Float64Array] = []
    n_pairs = 0
    for dtype in (np.float32, np.float64):
        own: list[Float64Array] = []
        for size in (1.0, 30.0, 1e4):
            unit = float(np.spacing(dtype(size)))
            scores = (size / 8.0 * rng.integers(0, 8, size=(4096, 16))).astype(dtype)
            bias = 0.3 * size + unit * rng.normal(size=16)
            for _ in range(depth.pick(40, 400)):
                new_bias = bias + 0.5 * unit * rng.normal(size=16)
                found = preference(scores, bias, new_bias, k=4)
                n_pairs += found.n_switches
                own.append(found.gap)
                bias = new_bias
        widest = float(np.concatenate(own).max())
        what = f"near ties, T=4096, E=16, K=4, {np.dtype(dtype)}"
        cases.append(at_most(what, "largest gap of a pair against the price [ulp]", widest, 2.0))
        gaps += own
    return np.concatenate(gaps), n_pairs


def _quarters(cases: list[Case]) -> dict[str, Any]:
    """Return all pairs' delta_j - delta_k of a step on scores in quarters, as routed and in two controls."""
    rng = np.random.default_rng(33)
    scores = rng.integers(-8, 8, size=(2048, 16)) / 4.0
    bias, delta = rng.integers(-4, 4, size=(2, 16)) / 4.0

    def lower(price: Float64Array, **options: Any) -> IntArray:
        return np.asarray(bs.route(scores, price, k=4, experts=True, **options).experts)

    def higher(price: Float64Array) -> IntArray:
        return 15 - np.asarray(bs.route(scores[:, ::-1], price[::-1], k=4, experts=True).experts)

    ways: dict[str, tuple[Callable[..., IntArray], dict[str, Any]]] = {
        "as routed": (lower, {}),
        "tie order turned round": (higher, {}),
        "best 2 of 4 groups": (lower, {"groups": bs.GroupLimit(4, 2)}),
    }
    result: dict[str, Any] = {"names": list(ways)}
    for i, (name, (second, options)) in enumerate(ways.items()):
        n_against, rises = pairs_against(lower(bias, **options), second(bias + delta, **options), delta)
        quantity = f"pairs against the price, of {rises.size}"
        control = None if name == "as routed" else name
        what = "quarters, T=2048, E=16, K=4"
        cases.append(at_most(what, quantity, float(n_against), 0.0, control=control))
        result[f"rises{i}"] = rises
    return result


@statement(
    label="D5",
    paper=_OURS + "; the sharper band is ours",
    title="Approximate balance of the sign rule",
    claim="If any two tokens' breakpoints of a pair of experts are 2u or more apart, the sign rule with "
    "constant u brings max|A_k - L| to at most E - 1 in finitely many steps, and it stays there. Sharper, "
    "proved in docs/theory.md: E - 2 for integer L, E - 2 + 1/E else, on most remainders less.",
    hypotheses=(
        _SAME,
        "breakpoints of a pair at least 2u apart (more than 2u without a fixed tie order)",
        _TIE_ORDER,
        "scores are finite",
        "prices in exact arithmetic",
    ),
    statistic=_SWING + "; tokens outside the sharper band; instances that never enter",
    control="u 16 times too large; every token eight times; experts masked",
    figure=figures.approximate_balance,
    caption="(a) max|A - L| along runs with the largest admissible u; marks: the step from which on it stays "
    "within E - 1. (b) Its largest value in the cycle that a run ends in, against u relative to the largest "
    "admissible: every dot an instance; beyond 1 the hypothesis is not met, and loads come to swing by "
    "several times E - 1 (dashed). (c) Steps until the band is entered for good, against T: the closest "
    "breakpoints decide u, and for normal scores they close in like 1/T^2 (those with at least 1/(2T^2)).",
)
def balance(depth: Depth) -> Findings:
    """Run the sign rule to its cycle on residues and on dyadic normal scores."""
    rng = np.random.default_rng(41)
    cases: list[Case] = []
    data: dict[str, Any] = {"paths": []}
    n_instances = depth.pick(40, 400)
    n_fixed = n_touching = 0
    sizes = ((2, 1), (3, 1), (3, 2), (4, 3), (5, 3), (8, 2), (16, 4))
    for n_experts, k in sizes:
        worst = widest = Fraction(0)
        missing = no_cycle = 0
        for i in range(n_instances):
            n_tokens = int(rng.integers(12, 48)) if i else _T_SHOWN
            scores = residues(n_tokens, n_experts, rng) + rng.integers(-20, 20, size=n_experts)
            step_size = float(breakpoint_gap(scores) / 2)
            run = sign_run(scores, k=k, step_size=step_size, horizon=60_000)
            if i == 0:
                _add_path(data, f"E={n_experts}, K={k}", run)
            missing += run.entered is None
            if run.cycle_start is None:
                no_cycle += 1
                continue
            ends = _ends(run, n_tokens, n_experts, k)
            band = balance_band(n_tokens, n_experts, k)
            worst = max(worst, *(end - width for end, width in zip(ends, band, strict=True)))
            widest = max(widest, *ends)
            n_fixed += run.period == 1
            n_touching += any(end == width > 0 for end, width in zip(ends, band, strict=True))
        what = f"residues, E={n_experts}, K={k}, {n_instances} instances"
        cases += [
            at_most(what, _SWING, float(widest / (n_experts - 1)), 1.0),
            at_most(what, "tokens outside the sharper band in the cycle", float(worst), 0.0),
            at_most(what, "instances that do not stay within E - 1", float(missing), 0.0),
            at_most(what, "instances without a cycle in 60,000 steps", float(no_cycle), 0.0),
        ]
    _attained(cases)
    _beyond(depth, cases, data)
    _entries(depth, cases, data)
    n_runs = len(sizes) * n_instances
    medians = zip(data["factors"], np.median(data["swings"], axis=1), strict=True)
    remarks = (
        f"of {n_runs} runs {n_fixed} end in a fixed point and {n_touching} touch the sharper band for ever",
        f"{_SWING}, median: {', '.join(f'{x:.2f} at {f:g}' for f, x in medians)} times the admissible u",
    )
    return Findings(cases, data, remarks)


def _ends(run: SignRun, n_tokens: int, n_experts: int, k: int) -> tuple[Fraction, Fraction]:
    """How far below and above L the loads of a run's cycle lie."""
    cycle, load = run.loads[run.cycle_start :], Fraction(n_tokens * k, n_experts)
    return load - int(cycle.min()), int(cycle.max()) - load


def _add_path(data: dict[str, Any], name: str, run: SignRun) -> None:
    """Keep a run's deviations for the figure, its cycle repeated to some length."""
    path = run.deviation
    while run.cycle_start is not None and len(path) < _SHOWN:
        path = np.concatenate([path, run.deviation[run.cycle_start :]])
    place = len(data["paths"])
    data["paths"].append(name)
    data[f"path{place}"] = path[:_SHOWN]
    data[f"entered{place}"] = -1 if run.entered is None else run.entered


def _attained(cases: list[Case]) -> None:
    """Hold that the sharper band cannot be narrower: instances made to swing as far."""
    for n_experts in (3, 4, 8, 16):
        for integral in (True, False):
            scores = widest_cycle(n_experts, integral=integral)
            apart = breakpoint_gap(scores) >= 2
            run = sign_run(scores, k=1, step_size=1.0, horizon=100)
            swing = Fraction(float(run.deviation.max())).limit_denominator(n_experts)
            below = balance_band(len(scores), n_experts, 1)[0]
            what = f"made to swing, E={n_experts}, T={len(scores)}"
            unmet = None if apart and run.cycle_start == 0 else "breakpoints 2u apart, a cycle from the start"
            cases.append(at_least(what, "max|A - L| / sharper band", float(swing / below), 1.0, unmet=unmet))


def _beyond(depth: Depth, cases: list[Case], data: dict[str, Any]) -> None:
    """Leave the hypotheses out, one by one."""
    rng = np.random.default_rng(42)
    n_tokens, n_experts, k = 60, 4, 1
    batches = [residues(n_tokens, n_experts, rng) for _ in range(depth.pick(20, 100))]
    admissible = [float(breakpoint_gap(scores) / 2) for scores in batches]
    factors = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    swings = np.array(
        [[_swing(s, k, f * u, 5000) for s, u in zip(batches, admissible, strict=True)] for f in factors]
    )
    data |= {"factors": factors, "swings": swings}
    what = f"residues, E={n_experts}, K={k}, T={n_tokens}"
    far = float(swings[factors == 16.0].max())
    cases.append(at_most(what, _SWING, far, 1.0, control="u 16 times too large"))
    repeated = np.repeat(batches[0][:30], 8, axis=0)
    masked = batches[0].copy()
    masked[:50, 1:] = -np.inf
    for scores, control in ((repeated, "every token eight times"), (masked, "experts masked")):
        cases.append(at_most(what, _SWING, _swing(scores, k, admissible[0], 2000), 1.0, control=control))


def _swing(scores: Float64Array, k: int, step_size: float, horizon: int) -> float:
    """Return the largest max|A - L| of the cycle, or of the horizon's second half, over E - 1."""
    run = sign_run(scores, k=k, step_size=step_size, horizon=horizon)
    first = len(run.loads) // 2 if run.cycle_start is None else run.cycle_start
    widest = float(run.deviation[first:].max())
    return widest / int(scores.shape[1] - 1)


def _entries(depth: Depth, cases: list[Case], data: dict[str, Any]) -> None:
    """Measure the time to enter the band for good against T."""
    rng = np.random.default_rng(43)
    n_experts, k = 4, 1
    tokens = np.array([8, 16, 32, 64])
    for name, make in {"normal": dyadic_normal, "residues": residues}.items():
        entered = np.empty((len(tokens), depth.pick(11, 41)))
        worst = Fraction(0)
        for row, n_tokens in enumerate(tokens):
            for column in range(entered.shape[1]):
                scores = make(int(n_tokens), n_experts, rng)
                # An expert that starts one standard deviation of the scores above the others.
                scores[:, 0] += np.round(scores.std() * 2.0**20) / 2.0**20
                step_size = float(breakpoint_gap(scores) / 2)
                run = sign_run(scores, k=k, step_size=step_size, horizon=60_000)
                entered[row, column] = np.nan if run.entered is None else run.entered
                if run.period is not None:
                    ends = _ends(run, int(n_tokens), n_experts, k)
                    band = balance_band(int(n_tokens), n_experts, k)
                    worst = max(worst, *(end - width for end, width in zip(ends, band, strict=True)))
        late = float(np.isnan(entered).sum())
        what = f"{name}, E={n_experts}, K={k}, T=8 to 64, {entered.size} instances"
        cases += [
            at_most(what, "instances outside E - 1 after 60,000 steps", late, 0.0),
            at_most(what, "tokens outside the sharper band in the cycle", float(worst), 0.0),
        ]
        data[f"entered {name}"] = entered
    data["tokens"] = tokens
