"""phi-balancing against a plain twin; its limits, its zero loads, its regret (P3, P4, P6, P7)."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest

import balancesim as bs
from balancesim import potentials, sources
from balancesim.balancers import AlfLB, Delayed, PhiBalance
from balancesim.errors import InputError
from balancesim.penalised import penalised_minimiser
from balancesim.potentials import LogBarrier, NegativeEntropy, PNorm, SquaredNorm, Tsallis
from balancesim.runs import Outcome
from balancesim.simulation import simulate
from balancesim.sources.base import Source
from tests import naive

SOURCE = sources.FromFunction(lambda u: u, n_experts=5, seed=2)
POTENTIALS = [NegativeEntropy(), SquaredNorm(), PNorm(3.0), Tsallis(0.5), Tsallis(1.5), LogBarrier()]
each = pytest.mark.parametrize("potential", POTENTIALS, ids=repr)

# The definitions in plain numpy: v = grad phi(m), and phi* at it.
GRADIENTS = {
    NegativeEntropy(): lambda m: 1 + np.log(m),
    SquaredNorm(): lambda m: m,
    PNorm(3.0): lambda m: m**2,
    Tsallis(0.5): lambda m: (0.5 / np.sqrt(m) - 1) / -0.5,
    Tsallis(1.5): lambda m: (1.5 * np.sqrt(m) - 1) / 0.5,
    LogBarrier(): lambda m: -1 / m,
}
CONJUGATES = {
    NegativeEntropy(): lambda v: np.exp(v - 1).sum(),
    SquaredNorm(): lambda v: (v**2).sum() / 2,
    PNorm(3.0): lambda v: (v**1.5).sum() / 1.5,
    Tsallis(0.5): lambda v: 0.5 * (1 / (1 - v / 2)).sum(),
    Tsallis(1.5): lambda v: (((1 + v / 2) / 1.5) ** 3).sum(),
    LogBarrier(): lambda v: (-1 - np.log(-v)).sum(),
}


def twin(source, potential, rate, strength, q, n_tokens, k, horizon):
    """P6 as it reads: prices after each step, loads, and regret on the penalised objective at v."""
    n_experts = source.n_experts
    gradient, conjugate = GRADIENTS[potential], CONJUGATES[potential]
    m = np.full(n_experts, 1 / n_experts)
    zero = gradient(m)
    best = zero - k / strength * q
    prices, loads, regret = [], [], [0.0]
    for n in range(1, horizon + 1):
        v = gradient(m)
        scores = source.batch(n - 1, n_tokens)
        values = [
            sum(naive.top_sums(scores, -strength / k * at, k)) / n_tokens + strength * conjugate(at)
            for at in (v, best)
        ]
        regret.append(regret[-1] + values[0] - values[1])
        bias = -strength / k * (v - zero)
        loads.append(naive.loads_of(naive.choose(scores, bias, k), n_experts))
        eta = 1 / (n + 1) if rate == "harmonic" else rate
        m = (1 - eta) * m + eta * np.array(loads[-1]) / (n_tokens * k)
        prices.append(-strength / k * (gradient(m) - zero))
    return np.array(prices), loads, np.array(regret[1:])


@each
@pytest.mark.parametrize("rate", [0.2, "harmonic"])
def test_equals_the_twin(potential, rate):
    rule = PhiBalance(potential=potential, ema_rate=rate, strength=0.7)
    horizon = 25
    run = simulate(rule, SOURCE, n_tokens=20, k=2, horizon=horizon, comparator="rule", n_records=99)
    prices, loads, regret = twin(SOURCE, potential, rate, 0.7, run.comparator.bias, 20, 2, horizon)
    assert run.loads.tolist() == loads
    np.testing.assert_allclose(run.bias, prices, rtol=1e-11, atol=1e-13)
    # The twin subtracts sums of the size of lambda E |v|, at most some 50, each step: 50 eps a step.
    np.testing.assert_allclose(run.regret, regret, atol=1e-12)
    assert run.comparator.kind == "rule"


@each
def test_python_and_kernel_agree(potential):
    rule = PhiBalance(potential=potential, ema_rate=0.3)
    run = simulate(rule, SOURCE, n_tokens=20, k=2, horizon=5, n_records=9, n_exact=0)
    state = rule.init(5, 2)
    for step in range(5):
        state = rule.update(state, run.loads[step], None)
        assert (rule.bias(state) == run.bias[step]).all()
        assert (rule.penalty(state) == 0.0).all()
    assert rule.average(state).sum() == pytest.approx(1.0, abs=1e-15)


@each
def test_the_average_is_that_of_the_shares(potential):
    """The harmonic rate makes m the plain mean of the uniform start and all shares so far (P7)."""
    rule = PhiBalance(potential=potential, ema_rate="harmonic")
    state = rule.init(4, 2)
    loads = np.random.default_rng(1).multinomial(16, [0.4, 0.3, 0.2, 0.1], 50)
    for batch in loads:
        state = rule.update(state, batch, None)
    expected = (0.25 + loads.sum(axis=0) / 16) / 51
    np.testing.assert_allclose(rule.average(state), expected, rtol=1e-13)


class TestGradientForm:
    """P4: the penalty follows the probabilities, and the choice is left alone."""

    def test_penalty_is_the_gradient_at_the_average(self):
        rule = PhiBalance(form="gradient", ema_rate=0.5, strength=3.0)
        state = rule.init(3, 1)
        uniform = 3.0 * (1 + math.log(1 / 3))
        assert rule.penalty(state) == pytest.approx([uniform] * 3, rel=1e-15)
        mean = np.array([0.7, 0.2, 0.1])
        state = rule.update(state, np.array([9, 0, 0]), mean)
        average = (1 / 3 + mean) / 2
        np.testing.assert_allclose(rule.average(state), average, rtol=1e-15)
        np.testing.assert_allclose(rule.penalty(state), 3 * (1 + np.log(average)), rtol=1e-14)
        assert (rule.bias(state) == 0.0).all()

    def test_loads_do_not_count(self):
        rule = PhiBalance(form="gradient")
        mean = np.array([0.7, 0.2, 0.1])
        one, other = (rule.update(rule.init(3, 1), np.array(a), mean) for a in ([9, 0, 0], [0, 4, 5]))
        assert (rule.penalty(one) == rule.penalty(other)).all()

    def test_simulate_refuses_it(self):
        with pytest.raises(InputError, match=r"phi-balancing gradient, .* needs router probabilities"):
            simulate(PhiBalance(form="gradient"), SOURCE, n_tokens=20, k=2, horizon=3)

    def test_probabilities_are_needed(self):
        rule = PhiBalance(form="gradient")
        for wrong in (None, np.zeros(2)):
            with pytest.raises(InputError, match=r"must be the router's mean probabilities, \(3,\)"):
                rule.update(rule.init(3, 1), np.array([9, 0, 0]), wrong)

    def test_has_no_objective_on_scores_alone(self):
        assert PhiBalance(form="gradient").own_objective(SOURCE, 20, 2) is None


class TestZeroLoad:
    """Expert 3 is never chosen: what its share does, and what the rule says when the share is gone."""

    unwanted = sources.Normal(n_experts=4, offsets=(0.0, 0.0, 0.0, -1e6))

    def run(self, potential, rate, horizon=1200):
        rule = PhiBalance(potential=potential, ema_rate=rate)
        return simulate(rule, self.unwanted, n_tokens=16, k=1, horizon=horizon, n_records=2000, n_exact=0)

    @pytest.mark.parametrize("potential", [NegativeEntropy(), Tsallis(0.5), LogBarrier()], ids=repr)
    def test_rate_one_ends_the_run(self, potential):
        run = self.run(potential, 1.0, 50)
        assert run.status.outcome is Outcome.BIAS_NOT_FINITE
        assert run.status.step == 1
        assert "phi-balancing selection" in run.status.reason
        assert not np.isnan(run.bias).any()

    @pytest.mark.parametrize("potential", [SquaredNorm(), PNorm(3.0), Tsallis(1.5)], ids=repr)
    def test_bounded_gradients_have_a_price_at_zero(self, potential):
        run = self.run(potential, 1.0, 50)
        assert run.status.outcome is Outcome.HORIZON_REACHED
        assert np.isfinite(run.bias).all()
        assert (run.bias[:, 3] == run.bias[0, 3]).all()  # v at zero load

    def test_underflow_ends_the_entropys_run(self):
        """A share halves at every step: 0.25 * 2**-n is zero from n = 1073 on."""
        run = self.run(NegativeEntropy(), 0.5)
        assert run.status.outcome is Outcome.BIAS_NOT_FINITE
        assert run.status.step == 1073
        assert run.bias[-2, 3] == pytest.approx(1072 * math.log(2), rel=1e-6)
        assert not np.isnan(run.bias).any()

    def test_harmonic_rate_never_gets_there(self):
        run = self.run(NegativeEntropy(), "harmonic")
        assert run.status.outcome is Outcome.HORIZON_REACHED
        np.testing.assert_allclose(run.bias[:, 3], np.log(run.steps + 1), rtol=1e-12)

    @pytest.mark.parametrize("rate", [0.5, "harmonic"])
    def test_the_log_barrier_fetches_the_expert(self, rate):
        """Its price grows until the expert is chosen: exponentially or linearly, as 1/m does."""
        assert self.run(LogBarrier(), rate, 40).loads[:, 3].any() == (rate == 0.5)


class TestAlfLb:
    """ALF-LB as the limit of P6."""

    def test_small_rates_at_a_fixed_step_are_alf_lb(self):
        """Squared norm: p <- (1 - eta) p - (eta lambda / K^2) g, so eta -> 0 at eta lambda = u K^2."""
        source = sources.Normal(n_experts=5, seed=3, offsets="iqr")
        rules = [AlfLB(schedule="constant", step_size=0.2)] + [
            PhiBalance(potential="squared_norm", ema_rate=eta, strength=0.2 * 4 / eta) for eta in (1e-6, 1e-2)
        ]
        alf, limit, damped = simulate(rules, source, n_tokens=64, k=2, horizon=40, n_records=99, n_exact=0)
        assert (alf.loads == limit.loads).all()
        # 40 steps each forget a share eta of the price.
        np.testing.assert_allclose(limit.bias, alf.bias, atol=40 * 1e-6 * np.abs(alf.bias).max())
        assert np.abs(damped.bias - alf.bias).max() > 1e-2  # the control: a rate that is not small

    @each
    def test_imbalance_vanishes_as_strength_grows(self, potential):
        source = sources.Gumbel(n_experts=5, offsets="iqr")
        residual = []
        for strength in (1.0, 10.0, 100.0, 1000.0, 1e4):
            found = penalised_minimiser(source, potential, strength=strength, k=2)
            residual.append(5 * found.shares.max() - 1.0)
        assert residual[0] > 0.02
        assert residual[-1] < 2e-3
        assert (np.diff(residual) < 0.0).all()
        # O(1/lambda): a bounded p = -(lambda/K) (v - v_0), and p is near p* by then.
        assert residual[-2] / residual[-1] == pytest.approx(10.0, rel=0.1)
        np.testing.assert_allclose(
            found.bias - found.bias.mean(), source.population_bias(), atol=1e-2 * np.ptp(found.bias)
        )

    def test_value_approaches_the_exact_assignments(self):
        """One batch, again and again: the time average solves max sum gamma x / T - lambda phi (P6)."""
        scores = np.random.default_rng(4).normal(size=(48, 4)) + np.array([1.0, 0.3, 0.0, -0.5])
        exact = bs.solve(scores, k=1).value / 48
        free = float(scores.max(axis=1).mean())
        gaps, violations = [], []
        for strength in (1.0, 10.0, 100.0):
            rule = PhiBalance(ema_rate="harmonic", strength=strength)
            run = simulate(rule, Again(scores), n_tokens=48, k=1, horizon=20_000, n_exact=0)
            gaps.append((run.top_score[-1] - run.score_lost[-1]) / 20_000 - exact)
            violations.append(4 * run.window_loads.sum(axis=0).max() / run.window_loads.sum() - 1.0)
        # The penalised optimum gives up balance for score: its value lies between the two, and
        # lambda (phi(m) - phi(uniform)) is at most what it gains.
        assert free - exact > gaps[0] > gaps[1] > gaps[2] > -1e-3
        assert gaps[2] < 0.02 * (free - exact)
        assert violations[0] > 10 * violations[2]


@dataclass(frozen=True)
class Again(Source):
    """The same batch at every step."""

    name = "again"
    scores: np.ndarray
    n_experts: int = 4
    seed: int = 0

    def batch(self, step, n_tokens):
        return np.resize(self.scores, (n_tokens + 0 * step, 4))

    def with_seed(self, seed):
        return replace(self, seed=seed)


@each
@pytest.mark.parametrize("seed", [0, 1])
def test_what_averages_lack_of_the_penalised_optimum(potential, seed):
    """theory.md P6: mean G_n(v_n) less the averaged routing's value is four terms of averages."""
    eta, strength, k, n_tokens, n_steps, n_experts = 0.2, 0.7, 2, 12, 30, 4
    scores = np.random.default_rng(seed).normal(size=(n_steps, n_tokens, n_experts))
    averages = [np.full(n_experts, 1.0 / n_experts)]
    duals, gained, shares = [], [], []
    for batch in scores:
        m = averages[-1]
        v = potential.gradient(m)
        routed = bs.route(batch, -strength / k * v, k=k)
        duals.append(routed.value / n_tokens + strength * potential.conjugate(v))
        gained.append(routed.score / n_tokens)
        shares.append(routed.loads / (n_tokens * k))
        averages.append((1.0 - eta) * m + eta * shares[-1])
    mean = np.mean(shares, axis=0)
    value = potential.value
    lacking = np.mean(duals) - (np.mean(gained) - strength * value(mean))
    moves = [potential.divergence(b, a) for a, b in pairwise(averages)]
    along = np.mean([value(m) for m in averages[:-1]])
    terms = value(mean) - along + (value(averages[0]) - value(averages[-1])) / (eta * n_steps)
    # Sums of some 30 values below 100, divided by eta: 1e-12.
    assert lacking == pytest.approx(strength * (terms + np.mean(moves) / eta), abs=1e-11)
    # The control: without the divergences it is not.
    assert abs(lacking - strength * terms) > 1e-4


