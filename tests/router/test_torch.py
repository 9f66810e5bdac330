"""The gradient against PyTorch's autograd, where PyTorch is installed (pip install 'balancesim[torch]')."""

import numpy as np
import pytest

from balancesim.balancers import GShardLoss, NoBalance, SwitchLoss
from balancesim.router import ClusteredTask, Router, train_router
from tests.router import twin

torch = pytest.importorskip("torch", reason="autograd is not compared with: pip install 'balancesim[torch]'")

TASK = ClusteredTask(n_experts=8, n_clusters=12, n_features=6, reward_noise=0.1, seed=2)
N_TOKENS, K = 150, 3


def loss_of(rule, router, weights, inputs, rewards):
    """Minus the reward, plus the losses, as a trainer writes them."""
    logits = inputs @ weights.T
    r = torch.softmax(logits, dim=1)
    chosen = torch.topk(logits, K, dim=1).indices
    if router.gate == "raw":
        gates = r.gather(1, chosen)
    elif router.gate == "renormalised":
        gates = torch.softmax(logits.gather(1, chosen), dim=1)
    else:
        gates = torch.sigmoid(logits.gather(1, chosen))
        gates = gates / gates.sum(dim=1, keepdim=True)
    loss = -(gates * rewards.gather(1, chosen)).sum(dim=1).mean()
    loss = loss + router.z_loss * (torch.logsumexp(logits, dim=1) ** 2).mean()
    if isinstance(rule, SwitchLoss):
        counted = chosen[:, :1] if rule.counts_first_choice else chosen
        marks = torch.zeros_like(r).scatter(1, counted, 1.0) / counted.shape[1]
        parts = zip(marks.chunk(rule.n_micro_batches), r.chunk(rule.n_micro_batches), strict=True)
        losses = [8 * (f.mean(dim=0) * p.mean(dim=0)).sum() for f, p in parts]
        loss = loss + rule.weight * torch.stack(losses).mean()
    return loss


@pytest.mark.parametrize(
    "router",
    [Router(), Router(gate="raw", offset=True, z_loss=0.02), Router(gate="sigmoid")],
    ids=lambda router: router.gate,
)
@pytest.mark.parametrize(
    "rule",
    [
        NoBalance(),
        SwitchLoss(weight=0.3),
        SwitchLoss(weight=0.3, n_micro_batches=3),
        GShardLoss(weight=0.3, n_micro_batches=2),
    ],
    ids=lambda rule: rule.describe(),
)
def test_gradient_is_autograd_s(rule, router, record_property):
    start = 5.0 * router.initial_weights(8, 6, 0)
    run = train_router(
        rule, TASK, router=router, n_tokens=N_TOKENS, k=K, horizon=1, learning_rate=1.0, weights=start,
        n_exact=0,
    )  # fmt: skip
    batch = TASK.batch(0, N_TOKENS)
    weights = torch.tensor(start, requires_grad=True)
    inputs, rewards = torch.tensor(twin.inputs_of(router, batch)), torch.tensor(batch.rewards)
    loss_of(rule, router, weights, inputs, rewards).backward()
    # Sums of 150 terms below 10, and the rounding of weights below 3: 150 x 10 eps.
    np.testing.assert_allclose(start - run.weights, weights.grad.numpy(), atol=4e-13)
    record_property("counted", f"autograd: {rule.describe()}, {router.gate} gate")
