"""What training frameworks do, each as a rule with its numbers and the place in its source.

Frameworks feed a router's own scores to the rule; here the source's scores take their place, so step sizes
mean what they mean there only for scores of the same scale (sigmoid or softmax in [0, 1], unless said
otherwise). docs/theory.md has the table, and what was read where.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from balancesim.balancers.alf_lb import AlfLB
from balancesim.balancers.protocol import Rule
from balancesim.balancers.quantile import QuantileBalance
from balancesim.errors import InputError, unknown_name


class Preset:
    """A rule whose defaults are a framework's; every parameter of the rule can be overridden."""

    name: ClassVar[str]

    def describe(self) -> str:
        """Return the preset's name and what the rule is."""
        rule: Rule = super()  # type: ignore[assignment]  # each preset derives from a rule as well
        return f"{self.name}: {rule.describe()}"


@dataclass(frozen=True, kw_only=True)
class SignPreset(Preset, AlfLB):
    """The sign of the load error, u = 1e-3 unless said otherwise, which most frameworks have in common."""

    schedule: Literal["harmonic", "sign", "constant", "sqrt"] = "sign"
    step_size: float | Literal["auto"] = 1e-3


class DeepSeekPaper(SignPreset):
    """Preset: the sign of the load error, uncentred, once a global batch, u = 1e-3 (arXiv:2408.15664).

    Algorithm 1 of Wang et al. 2024, as DeepSeek-V3 reports it (arXiv:2412.19437, 2.1.2 and 4.2: u = 1e-3 for
    14.3T tokens, then 0). All others are held against this one.
    """

    name = "deepseek-paper"
    reference = "arXiv:2408.15664, Algorithm 1; arXiv:2412.19437"


class Megatron(SignPreset):
    """Preset: Megatron-LM, the paper's rule: sign, uncentred, once a global batch, u = 1e-3.

    ``get_updated_expert_bias`` in NVIDIA/Megatron-LM, megatron/core/transformer/moe/moe_utils.py, called when
    gradients are finalised, with the loads of all micro-batches and ranks summed;
    ``moe_router_bias_update_rate`` is 1e-3, the bias itself is off by default. The float32 mean of the counts
    is what they are compared with, as in ours.
    """

    name = "megatron"
    reference = "NVIDIA/Megatron-LM, megatron/core/transformer/moe/moe_utils.py"


@dataclass(frozen=True, kw_only=True)
class TorchTitan(SignPreset):
    """Preset: torchtitan, the sign and then its mean subtracted, so that the bias keeps a mean of zero.

    The optimizer's pre-step hook of pytorch/torchtitan, torchtitan/components/optimizer.py, with the loads
    since the last optimizer step summed over ranks; ``load_balance_coeff`` is 1e-3. Its own comment says that
    this is not exactly the paper's rule; no selection differs (docs/theory.md).
    """

    name = "torchtitan"
    reference = "pytorch/torchtitan, torchtitan/components/optimizer.py"
    recentre: bool = True


@dataclass(frozen=True, kw_only=True)
class OLMoCore(SignPreset):
    """Preset: OLMo-core, the paper's rule with a tenth of its step: sign, uncentred, once a batch, u = 1e-4.

    ``MoERouter.post_batch`` in allenai/OLMo-core, src/olmo_core/nn/moe/router.py. ``bias_gamma`` has no
    default, and without it there is no bias; its docstring calls 1e-4 reasonable, where scores are softmax
    probabilities by default.
    """

    name = "olmo-core"
    reference = "allenai/OLMo-core, src/olmo_core/nn/moe/router.py"
    step_size: float | Literal["auto"] = 1e-4


class MaxText(SignPreset):
    """Preset: MaxText, the paper's rule: sign, uncentred, u = 1e-3 as its DeepSeek-V3 recipe sets it.

    ``calculate_load_balance_updates`` in AI-Hypercomputer/maxtext, layers/moe.py: the update is computed in
    the forward pass from the batch that a step sees. ``routed_bias_update_rate`` is 0 by default, which
    leaves the bias still; recipes set 1e-3.
    """

    name = "maxtext"
    reference = "AI-Hypercomputer/maxtext, layers/moe.py"


@dataclass(frozen=True, kw_only=True)
class MegatronQB(Preset, QuantileBalance):
    """Preset: Megatron-LM's quantile balancing: exact local quantiles, averaged over micro-batches and ranks.

    NVIDIA/Megatron-LM pull request 5349: each micro-batch of each rank finds beta at the end of its interval,
    the mean of these is blended with the last beta (``moe_router_quantile_balancing_ema`` is 0, no memory:
    our ``ema_rate`` is 1 minus it) and centred, once a global batch. Its scores are the raw logits. Set
    ``n_ranks`` to micro-batches times ranks; 1 is one micro-batch on one rank.
    """

    name = "megatron-qb"
    reference = "NVIDIA/Megatron-LM, pull request 5349"


@dataclass(frozen=True, kw_only=True)
class TorchTitanQB(Preset, QuantileBalance):
    """Preset: torchtitan's quantile balancing: the K/E quantile interpolated in a pooled histogram, centred.

    pytorch/torchtitan pull request 4577, after the Kimi K3 report: 1000 bins from min p - 1 to max p + 1,
    which no sigmoid score can leave, summed over micro-batches and ranks, once an optimizer step.
    """

    name = "torchtitan-qb"
    reference = "pytorch/torchtitan, pull request 4577"
    estimate: Literal["end", "midpoint", "histogram"] = "histogram"


_PRESETS: tuple[type[Rule], ...] = (
    DeepSeekPaper, Megatron, TorchTitan, OLMoCore, MaxText, MegatronQB, TorchTitanQB,
)  # fmt: skip


def presets() -> Mapping[str, type[Rule]]:
    """Return the presets by name; they are in `registry` too.

    Returns
    -------
    mapping of str to type
        The class of each, whose defaults are the framework's and whose docstring names its source.
    """
    return {kind.name: kind for kind in _PRESETS}


def preset(name: str) -> Rule:
    """Return the rule that a framework uses, with its default numbers.

    Parameters
    ----------
    name : str
        One of "deepseek-paper", "megatron", "torchtitan", "olmo-core", "maxtext", "megatron-qb" and
        "torchtitan-qb".

    Returns
    -------
    Rule
        A frozen dataclass: ``dataclasses.replace`` gives it other numbers.

    Raises
    ------
    InputError
        If there is no such preset; the message names the nearest one.
    """
    known = presets()
    if name not in known:
        raise InputError(f"`name`: {unknown_name('preset', str(name), known)}")
    return known[name]()
