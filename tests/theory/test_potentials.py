"""P5's slope against its measurement; P7's bounds against runs and against their own counterexamples."""

import math

import numpy as np
import pytest

from balancesim import sources
from balancesim.balancers import PhiBalance
from balancesim.errors import InputError
from balancesim.penalised import penalised_minimiser, share_slope
from balancesim.potentials import LogBarrier, NegativeEntropy, PNorm, SquaredNorm, Tsallis
from balancesim.simulation import simulate
from balancesim.theory import averaging_bound, averaging_ceiling, averaging_excess, minibatch_bias

POTENTIALS = [
    NegativeEntropy(),
    SquaredNorm(),
    PNorm(1.5),
    PNorm(3.0),
    Tsallis(0.5),
    Tsallis(1.5),
    LogBarrier(),
]
each = pytest.mark.parametrize("potential", POTENTIALS, ids=repr)


def soft_shares(n_tokens=3000, n_experts=5):
    logits = np.random.default_rng(11).normal(size=(n_tokens, n_experts)) + np.linspace(-0.5, 0.5, n_experts)
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)


class TestMinibatchBias:
    @each
    def test_slope_covers_the_analytic_value(self, potential):
        """P5 with soft shares. One 95 % interval a potential, its seed chosen before the first run."""
        found = minibatch_bias(potential, soft_shares(), seed=1)
        assert found.slope.low <= found.analytic <= found.slope.high
        assert found.slope.high - found.slope.low < 0.35 * found.analytic
        assert (np.diff(found.bias) < 0.0).all()

    def test_interval_covers_as_often_as_it_says(self):
        """60 seeds at 95 %: at most 8 misses but for one run in a hundred."""
        shares = soft_shares(400, 3)
        found = [
            minibatch_bias(NegativeEntropy(), shares, batch_sizes=(16, 32, 64), n_batches=300, seed=seed)
            for seed in range(60)
        ]
        missed = sum(not one.slope.low <= one.analytic <= one.slope.high for one in found)
        assert missed <= 8

    def test_hard_loads(self):
        """One-hot rows: tr(Hess phi Cov) = E - 1 for the entropy at any mean; the log barrier is infinite."""
        rows = np.eye(4)[np.random.default_rng(2).integers(4, size=2000)]
        found = minibatch_bias(NegativeEntropy(), rows, batch_sizes=(128, 256, 512, 1024), seed=3)
        assert found.analytic == pytest.approx(1.5, rel=1e-12)
        # Four standard errors, a false alarm in 16,000: the test above is about the intervals' coverage.
        assert abs(found.slope.value - 1.5) < 4.0 * (found.slope.high - found.slope.low) / 3.92
        barrier = minibatch_bias(LogBarrier(), rows, batch_sizes=(4, 8), n_batches=50)
        assert math.isinf(barrier.slope.value)
        assert "left an expert without load" in barrier.slope.method

    def test_squared_norm_has_no_higher_order(self):
        """phi is a quadratic, so that B times the bias is the slope at every B."""
        found = minibatch_bias(SquaredNorm(), soft_shares(), batch_sizes=(1, 4, 16), seed=4)
        errors = found.batch_sizes * found.error
        assert (np.abs(found.batch_sizes * found.bias - found.analytic) < 4.0 * errors).all()

    def test_a_wrong_slope_is_outside(self):
        """The control: twice the analytic value, as without the 1/2."""
        found = minibatch_bias(NegativeEntropy(), soft_shares(), seed=1)
        assert not found.slope.low <= 2.0 * found.analytic <= found.slope.high

    @pytest.mark.parametrize(
        ("shares", "arguments", "message"),
        [
            (np.zeros((3, 2)), {}, "negative_entropy: the mean share of expert 0 is 0"),
            (-np.ones((3, 2)), {}, "`shares` must be"),
            (np.ones(3), {}, r"`shares` must be \(N, E\)"),
            (np.ones((3, 2)), {"batch_sizes": (8,)}, "at least two different sizes"),
            (np.ones((3, 2)), {"batch_sizes": (0, 8)}, "`batch_sizes` must be at least 1"),
            (np.ones((3, 2)), {"n_batches": 1}, "`n_batches` must be at least 2"),
        ],
    )
    def test_bad_input(self, shares, arguments, message):
        with pytest.raises(InputError, match=message):
            minibatch_bias(NegativeEntropy(), shares, **arguments)


def averages_of(run, potential, strength, k):
    """m before every step, from the recorded biases: m = grad phi*(v_0 - (K/lambda) bias)."""
    n_experts = run.bias.shape[1]
    uniform = np.full(n_experts, 1.0 / n_experts)
    v = potential.gradient(uniform) - k / strength * run.bias
    return np.array([uniform, *(potential.conjugate_gradient(row) for row in v)])


