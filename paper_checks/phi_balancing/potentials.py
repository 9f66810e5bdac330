"""P1-P3: what potentials and their conjugates do, whatever is routed."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, minimize

from balancesim import simulate, sources
from balancesim.balancers import PhiBalance
from balancesim.checks import Case, Depth, Findings, at_most, statement
from balancesim.potentials import LogBarrier, NegativeEntropy, PNorm, Potential, SquaredNorm, Tsallis
from balancesim.types import Float64Array

PAPER = "[P] arXiv:2605.15403"
POTENTIALS: tuple[Potential, ...] = (
    NegativeEntropy(),
    SquaredNorm(),
    PNorm(1.5),
    PNorm(3.0),
    Tsallis(0.5),
    Tsallis(1.5),
    LogBarrier(),
)

_Function = Callable[[Float64Array], float]


def name_of(potential: Potential) -> str:
    """Return a potential's name with its exponent."""
    power = f" {potential.parameter:g}" if potential.parameter else ""
    return potential.name.replace("_", " ") + power


def _descended(phi: _Function, n_experts: int, n_starts: int) -> float:
    """Farthest that descent on the simplex ends from the uniform shares, in units of these."""
    rng = np.random.default_rng(101)
    farthest = 0.0
    for start in rng.dirichlet(np.full(n_experts, 0.7), n_starts):
        inside = 0.99 * start + 0.01 / n_experts
        found = minimize(
            phi, inside, method="SLSQP", bounds=Bounds(1e-9, 1.0), options={"ftol": 1e-15, "maxiter": 500},
            constraints=LinearConstraint(np.ones((1, n_experts)), 1.0, 1.0),
        )  # fmt: skip
        farthest = max(farthest, n_experts * float(np.abs(found.x - 1.0 / n_experts).max()))
    return farthest