def test_constant_rates_hover_within_a_distance_that_falls_with_the_rate():
    """P6: the mean squared distance of m from m* is of order eta."""
    source = sources.Normal(n_experts=6, seed=5, offsets="iqr")
    target = penalised_minimiser(source, NegativeEntropy(), strength=1.0, k=2).shares
    rules = [PhiBalance(ema_rate=eta) for eta in (0.1, 0.01)]
    distances = []
    for run in simulate(rules, source, n_tokens=16, k=2, horizon=20_000, n_records=20_000, n_exact=0):
        v = NegativeEntropy().gradient(np.full(6, 1 / 6)) - 2.0 * run.bias[2000:]
        m = np.exp(v - 1.0)
        distances.append(float(((m - target) ** 2).sum(axis=1).mean()))
    # 180 relaxation times of the slower rule: its mean is within some 10 % (one standard deviation).
    assert distances[0] / distances[1] == pytest.approx(10.0, rel=0.5)


class Wide:
    """Draws in float64: float32 scores of 10^5 round prices to 0.01, a drift of 10^-6 lambda a step."""

    dtype = np.dtype(np.float64)


class WidePareto(Wide, sources.Pareto):
    pass


class WideCauchy(Wide, sources.Cauchy):
    pass


SOURCES = {
    "pareto": WidePareto(n_experts=6, tail_index=0.5, offsets="iqr"),
    "cauchy": WideCauchy(n_experts=6, offsets="iqr"),
    "normal": sources.Normal(n_experts=6, offsets="iqr"),
}
# An expert that costs d = 10 N more to use, N the last step: 1/m grows to d lambda^-1 / E no sooner.
EXTREME = {n: sources.Normal(n_experts=3, offsets=(0.0, 0.0, -10.0 * n)) for n in (1000, 100_000)}


