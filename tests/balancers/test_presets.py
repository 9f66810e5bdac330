"""Presets against hand-computed traces and plain references of the frameworks' rules; centring and drift."""

import dataclasses
import math

import numpy as np
import pytest

import balancesim as bs
from balancesim.balancers import AlfLB, NoBalance, preset, presets, registry
from balancesim.balancers.presets import Preset
from balancesim.errors import InputError
from balancesim.sources import FromFunction, Normal
from tests.balancers.twins import Flipped, InPython

SIGMOID = Normal(n_experts=8, offsets="iqr", seed=5, transform="sigmoid")
SIGNS = {"deepseek-paper": 1e-3, "megatron": 1e-3, "olmo-core": 1e-4, "maxtext": 1e-3}
QUANTILES = ("megatron-qb", "torchtitan-qb")

# T = 8, K = 2, E = 4, L = 4.
THREE = [[8, 2, 2, 4], [6, 3, 3, 4], [3, 3, 3, 7]]


class TestThreeSteps:
    @pytest.mark.parametrize("name", SIGNS)
    def test_sign(self, name):
        expected = np.array([[-1, 1, 1, 0], [-2, 2, 2, 0], [-1, 3, 3, -1]]) * SIGNS[name]
        np.testing.assert_allclose(self.trace(name), expected, atol=1e-18)

    def test_torchtitan_subtracts_each_means(self):
        """Signs (-1, 1, 1, 0), twice, of mean 1/4; then (1, 1, 1, -1) of mean 1/2."""
        expected = (
            np.array([[-1.25, 0.75, 0.75, -0.25], [-2.5, 1.5, 1.5, -0.5], [-2.0, 2.0, 2.0, -2.0]]) * 1e-3
        )
        np.testing.assert_allclose(self.trace("torchtitan"), expected, atol=1e-17)

    @staticmethod
    def trace(name):
        rule = preset(name)
        state = rule.init(4, 2)
        rows = []
        for loads in THREE:
            state = rule.update(state, np.array(loads), None)
            rows.append(rule.bias(state))
        return rows

    def test_megatron_qb(self):
        """docs/theory.md's fixture; then the same again, a fixed point; then with the columns swapped.

        The third batch at (-.075, .075): cutoffs (.425, .625, .125, .375); leads of the first column
        (.075, .075, .075, .075), of the second (.475, .175, .575, .225); their third largest .075 and .225.
        """
        scores = np.array([(0.9, 0.5), (0.8, 0.7), (0.7, 0.2), (0.6, 0.45)])
        expected = [(-0.075, 0.075), (-0.075, 0.075), (0.075, -0.075)]
        rule = preset("megatron-qb")
        state = rule.init(2, 1)
        for batch, bias in zip((scores, scores, scores[:, ::-1]), expected, strict=True):
            state = rule.observe(state, batch)
            state = rule.update(state, np.array([2, 2]), None)
            np.testing.assert_allclose(rule.bias(state), bias, atol=1e-15)

    def test_torchtitan_qb(self):
        """Four bins of width 1/2 from -1 to 1 at first, K/E = 1/2, two tokens of four wanted.

        Batch 1, cutoffs (.5, .75, .25, .5): the first expert needs (-.25, 0, -.5, -.125), bins (1, 2, 1, 1),
        position 1 + 2/3; the second (0, 0, 0, 0), bin 2, position 2 + 2/4. So -+ 5/24. Batches 2 and 3: the
        same scores at that price, with bins of width (5/12 + 2)/4 = 29/48 from -29/24.
        """
        scores = np.array([(0.75, 0.5), (0.75, 0.75), (0.75, 0.25), (0.625, 0.5)])
        rule = dataclasses.replace(preset("torchtitan-qb"), n_bins=4)
        state = rule.init(2, 1)
        found = []
        for _ in range(3):
            state = rule.observe(state, scores)
            state = rule.update(state, np.array([2, 2]), None)
            found.append(rule.bias(state))
        np.testing.assert_allclose(found[0], (-5 / 24, 5 / 24), atol=1e-15)
        # Biased, batch 2: (.75 - b, .5 + b) ..., cutoffs with b = 5/24: .5417, .5417, .4583, .4167; needs
        # (-.2083, -.2083, -.2917, -.2083) and (.0417, -.2083, .2083, -.0833); (need + 29/24) 48/29 is 1.655,
        # 1.655, 1.517, 1.655: position 1 + 2/4; and 2.069, 1.655, 2.345, 1.862: bins 2, 1, 2, 1, position 2.
        np.testing.assert_allclose(found[1], (-0.25 * 29 / 48, 0.25 * 29 / 48), atol=1e-15)
        # b = 29/192 = .15104, width (29/96 + 2)/4 = 221/384 from -221/192: cutoffs .59896, .59896, .40104,
        # .47396; positions 1.738, 1.738, 1.394, 1.738 and 2.172, 1.738, 2.262, 1.955.
        np.testing.assert_allclose(found[2], (-0.25 * 221 / 384, 0.25 * 221 / 384), atol=1e-15)