class TestRegretBounds:
    """P7 on every realisation: an inequality, not a statement about means."""

    @each
    @pytest.mark.parametrize("source", ["pareto", "cauchy", "normal"])
    def test_bound_along_a_run_holds(self, potential, source):
        kinds = {
            "pareto": sources.Pareto(n_experts=5, tail_index=0.5, offsets="iqr"),
            "cauchy": sources.Cauchy(n_experts=5, offsets="iqr"),
            "normal": sources.Normal(n_experts=5, offsets="iqr"),
        }
        rule = PhiBalance(potential=potential, ema_rate="harmonic", strength=0.5)
        horizon = 600
        run = simulate(
            rule, kinds[source], n_tokens=8, k=2, horizon=horizon, comparator="rule", n_exact=0,
            n_records=horizon,
        )  # fmt: skip
        target = penalised_minimiser(kinds[source], potential, strength=0.5, k=2).shares
        averages = averages_of(run, potential, 0.5, 2)
        bound = averaging_bound(potential, averages, target, strength=0.5)
        # Biases are routed in float32: up to 6e-8 of their size, some 10, at every step.
        assert (run.regret <= bound + 1e-6 * run.steps).all()
        assert run.regret[-1] > 0.01 * bound[-1]  # the bound is not idle
        if potential not in (Tsallis(0.5), LogBarrier()):
            ceiling = averaging_ceiling(potential, target, strength=0.5, k=2, horizon=run.steps)
            assert (bound <= ceiling).all()

    def test_bound_is_its_formula(self):
        m = np.array([[0.5, 0.5], [0.75, 0.25], [0.5, 0.5]])
        found = averaging_bound(SquaredNorm(), m, [0.25, 0.75], strength=3.0)
        np.testing.assert_allclose(found, 3.0 * np.array([0.0625 + 2 * 0.0625, 0.0625 + 5 * 0.0625]))

    def test_a_bound_without_the_moves_fails(self):
        """The control: the first term alone is exceeded."""
        source = sources.Normal(n_experts=5, offsets="iqr")
        rule = PhiBalance(potential="squared_norm", ema_rate="harmonic")
        run = simulate(rule, source, n_tokens=8, k=2, horizon=600, comparator="rule", n_exact=0)
        target = penalised_minimiser(source, SquaredNorm(), strength=1.0, k=2).shares
        assert run.regret[-1] > SquaredNorm().divergence(np.full(5, 0.2), target)

    @pytest.mark.parametrize("n_steps", [100, 1000, 10_000])
    def test_counterexamples(self, n_steps):
        """theory.md P7: two experts, K = 1, scores (d, 0) with d so large that only the first is chosen.

        G(v_n) - G(v*) in closed form; d = 2 lambda N keeps the second expert unchosen for N steps.
        """
        n = np.arange(1, n_steps + 1)
        m = np.stack([1 - 1 / (2 * n), 1 / (2 * n)], axis=1)
        regret = {}
        for potential in (NegativeEntropy(), Tsallis(0.5), LogBarrier()):
            d = 4.0 * n_steps
            v = np.array([potential.gradient(row) for row in m])
            assert (d - v[:, 0] > -v[:, 1]).all()
            values = d - v[:, 0] + np.array([potential.conjugate(row) for row in v])
            # The primal optimum bounds the dual's minimum from below: m_2 = 1/d is feasible.
            share = 1.0 / d if potential == LogBarrier() else 0.0
            least = d * (1 - share) - potential.value([1 - share, share])
            regret[potential] = float((values - least).sum())
        assert regret[LogBarrier()] > 0.9 * n_steps
        assert regret[Tsallis(0.5)] == pytest.approx(math.sqrt(2.0 * n_steps), rel=0.25)
        assert regret[NegativeEntropy()] < 2.0 * math.log(1 + n_steps) + math.log(2.0) + 1.0

    @pytest.mark.parametrize("potential", [LogBarrier(), Tsallis(0.5)], ids=repr)
    def test_no_ceiling_for_the_counterexamples(self, potential):
        with pytest.raises(InputError, match="no logarithmic bound that holds for all scores"):
            averaging_ceiling(potential, [0.5, 0.5], strength=1.0, k=1, horizon=[10])

    def test_bad_input(self):
        with pytest.raises(InputError, match=r"`averages` must be \(N \+ 1, E\)"):
            averaging_bound(SquaredNorm(), [0.5, 0.5], [0.5, 0.5], strength=1.0)
        with pytest.raises(InputError, match="`strength` must be positive"):
            averaging_bound(SquaredNorm(), [[0.5, 0.5]] * 2, [0.5, 0.5], strength=0.0)
        with pytest.raises(InputError, match="`horizon` must be integers"):
            averaging_ceiling(SquaredNorm(), [0.5, 0.5], strength=1.0, k=1, horizon=[0])


def one_hot_covariance(m):
    return np.diag(m) - np.outer(m, m)