def growth(potentials, source, steps, n_seeds, k=2):
    """Mean regret on P6's objective gained between the steps, over lambda, one row a potential.

    lambda is the spread of the scores around the K-th place: the same strength whatever the source's scale.
    """
    strength = bs.theory.boundary_spread(source, k)
    rules = [PhiBalance(potential=phi, ema_rate="harmonic", strength=strength) for phi in potentials]
    curves = []
    for seed in range(n_seeds):
        runs = simulate(
            rules, source, n_tokens=16, k=k, horizon=steps[-1], seed=seed, comparator="rule", n_exact=0,
            n_records=1 + round(math.log10(steps[-1])),
        )  # fmt: skip
        curves.append([run.regret[np.searchsorted(run.steps, steps)] / strength for run in runs])
    return np.diff(np.mean(curves, axis=0), axis=1)


def assert_the_same_growth(gained, tolerance):
    for early, late in gained:
        assert late == pytest.approx(early, rel=tolerance)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_logarithmic_whatever_the_tails(source):
    """Three decades: the noise of 100 seeds is 4 % (entropy) and 5 % (squared norm) of each difference."""
    gained = growth([NegativeEntropy(), SquaredNorm()], source, [10, 100, 1000], 100)
    assert_the_same_growth(gained, 0.3)


