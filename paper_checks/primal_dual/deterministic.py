"""D1 to D3: what one step of ALF-LB does to the dual of the batch that it was taken on."""

from typing import Any

import numpy as np

from balancesim import sources
from balancesim.checks import Case, Depth, Findings, at_most, statement
from balancesim.theory import max_monotone_step, modulus, step_change
from balancesim.types import Float64Array
from paper_checks.primal_dual import deterministic_figures as figures
from paper_checks.primal_dual.fixed_batch import (
    SCHEDULES,
    Batch,
    changes,
    divisor,
    exact_change,
    fresh_changes,
    heavy_and_light,
    moves,
)

_SAME = "the scores are the same at every step"

_FRESH = "fresh scores at the new price"

_ERROR = 1e-9
"""What D1's identity may miss, relative to the sum of its terms."""

_ROUNDING = 1e-12
"""What rounding may add to D2's change, relative to D1's terms: far above 1e-16 times the tokens."""

_SIDE = 1e-9
"""How far from t*, relative to it, D3 is held on both sides."""


@statement(
    label="D1",
    paper="our derivation of a claim of [H] arXiv:2512.03915",
    title="Identity of one step's change",
    claim="D(p+) - D(p) = sum_i b_i - sum_k eps_k (A_k - L)^2 with switching benefits b_i >= 0: the "
    "Lagrangian improves exactly when the benefits sum to less than the squares.",
    hypotheses=(
        _SAME,
        "delta_k = eps_k (L - A_k); for any other step -<delta, A - L> replaces the squares",
    ),
    statistic="largest |change - benefits + squares| of a run's steps, relative to benefits + squares",
    control="fresh scores at the new price; A+ in place of A; the change as a difference of two dual values",
    figure=figures.identity,
    caption="Left: both terms of every step; below the diagonal the dual falls. Right: what the identity "
    "misses, relative to the sum of its terms, step by step in rising order (solid), and what it would "
    "miss were the change a difference of two dual values (dotted); the grey line is what is allowed.",
)
def identity(depth: Depth) -> Findings:
    """Split the change of every step of short runs of each schedule."""
    cases: list[Case] = []
    data: dict[str, Any] = {"names": []}
    for i, batch in enumerate(heavy_and_light()):
        found = changes(batch, depth.pick(10, 100))
        benefits = np.array([c.benefit for c in found])
        squares = np.array([c.squares for c in found])
        change = np.array([c.split.change for c in found])
        size = benefits + squares
        errors = np.array([c.split.error for c in found])
        plain_errors = np.abs(np.array([c.plain for c in found]) - benefits + squares) / size
        late_errors = np.abs(change - benefits - np.array([c.split.ceiling for c in found])) / size
        fresh, _ = fresh_changes(batch, found)
        fresh_errors = np.abs(fresh - benefits + squares) / size
        wrong, fresh_wrong = ((x < 0.0) != (benefits < squares) for x in (change, fresh))
        error, untold = "largest relative error", "steps whose sign the terms do not tell"
        cases += [
            at_most(batch.name, error, float(errors.max()), _ERROR),
            at_most(batch.name, untold, float(wrong.sum()), 0.0),
            at_most(batch.name, error, float(fresh_errors.max()), _ERROR, control=_FRESH),
            at_most(batch.name, untold, float(fresh_wrong.sum()), 0.0, control=_FRESH),
            at_most(batch.name, error, float(late_errors.max()), _ERROR, control="A+ in place of A"),
        ]
        if batch.heavy:
            few = found[:: len(found) // 8]
            missed = [abs(c.split.change - exact_change(batch, c)) / (c.benefit + c.squares) for c in few]
            subtracted = "the change as a difference of two dual values"
            cases += [
                at_most(batch.name, "the change against rational arithmetic", max(missed), _ERROR),
                at_most(batch.name, error, float(plain_errors.max()), _ERROR, control=subtracted),
            ]
        data["names"].append(batch.name)
        data |= {f"benefits{i}": benefits, f"squares{i}": squares}
        data |= {f"errors{i}": errors, f"plain{i}": plain_errors}
    return Findings(cases, data)


@statement(
    label="D2",
    paper="ours",
    title="No overshoot, no rise",
    claim="D(p+) - D(p) <= sum_k delta_k (A+_k - L): the dual does not rise whenever new and old violations "
    "are not anti-correlated in the eps-weighted inner product. The converse is not true.",
    hypotheses=(_SAME,),
    statistic="largest excess of the change over the bound, relative to D1's terms; steps without overshoot "
    "that raise the dual",
    control="fresh scores at the new price; A in place of A+: the tangent at p is a lower bound",
    figure=figures.no_overshoot,
    caption="Every step's change of the dual against D2's bound, both relative to the sum of D1's terms. No "
    "point lies above the diagonal; left of the vertical line (no overshoot) none lies above zero. Steps in "
    "the shaded part overshoot and still improve: the condition is sufficient only.",
)
def no_overshoot(depth: Depth) -> Findings:
    """Hold every step's change against the tangent at its end."""
    cases: list[Case] = []
    data: dict[str, Any] = {"names": []}
    n_falling = n_certified = 0
    for i, batch in enumerate(heavy_and_light()):
        found = changes(batch, depth.pick(10, 100))
        size = np.array([c.benefit + c.squares for c in found])
        change = np.array([c.split.change for c in found]) / size
        ceiling = np.array([c.split.ceiling for c in found]) / size
        tangent = -np.array([c.squares for c in found]) / size
        excess, raising = "largest excess over the bound / D1's terms", "steps without overshoot that raise D"
        fresh, fresh_ceiling = (x / size for x in fresh_changes(batch, found))
        for x, most, control in ((change, ceiling, None), (fresh, fresh_ceiling, _FRESH)):
            rises = float(((most <= 0.0) & (x > _ROUNDING)).sum())
            cases += [
                at_most(batch.name, excess, float((x - most).max()), _ROUNDING, control=control),
                at_most(batch.name, raising, rises, 0.0, control=control),
            ]
        cases += [
            at_most(
                batch.name, excess, float((change - tangent).max()), _ROUNDING, control="A in place of A+"
            ),
        ]
        n_falling += int((change <= 0.0).sum())
        n_certified += int((ceiling <= 0.0).sum())
        data["names"].append(batch.name)
        data |= {f"change{i}": change, f"ceiling{i}": ceiling}
    remark = f"{n_certified} of the {n_falling} steps that do not raise D meet the condition"
    return Findings(cases, data, (remark,))


@statement(
    label="D3",
    paper="ours",
    title="Admissible steps are (0, t*]",
    claim="Along a step of ALF-LB the dual is convex and piecewise linear, falls at first unless the loads "
    "are balanced, and the steps that do not raise it are exactly (0, t*], t* finite. t* depends on the "
    "current loads.",
    hypotheses=(
        _SAME,
        "no token ties at its K-th place at p",
        "delta_k = eps_k (L - A_k) is not constant",
        "scores are finite",
    ),
    statistic="steps of runs for which D rises at t*(1 - 1e-9), or does not at t*(1 + 1e-9), or t* is 0, or "
    "whether the step taken raises D is not whether t* < 1",
    control="scores that tie at the K-th place; the direction turned round",
    figure=figures.admissible,
    caption="(a) t* along runs, as a step size u, against the largest violation. For steps along g it is "
    "near 2/mu (line), mu the modulus at p* (S2), until few tokens are left to move and each counts; for the "
    "sign rule it falls with the violation, as 2 |g|_1/(mu E) (crosses) says for equal curvature between all "
    "pairs, so that a fixed u is too long in the end. (b) The part of a run's steps that do not raise D.",
)
def admissible(depth: Depth) -> Findings:
    """Follow t* along runs of each schedule at several step sizes."""
    n_moves = depth.pick(40, 400)
    source = sources.Normal(n_experts=8, seed=21)
    batch = Batch("normal, T=1024, E=8, K=2", source.batch(0, 1024).astype(np.float64), 2, heavy=False)
    scale = 2.0 / modulus(source, batch.k).value
    start = np.linspace(-1.0, 1.0, 8)
    parts = np.array([0.03, 0.1, 0.3, 0.6, 1.0, 1.5, 3.0, 10.0])
    fractions = np.empty((len(SCHEDULES), len(parts)))
    broken = dict.fromkeys(("D rises before t*", "D does not rise after t*", "t* is 0", "t* misjudges"), 0)
    data: dict[str, Any] = {"scale": scale, "parts": parts, "n_experts": 8}
    n_seen = 0
    for row, schedule in enumerate(SCHEDULES):
        lengths, violations, sums = [], [], []
        for column, part in enumerate(parts):
            # The sign rule moves every price by u, a step along g by u times a violation of some tenths.
            size = float(part * scale) * (0.1 if schedule == "sign" else 1.0)
            falling = 0
            for move in moves(batch, schedule, size, n_moves, start):
                end, problems, change = _judge(batch, move.bias, move.new_bias - move.bias)
                falling += change <= 0.0
                for name in problems:
                    broken[name] += 1
                if end < np.inf:
                    n_seen += 1
                    violation = np.abs(move.excess) / batch.scores.size
                    lengths.append(end * size / divisor(schedule, move.n))
                    violations.append(float(violation.max()))
                    sums.append(float(violation.sum()))
            fractions[row, column] = falling / n_moves
        data |= {f"length {schedule}": lengths, f"violation {schedule}": violations, f"sum {schedule}": sums}
    data["fractions"] = fractions
    cases = [at_most(batch.name, f"steps: {name}", float(n), 0.0) for name, n in broken.items()]
    cases += _heavy_ends(depth) + _controls(batch)
    along = np.median(data["length constant"]) / scale
    told = tuple(
        f"{schedule}, part of steps that do not raise D: "
        + ", ".join(f"{x:.2f} at {part:g}" for part, x in zip(parts, row, strict=True))
        + f" times {'0.2' if schedule == 'sign' else '2'}/mu"
        for schedule, row in zip(SCHEDULES, fractions, strict=True)
    )
    seen = f"{n_seen} values of t* held on both sides; along g, constant schedule, median {along:.2f} of 2/mu"
    return Findings(cases, data, (seen, *told))


def _judge(batch: Batch, bias: Float64Array, delta: Float64Array) -> tuple[float, list[str], float]:
    """Return t*, what of D3 is broken, and the change that the step itself makes."""

    def change(t: float) -> float:
        return step_change(batch.scores, bias, bias + t * delta, k=batch.k).change

    end, own = max_monotone_step(batch.scores, bias, delta, k=batch.k), change(1.0)
    problems = []
    if end < np.inf:
        if end == 0.0:
            problems.append("t* is 0")
        if change(end * (1.0 - _SIDE)) > 0.0:
            problems.append("D rises before t*")
        if change(end * (1.0 + _SIDE)) <= 0.0:
            problems.append("D does not rise after t*")
        if abs(end - 1.0) > _SIDE and (own <= 0.0) != (end >= 1.0):
            problems.append("t* misjudges")
    return end, problems, own


def _heavy_ends(depth: Depth) -> list[Case]:
    """Hold t* on both sides where scores have no mean, among others."""
    cases = []
    for batch in heavy_and_light():
        problems = [
            problem
            for move in moves(batch, "constant", 0.1, depth.pick(5, 50), np.zeros(batch.scores.shape[1]))
            for problem in _judge(batch, move.bias, move.new_bias - move.bias)[1]
        ]
        cases.append(at_most(batch.name, "steps: any of the above", float(len(problems)), 0.0))
    return cases


def _controls(batch: Batch) -> list[Case]:
    """Count steps along which the dual rises at once: with ties at the K-th place, and turned round."""
    start = np.zeros(batch.scores.shape[1])
    tied = Batch("the same in quarters", np.round(4.0 * batch.scores) / 4.0, batch.k, heavy=False)
    cases = []
    for other, sign, control in (
        (tied, 1.0, "ties at the K-th place"),
        (batch, -1.0, "direction turned round"),
    ):
        rises = 0
        for move in moves(other, "sign", 0.25, 40, start):
            near = move.bias + sign * 1e-6 * (move.new_bias - move.bias)
            rises += step_change(other.scores, move.bias, near, k=batch.k).change > 0.0
        cases.append(at_most(other.name, "steps: D rises before t*", float(rises), 0.0, control=control))
    return cases