def reference(name, scores, bias, k):
    """The framework's update, as its source has it, in float64."""
    n_tokens, n_experts = scores.shape
    routed = bs.route(scores, bias.astype(scores.dtype), k=k)
    counts = routed.loads.astype(np.float64)
    if name in SIGNS:
        return bias + SIGNS[name] * np.sign(counts.mean() - counts), routed.loads
    if name == "torchtitan":
        delta = 1e-3 * np.sign(counts.mean() - counts)
        return bias + (delta - delta.mean()), routed.loads
    ordered = -np.sort(-(scores + bias.astype(scores.dtype)), axis=1).astype(np.float64)
    cutoff, exact = ordered[:, k : k + 1], scores.astype(np.float64)
    if name == "megatron-qb":
        beta = -np.sort(-(exact - cutoff), axis=0)[n_tokens * k // n_experts]
        return -(beta - beta.mean()), routed.loads
    needed = cutoff - exact
    low, high = (float(end) for end in (bias.astype(np.float32).min(), bias.astype(np.float32).max()))
    width = (high - low + 2.0) / 1000
    place = np.floor((needed - (low - 1.0)) / width).astype(np.int64).clip(0, 999)
    position = np.empty(n_experts)
    for e in range(n_experts):
        counts = np.bincount(place[:, e], minlength=1000)
        total, wanted = counts.cumsum(), n_tokens * (k / n_experts)
        i = (total < math.ceil(wanted)).sum()
        position[e] = i + (wanted - (total[i] - counts[i])) / counts[i]
    return (position - position.mean()) * width, routed.loads


@pytest.mark.parametrize("name", [*SIGNS, "torchtitan", *QUANTILES])
def test_a_thousand_steps_equal_the_frameworks_rule(name):
    n_tokens, k = 64, 2
    run = bs.simulate(preset(name), SIGMOID, n_tokens=n_tokens, k=k, horizon=1000, n_records=1000, n_exact=0)
    bias = np.zeros(8)
    for step in range(1000):
        bias, loads = reference(name, SIGMOID.batch(step, n_tokens), bias, k)
        assert run.loads[step].tolist() == loads.tolist()
        # A thousand sums of magnitude below 2**-1: 1000 * 2**-54 < 1e-13.
        np.testing.assert_allclose(run.bias[step], bias, atol=1e-12)


@pytest.mark.parametrize("name", [*SIGNS, "torchtitan", *QUANTILES])
def test_the_loop_has_the_bits_of_the_python_protocol(name):
    rule = preset(name)
    short = {"n_tokens": 64, "k": 2, "horizon": 20, "n_records": 40, "n_exact": 0}
    inside, outside = bs.simulate([rule, InPython(rule)], SIGMOID, **short)
    assert inside.bias.tobytes() == outside.bias.tobytes()


@pytest.mark.parametrize("name", ["megatron", "torchtitan", *QUANTILES])
def test_it_balances_and_the_flipped_rule_does_not(name):
    rule = preset(name)
    runs = bs.simulate([NoBalance(), rule, Flipped(rule)], SIGMOID, n_tokens=500, k=2, horizon=400, n_exact=0)
    none, right, wrong = (bs.max_violation(run.window_loads[-1]) for run in runs)
    assert right < 0.1 < none < wrong


class TestCentring:
    DYADIC = FromFunction(lambda u: np.floor(64.0 * u * u) / 64.0, n_experts=8, seed=2)

    @pytest.mark.parametrize("schedule", ["sign", "constant"])
    def test_it_never_changes_a_selection(self, schedule):
        """Scores, steps and means are multiples of powers of two: every sum is exact, ties included."""
        plain, centred = (
            AlfLB(schedule=schedule, step_size=2.0**-9, recentre=recentre) for recentre in (False, True)
        )
        short = {"n_tokens": 64, "k": 2, "horizon": 300, "n_records": 300, "n_exact": 0}
        first, second = bs.simulate([plain, centred], self.DYADIC, **short)
        assert first.loads.tolist() == second.loads.tolist()
        assert (first.bias - first.bias.mean(axis=1, keepdims=True)).tolist() == second.bias.tolist()
        assert np.ptp(first.bias, axis=1).tolist() == np.ptp(second.bias, axis=1).tolist()
        assert np.abs(second.bias.mean(axis=1)).max() == 0.0

    def test_without_it_the_mean_drifts_while_the_range_stays(self):
        """docs/theory.md: few experts lie far above their share, many a little below, also by noise alone."""
        offsets = np.where(np.arange(64) < 8, 1.5, 0.0)
        source = Normal(n_experts=64, offsets=offsets, seed=1, transform="sigmoid")
        steps = (1e-3, 1e-2)
        names = ("megatron", "torchtitan")
        rules = [dataclasses.replace(preset(name), step_size=u) for u in steps for name in names]
        runs = bs.simulate(
            rules, source, n_tokens=1024, k=8, horizon=3000, n_exact=0, comparator=np.zeros(64)
        )
        for u, low, high, (plain, centred) in zip(
            steps, (0.05, 0.4), (0.2, 0.7), (runs[:2], runs[2:]), strict=True
        ):
            drift = plain.bias[-1].mean()
            assert low < drift < high
            assert abs(centred.bias[-1].mean()) < 1e-12
            # In exact arithmetic the same; float32 sums with another mean round otherwise, here and there.
            assert abs(np.ptp(plain.bias[-1]) - np.ptp(centred.bias[-1])) <= 4 * u
            # The mean moves by u times the mean of the signs, and only so.
            half = np.searchsorted(plain.steps, 1500)
            late = drift - plain.bias[half].mean()
            assert late > 0.0


def test_presets_by_name():
    assert list(presets()) == [
        "deepseek-paper", "megatron", "torchtitan", "olmo-core", "maxtext", "megatron-qb", "torchtitan-qb",
    ]  # fmt: skip
    for name, kind in presets().items():
        rule = preset(name)
        assert registry()[name] is kind is type(rule)
        assert isinstance(rule, Preset)
        assert rule.causal
        assert rule.describe().startswith(f"{name}: ")
        assert (kind.__doc__ or "").startswith("Preset: ")
    assert preset("megatron").parameters() == preset("deepseek-paper").parameters()
    assert dataclasses.replace(preset("torchtitan"), step_size=0.5).step_size == 0.5


@pytest.mark.parametrize(("name", "nearest"), [("megatro", "megatron"), ("torch-titan", "torchtitan")])
def test_an_unknown_preset_names_the_nearest(name, nearest):
    with pytest.raises(InputError, match=f"unknown preset '{name}'; did you mean '{nearest}'"):
        preset(name)