def test_not_logarithmic_for_the_log_barrier_with_extreme_offsets():
    """The control, on the same statistic: linear until 1/m has grown to the offset."""
    barrier, entropy = growth([LogBarrier(), NegativeEntropy()], EXTREME[1000], [10, 100, 1000], 4, k=1)
    assert barrier[1] > 3.0 * barrier[0]
    assert_the_same_growth([entropy], 0.3)


@pytest.mark.deep
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_logarithmic_over_five_decades(source):
    """P7's numbers: R(10^5) - R(10^4) against R(10^4) - R(10^3)."""
    gained = growth([NegativeEntropy(), SquaredNorm()], source, [1000, 10_000, 100_000], 64)
    assert_the_same_growth(gained, 0.2)


@pytest.mark.deep
def test_the_log_barrier_over_five_decades():
    gained = growth([LogBarrier()], EXTREME[100_000], [1000, 10_000, 100_000], 4, k=1)
    with pytest.raises(AssertionError):
        assert_the_same_growth(gained, 0.2)


def test_own_objective_is_refused_where_it_has_no_minimiser():
    drifting = sources.Drifting(n_experts=4, offsets="iqr")
    with pytest.raises(InputError, match="changes along the run"):
        simulate(PhiBalance(), drifting, n_tokens=8, k=2, horizon=3, comparator="rule")