def _deepest(phi: _Function, n_experts: int, n_points: int) -> float:
    """The largest part of phi's range over random points of the simplex that lies below the uniform shares.

    Half the points are close to the uniform ones, where little is to be gained.
    """
    rng = np.random.default_rng(102)
    far = rng.dirichlet(np.full(n_experts, 0.7), n_points)
    near = 1.0 / n_experts + 0.1 * (far[: n_points // 2] - 1.0 / n_experts)
    values = np.array([phi(m) for m in np.vstack([far[n_points // 2 :], near])])
    uniform = phi(np.full(n_experts, 1.0 / n_experts))
    return float((uniform - values).max() / np.ptp(values))


def _uneven(phi: Potential) -> _Function:
    """A potential that is not symmetric: the last expert's term counts double."""
    return lambda m: phi.value(m) + phi.value(m[-1:])


def _concave(m: Float64Array) -> float:
    """A symmetric function that is not convex: minus the sum of the squares."""
    return -float(m @ m)


@statement(
    label="P1",
    paper=PAPER,
    title="Uniform shares minimise phi",
    claim="Over the simplex, phi is least where all experts have the same share.",
    hypotheses=("phi is strictly convex", "phi is symmetric", "phi is differentiable on m > 0"),
    statistic="by how much of its range phi at random shares lies below phi at the uniform ones; how far, "
    "in units of the uniform share, descent from random shares ends from them",
    control="symmetry dropped (one expert's term counts double); convexity dropped (minus the squared norm)",
)
def uniform_minimiser(depth: Depth) -> Findings:
    """Search the simplex for lower values, at random and by descent."""
    n_points, n_starts = depth.pick(2_000, 20_000), depth.pick(3, 20)
    sizes = depth.pick((2, 5, 16), (2, 3, 5, 16, 64))

    def both(what: str, phi: _Function, control: str | None = None) -> list[Case]:
        below = max(_deepest(phi, n, n_points) for n in sizes)
        away = max(_descended(phi, n, n_starts) for n in sizes)
        instance = f"{what}, E={', '.join(map(str, sizes))}"
        # Descent stops where phi no longer falls by 1e-15: the root of that, in shares.
        return [
            at_most(
                instance,
                "largest part of phi's range below its value at uniform",
                below,
                0.0,
                control=control,
            ),
            at_most(instance, "distance of minimiser from uniform", away, 1e-3, control=control),
        ]

    cases = [case for phi in POTENTIALS for case in both(name_of(phi), phi.value)]
    cases += both("negative entropy", _uneven(NegativeEntropy()), "one expert's term counts double")
    cases += both("squared norm", _concave, "sign of phi flipped: not convex")
    return Findings(cases)


def _largest(objective: _Function, low: float, high: float, n: int) -> Float64Array:
    """Maximise ``n`` concave functions of one number at once, by golden sections; the values reached.

    ``objective`` maps (n,) arguments to (n,) values.
    """
    ratio = 0.5 * (np.sqrt(5.0) - 1.0)
    a, b = np.full(n, low), np.full(n, high)
    for _ in range(130):
        left, right = b - ratio * (b - a), a + ratio * (b - a)
        rising = np.asarray(objective(left) < objective(right))
        a, b = np.where(rising, left, a), np.where(rising, b, right)
    return np.asarray(objective(0.5 * (a + b)))


def _terms(function: Callable[[Float64Array], float], points: Float64Array) -> Float64Array:
    """A separable function's term at each point."""
    return np.array([function(points[i : i + 1]) for i in range(points.size)])


def _biconjugate_error(phi: Potential, conjugate: _Function, n_points: int) -> float:
    """Largest |max_v (v m - phi*(v)) - phi(m)| over shares m, relative to 1 + |phi(m)|, by search over v."""
    m = np.geomspace(1e-4, 1.0, n_points)
    found = _largest(
        lambda v: v * m - _terms(conjugate, v),  # type: ignore[arg-type, return-value]  # one value per point
        -1e5, min(20.0, phi.ceiling - 1e-9), n_points,
    )  # fmt: skip
    exact = _terms(phi.value, m)
    return float((np.abs(found - exact) / (1.0 + np.abs(exact))).max())


def _young_error(phi: Potential, conjugate: _Function, n_points: int) -> float:
    """Largest violation of phi(a) + phi*(v) >= <a, v>, equality at v = grad phi(a), in parts of the terms."""
    rng = np.random.default_rng(103)
    worst = 0.0
    for a, b in rng.dirichlet(np.full(6, 0.7), (n_points, 2)) + 1e-6:
        for v, tight in ((phi.gradient(a), True), (phi.gradient(b), False)):
            terms = phi.value(a), conjugate(v), -float(a @ v)
            size = sum(map(abs, terms)) + float(np.abs(a * v).sum())
            worst = max(worst, (abs(sum(terms)) if tight else -sum(terms)) / size)
    return worst


@statement(
    label="P2",
    paper=PAPER,
    title="Conjugate pairs",
    claim="phi(m) = max over v of <v, m> - phi*(v), reached at v = grad phi(m).",
    hypotheses=("phi is strictly convex and closed", "m >= 0, and v below the supremum of f'"),
    statistic="the difference of both sides, the maximum found by golden sections on phi* alone; Young's "
    "inequality at random pairs, with equality at v = grad phi(m)",
    control="another potential's conjugate; the entropy's conjugate without its -1",
)
def conjugate_pairs(depth: Depth) -> Findings:
    """Maximise by search, and try Young's inequality."""
    n_points = depth.pick(40, 400)

    def both(what: str, phi: Potential, conjugate: _Function, control: str | None = None) -> list[Case]:
        # The argument is known to 1e-9, and the maximum is flat; rounding of v m for v up to 1e5 is 1e-11.
        return [
            at_most(
                what, "|max_v - phi| / (1 + |phi|)", _biconjugate_error(phi, conjugate, n_points), 1e-9,
                control=control,
            ),
            at_most(
                what, "Young's inequality off by, in parts of its terms",
                _young_error(phi, conjugate, n_points), 1e-12, control=control,
            ),
        ]  # fmt: skip

    cases = [case for phi in POTENTIALS for case in both(name_of(phi), phi, phi.conjugate)]
    other = PNorm(3.0)
    cases += both(name_of(other), other, SquaredNorm().conjugate, "the squared norm's conjugate")
    cases += both(
        "negative entropy", NegativeEntropy(), lambda v: float(np.exp(v).sum()), "exp(v) for exp(v - 1)"
    )
    return Findings(cases)


_Step = Callable[[Potential, Float64Array, Float64Array, float], Float64Array]


def _mirror(phi: Potential, v: Float64Array, x: Float64Array, eta: float) -> Float64Array:
    """A step of mirror descent with the map phi*: grad phi*(v+) = grad phi*(v) - eta (m - x)."""
    m = phi.conjugate_gradient(v)
    return phi.gradient(m - eta * (m - x))


def _searched(phi: Potential, v: Float64Array, x: Float64Array, eta: float) -> Float64Array:
    """The same step as it is defined: the least of eta <m - x, w> + D*(w, v), by golden sections over w.

    D* (w, v) is phi*(w) - w m and what does not depend on w.
    """
    m = phi.conjugate_gradient(v)
    slope = (1.0 - eta) * m + eta * x
    low, high = v - 3.0 - 3.0 * np.abs(v), np.minimum(v + 3.0 + 3.0 * np.abs(v), phi.ceiling)
    ratio = 0.5 * (np.sqrt(5.0) - 1.0)
    for _ in range(80):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        falling = _terms(phi.conjugate, left) - slope * left > _terms(phi.conjugate, right) - slope * right
        low, high = np.where(falling, left, low), np.where(falling, high, right)
    return 0.5 * (low + high)


def _euclidean(phi: Potential, v: Float64Array, x: Float64Array, eta: float) -> Float64Array:
    return v - eta * (phi.conjugate_gradient(v) - x)


def _longer(phi: Potential, v: Float64Array, x: Float64Array, eta: float) -> Float64Array:
    return _mirror(phi, v, x, 1.1 * eta)


def _swapped(phi: Potential, v: Float64Array, x: Float64Array, eta: float) -> Float64Array:
    """The gradient of phi in the place of grad phi*, on the positive part of v."""
    m = phi.conjugate_gradient(v)
    return phi.conjugate_gradient(phi.gradient(np.maximum(v, 1e-3)) - eta * (m - x))


def _drift(phi: Potential, step: _Step, rates: Float64Array, shares: Float64Array) -> float:
    """Largest |grad phi*(v) - m|/m along steps on v, m the average of the shares with the same rates."""
    m = np.full(shares.shape[1], 1.0 / shares.shape[1])
    v, worst = phi.gradient(m), 0.0
    for eta, x in zip(rates, shares, strict=True):
        v = step(phi, v, x, float(eta))
        m = (1.0 - eta) * m + eta * x
        worst = max(worst, float((np.abs(phi.conjugate_gradient(v) - m) / m).max()))
    return worst


def _in_the_loop(phi: Potential) -> Case:
    """The compiled rule's bias against -(lambda/K) (grad phi(m) - v_0), m averaged here from its loads."""
    n_experts, n_tokens, k, strength, horizon = 6, 32, 2, 0.7, 300
    source = sources.Gumbel(n_experts=n_experts, offsets="iqr", seed=105)
    rule = PhiBalance(potential=phi, ema_rate="harmonic", strength=strength)
    run = simulate(
        rule, source, n_tokens=n_tokens, k=k, horizon=horizon, comparator="none", n_exact=0, n_records=horizon
    )
    shares = np.cumsum(np.vstack([np.full(n_experts, 1.0 / n_experts), run.loads / (n_tokens * k)]), axis=0)
    averages = shares[1:] / np.arange(2.0, horizon + 2.0)[:, None]
    origin = phi.gradient(np.full(n_experts, 1.0 / n_experts))
    expected = np.array([-strength / k * (phi.gradient(m) - origin) for m in averages])
    error = float(np.abs(run.bias - expected).max() / np.abs(expected).max())
    instance = f"{name_of(phi)}, the rule on Gumbel scores, {horizon} steps"
    return at_most(instance, "largest error of its bias, relative to the largest bias", error, 1e-12)


def _rates(n_steps: int) -> Sequence[tuple[str, Float64Array]]:
    return ("harmonic", 1.0 / np.arange(2.0, n_steps + 2.0)), ("rate 0.01", np.full(n_steps, 0.01))


@statement(
    label="P3",
    paper=PAPER,
    title="Mirror descent is an average",
    claim="Mirror descent on v with mirror map phi*, step eta and gradient m - x, is m <- (1 - eta) m + "
    "eta x with v = grad phi(m): exact to rounding, for every phi.",
    hypotheses=(
        "phi strictly convex, differentiable on m > 0",
        "0 < eta <= 1",
        "m stays positive where f' is unbounded",
    ),
    statistic="largest |grad phi*(v) - m| / m along both recursions; for the step as it is defined, a "
    "minimisation, by golden sections on phi* alone",
    control="a Euclidean step; the maps the wrong way round; a step 1.1 eta",
)
def mirror_descent(depth: Depth) -> Findings:
    """Run both recursions side by side, on hard loads with an expert that is rarely chosen."""
    n_steps, n_searched = depth.pick(3_000, 100_000), depth.pick(15, 200)
    shares = np.random.default_rng(104).multinomial(16, [0.7, 0.25, 0.045, 0.005], n_steps) / 16.0
    cases = []
    for phi in POTENTIALS:
        for text, rates in _rates(n_steps):
            # A relative error of v in units of m, at most 3e-16 (1 + |ln m|) or 1/p of it, a step.
            drift = _drift(phi, _mirror, rates, shares)
            instance = f"{name_of(phi)}, {text}, {n_steps:,} steps"
            cases.append(at_most(instance, "largest |grad phi*(v) - m| / m", drift, 1e-12))
        # Golden sections see a minimum's place to the root of rounding.
        text, rates = _rates(n_searched)[1]
        drift = _drift(phi, _searched, 10.0 * rates, shares[:n_searched])
        instance = f"{name_of(phi)}, rate 0.1, {n_searched} steps by search"
        cases.append(at_most(instance, "largest |grad phi*(v) - m| / m", drift, 1e-4))
        cases.append(_in_the_loop(phi))
    controls: tuple[tuple[Potential, _Step, str], ...] = (
        (NegativeEntropy(), _euclidean, "a Euclidean step"),
        (PNorm(3.0), _swapped, "mirror map phi for phi*"),
        (NegativeEntropy(), _longer, "step 1.1 eta"),
    )
    for phi, step, control in controls:
        for text, rates in _rates(200):
            drift = _drift(phi, step, rates, shares[:200])
            instance = f"{name_of(phi)}, {text}, 200 steps"
            cases.append(at_most(instance, "largest |grad phi*(v) - m| / m", drift, 1e-12, control=control))
    return Findings(cases)