class TestAveragingExcess:
    M = np.array([0.4, 0.3, 0.2, 0.1])

    @pytest.mark.parametrize("rate", [0.01, 0.3, 1.0])
    def test_a_price_that_moves_no_choice(self, rate):
        """One-hot rows and the entropy: tr(Hess phi Cov) = E - 1, so eta/(2 - eta) lambda 3/(2 T)."""
        found = averaging_excess(
            NegativeEntropy(), self.M, one_hot_covariance(self.M), ema_rate=rate, strength=0.7, k=1,
            n_tokens=50,
        )  # fmt: skip
        assert found == pytest.approx(rate / (2.0 - rate) * 0.7 * 3.0 / 100.0, rel=1e-12)

    @pytest.mark.parametrize(
        "potential", [NegativeEntropy(), SquaredNorm(), PNorm(1.5), LogBarrier()], ids=repr
    )
    @pytest.mark.parametrize("rate", [0.02, 0.3])
    def test_equals_the_stationary_second_moment(self, potential, rate):
        """Iterate Sigma = A Sigma A' + eta^2 Cov/T to its limit; the excess is lambda tr(H B Sigma)/2."""
        rng = np.random.default_rng(5)
        strength, k, n_tokens = 0.4, 2, 30
        root = rng.normal(size=(4, 4))
        slope = 0.02 * (root @ root.T)
        covariance = one_hot_covariance(self.M) / k
        hessian = np.diag(potential.curvature(self.M))
        pull = np.eye(4) + strength / k * slope @ hessian
        step = np.eye(4) - rate * pull
        sigma = np.zeros((4, 4))
        # Eigenvalues of the step are at most 1 - eta: 0.98^(2 * 1000) is below 1e-17.
        for _ in range(1000):
            sigma = step @ sigma @ step.T + rate**2 * covariance / n_tokens
        given = {"ema_rate": rate, "strength": strength, "k": k, "n_tokens": n_tokens}
        found = averaging_excess(potential, self.M, covariance, slope=slope, **given)
        assert found == pytest.approx(0.5 * strength * np.trace(hessian @ pull @ sigma), rel=1e-10)
        assert found > averaging_excess(potential, self.M, covariance, **given)

    def test_a_run_loses_this_much_a_step(self):
        """Squared norm at rate 1, on 12 seeds: four standard errors, by Student's law a false alarm in 500.

        Half the value, and twice, must fail.
        """
        source = sources.Normal(n_experts=6, offsets="iqr", seed=9)
        rule = PhiBalance(potential="squared_norm", ema_rate=1.0)
        found = penalised_minimiser(source, rule.phi, strength=1.0, k=2)
        biased = source.with_seed(10).batch(0, 2**15) + found.bias
        shares = np.zeros(biased.shape)
        np.put_along_axis(shares, np.argsort(-biased, axis=1)[:, :2], 0.5, axis=1)
        expected = averaging_excess(
            rule.phi, found.shares, np.cov(shares.T, bias=True), ema_rate=1.0, strength=1.0, k=2, n_tokens=64,
            slope=share_slope(source, found.bias, k=2),
        )  # fmt: skip
        parts = np.empty(12)
        for seed in range(parts.size):
            run = simulate(
                rule, source, n_tokens=64, k=2, horizon=600, seed=seed, comparator="rule", n_exact=0,
                n_records=600,
            )  # fmt: skip
            parts[seed] = (run.regret[-1] - run.regret[99]) / 500.0
        error = parts.std(ddof=1) / math.sqrt(parts.size)
        assert abs(parts.mean() - expected) < 4.0 * error
        for wrong in (0.5, 2.0):
            assert abs(parts.mean() - wrong * expected) > 4.0 * error

    def test_no_stationary_law(self):
        given = {"ema_rate": 1.0, "strength": 1.0, "k": 1, "n_tokens": 8}
        covariance = one_hot_covariance(self.M)
        assert averaging_excess(SquaredNorm(), self.M, covariance, slope=1.1 * np.eye(4), **given) == math.inf

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("ema_rate", 1.5, "`ema_rate`"),
            ("ema_rate", 0.0, "`ema_rate`"),
            ("strength", -1.0, "`strength`"),
            ("n_tokens", 0, "`n_tokens`"),
            ("k", 4, "k"),
            ("covariance", np.eye(3), "`covariance` must be finite"),
            ("slope", np.full((4, 4), np.nan), "`slope` must be finite"),
        ],
    )
    def test_bad_input(self, key, value, message):
        arguments = {
            "covariance": one_hot_covariance(self.M), "ema_rate": 0.1, "strength": 1.0, "k": 1, "n_tokens": 8,
        }  # fmt: skip
        with pytest.raises(InputError, match=message):
            averaging_excess(SquaredNorm(), self.M, **{**arguments, key: value})