def test_delays_and_ranks_apply():
    rule = Delayed(rule=PhiBalance(), every=2, lag=1, n_ranks=2)
    run = simulate(rule, SOURCE, n_tokens=20, k=2, horizon=8, n_records=9, n_exact=0)
    assert run.status.outcome is Outcome.HORIZON_REACHED
    assert (run.bias[:2] == 0.0).all()


def test_registered_and_described():
    assert bs.balancers.registry()["phi-balance"] is PhiBalance
    assert PhiBalance.causal
    assert not PhiBalance().needs_probabilities
    assert PhiBalance(form="gradient").needs_probabilities
    text = PhiBalance(potential="tsallis", power=0.5, ema_rate="harmonic", strength=2.0).describe()
    assert text == "phi-balancing selection, tsallis 0.5, rate harmonic, strength 2"
    assert PhiBalance(potential="p_norm", power=3.0).phi == potentials.PNorm(3.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"potential": "entropy"}, "did you mean 'negative_entropy'"),
        ({"potential": "p_norm"}, "`power` must be given"),
        ({"potential": "p_norm", "power": 1.0}, "`p` of a p-norm must be a finite number above 1"),
        ({"power": 2.0}, "`power` must be left out"),
        ({"potential": SquaredNorm(), "power": 2.0}, r"`power` must be left out with SquaredNorm\(\)"),
        ({"ema_rate": 0.0}, r'`ema_rate` must be a number in \(0, 1\] or "harmonic", got 0.0'),
        ({"ema_rate": 1.5}, "`ema_rate`"),
        ({"ema_rate": math.nan}, "`ema_rate`"),
        ({"ema_rate": "harmonics"}, "`ema_rate`"),
        ({"strength": -1.0}, "`strength` must be a positive finite number"),
        ({"form": "gradients"}, "did you mean 'gradient'"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        PhiBalance(**arguments)
