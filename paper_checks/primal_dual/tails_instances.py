"""The sources that T1 to T10 are tried on, and the ratio by which rules are compared on shared seeds."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

import balancesim as bs
from balancesim.kernels.model import ScoreModel
from balancesim.sources.base import alias_table
from balancesim.sources.structured import NoisySource
from balancesim.theory import boundary_spread, curvature
from balancesim.types import Float64Array

CAMP_SHIFT = 1.0


def families(n_experts: int, tail_indices: Sequence[float]) -> dict[str, Any]:
    """Independent scores from heavy to light tails; Pareto with each of the indices."""
    kinds = bs.sources
    paretos = {f"Pareto {a:g}": kinds.Pareto(n_experts=n_experts, tail_index=a) for a in tail_indices}
    return paretos | {
        "Cauchy": kinds.Cauchy(n_experts=n_experts),
        "t, 2": kinds.StudentT(n_experts=n_experts, degrees=2.0),
        "log-normal 2": kinds.LogNormal(n_experts=n_experts, sigma=2.0),
        "normal": kinds.Normal(n_experts=n_experts),
        "exponential": kinds.Exponential(n_experts=n_experts),
    }


def spread_out(source: Any, k: int, spreads: float) -> Any:
    """The source with offsets evenly over so many boundary spreads."""
    width = spreads * boundary_spread(source, k)
    places = np.linspace(-0.5, 0.5, source.n_experts)
    return dataclasses.replace(source, offsets=tuple(float(width * x) for x in places))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Camps(NoisySource):
    """Normal scores; a fair coin per token adds 1 to the first half of the experts and takes 1 from the rest.

    Or the reverse. Experts of one half tie often and the halves seldom, while each is distributed like any
    other: p* is minus the offsets.
    """

    name = "camps"

    def make_model(self) -> ScoreModel:
        """Two phases of equal frequency."""
        half = self.n_experts // 2
        signs = np.array([1.0] * half + [-1.0] * (self.n_experts - half))
        return self.build_model(
            self.noise_source.family,
            scale=self.scale,
            table=CAMP_SHIFT * self.scale * np.array([signs, -signs]),
            phase_row=(0, 2),
            aliases=[alias_table(np.ones(2))],
        )

    def ties(self, k: int) -> Float64Array:
        """The Hessian at p*: the mean of those given the coin, where scores are independent (S1)."""
        plain = bs.sources.Normal(n_experts=self.n_experts, scale=self.scale)
        half = self.n_experts // 2
        signs = np.array([1.0] * half + [-1.0] * (self.n_experts - half))
        one, other = (
            curvature(plain, k, bias=sign * CAMP_SHIFT * self.scale * signs) for sign in (1.0, -1.0)
        )
        return 0.5 * (one + other)


def normalised_gap(hessian: Float64Array) -> float:
    """The least eigenvalue but zero of diag(H)^(-1/2) H diag(H)^(-1/2)."""
    root = np.sqrt(np.diag(hessian))
    return float(np.linalg.eigvalsh(hessian / np.outer(root, root))[1])


def ratio_of_means(ours: Float64Array, theirs: Float64Array) -> tuple[float, float, float]:
    """Ratio of means over shared seeds, with a 95 % t interval of its logarithm (delta method)."""
    ratio = float(ours.mean() / theirs.mean())
    n = ours.size
    spread = float(np.std(ours / ours.mean() - theirs / theirs.mean(), ddof=1)) / math.sqrt(n)
    reach = float(stats.t.ppf(0.975, n - 1)) * spread
    return ratio, ratio * math.exp(-reach), ratio * math.exp(reach)
