"""How a router turns a token's features into experts and gate weights."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from balancesim.errors import InputError
from balancesim.numbers import check_int, check_not_negative, check_positive
from balancesim.rng import philox_key
from balancesim.sources.base import check_choice
from balancesim.types import Float64Array

SELECTIONS = ("logits", "softmax", "sigmoid")
GATES = ("renormalised", "raw", "sigmoid")


@dataclass(frozen=True, kw_only=True)
class Router:
    """A linear router with softmax probabilities r over logits W x (+ b).

    Parameters
    ----------
    selection : {"logits", "softmax", "sigmoid"}, optional
        What a selection rule's bias is added to, and so the unit of its steps: the logits, their softmax over
        the experts, or the sigmoid of each (DeepSeek-V3). Without a bias the choice is the same.
    gate : {"renormalised", "raw", "sigmoid"}, optional
        Gate weights of the K chosen: their softmax among themselves, their part of the softmax over all
        experts (Switch), or their sigmoids divided by the sum of these (DeepSeek-V3).
    offset : bool, optional
        Whether the logits have an offset b per expert, learnt like W.
    z_loss : float, optional
        Weight of the mean squared logarithm of the logits' sum of exponentials in the loss (Zoph et al. 2022,
        arXiv:2202.08906, equation 5). It holds the logits' size down and is no price: it goes with any rule.
    initial_scale : float, optional
        Standard deviation of W's initial entries; b starts at zero.
    """

    selection: Literal["logits", "softmax", "sigmoid"] = "logits"
    gate: Literal["renormalised", "raw", "sigmoid"] = "renormalised"
    offset: bool = False
    z_loss: float = 0.0
    initial_scale: float = 0.1

    def __post_init__(self) -> None:
        check_choice("selection", self.selection, SELECTIONS)
        check_choice("gate", self.gate, GATES)
        if self.offset not in (True, False):
            raise InputError(f"`offset` must be true or false, got {self.offset!r}")
        check_not_negative("z_loss", self.z_loss)
        check_positive("initial_scale", self.initial_scale)

    def initial_weights(self, n_experts: int, n_features: int, seed: int) -> Float64Array:
        """Draw W, with b as a last column where there is one.

        Parameters
        ----------
        n_experts, n_features : int
            E and d.
        seed : int
            Key of the draw.

        Returns
        -------
        (E, d) or (E, d + 1) ndarray of float64
            The weights before the first step.
        """
        from balancesim.kernels.model import STREAM_WEIGHT
        from balancesim.kernels.tokens import draw_normals

        values = np.empty((check_int("n_experts", n_experts, 2), check_int("n_features", n_features, 1)))
        key0, key1 = philox_key(seed)
        draw_normals(np.uint64(key0), np.uint64(key1), STREAM_WEIGHT, values)
        values *= self.initial_scale
        return np.column_stack([values, np.zeros(n_experts)]) if self.offset else values
