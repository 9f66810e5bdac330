"""The training of a router as the definitions read, in plain NumPy: one batch at a time, full Jacobians."""

from typing import Any

import numpy as np


def softmax(logits: Any) -> Any:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def sigmoid(logits: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-logits))


def log_partition(logits: Any) -> Any:
    largest = logits.max(axis=1)
    return largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))


def inputs_of(router: Any, batch: Any) -> Any:
    ones = np.ones((len(batch.features), 1))
    return np.hstack([batch.features, ones]) if router.offset else batch.features


def scores_of(router: Any, logits: Any) -> Any:
    return {"logits": logits, "softmax": softmax(logits), "sigmoid": sigmoid(logits)}[router.selection]


def choose(biased: Any, k: int) -> Any:
    """Marks of each token's K experts; ties go to the lower index."""
    marks = np.zeros(biased.shape, bool)
    np.put_along_axis(marks, np.argsort(-biased, axis=1, kind="stable")[:, :k], True, axis=1)
    return marks


def gates_of(router: Any, logits: Any, marks: Any) -> Any:
    if router.gate == "raw":
        return np.where(marks, softmax(logits), 0.0)
    if router.gate == "renormalised":
        return softmax(np.where(marks, logits, -np.inf))
    shares = np.where(marks, sigmoid(logits), 0.0)
    return shares / shares.sum(axis=1, keepdims=True)


def objective(
    router: Any, weights: Any, inputs: Any, rewards: Any, marks: Any, penalties: Any, z: float
) -> float:
    """Mean reward minus the losses, with the choice and the penalties held."""
    logits = inputs @ weights.T
    reward = (gates_of(router, logits, marks) * rewards).sum(axis=1).mean()
    parts = np.split(softmax(logits), len(penalties))
    penalty = np.mean([part.mean(axis=0) @ v for part, v in zip(parts, penalties, strict=True)])
    return float(reward - penalty - z * (log_partition(logits) ** 2).mean())


def gradient(
    router: Any, weights: Any, inputs: Any, rewards: Any, marks: Any, penalties: Any, z: float
) -> Any:
    """The gradient of `objective` in the weights, token by token through full Jacobians."""
    logits = inputs @ weights.T
    probabilities, gates = softmax(logits), gates_of(router, logits, marks)
    total = np.zeros_like(weights)
    size = len(inputs) // len(penalties)
    for i, (r, g) in enumerate(zip(probabilities, gates, strict=True)):
        of_softmax = np.diag(r) - np.outer(r, r)
        if router.gate == "raw":
            of_gates = marks[i][:, None] * of_softmax
        elif router.gate == "renormalised":
            of_gates = np.diag(g) - np.outer(g, g)
        else:
            s = sigmoid(logits[i])
            of_gates = (np.diag(marks[i]) - g[:, None]) * (marks[i] * s * (1 - s)) / (s * marks[i]).sum()
        slope = of_gates.T @ rewards[i] - of_softmax.T @ penalties[i // size]
        slope -= 2 * z * log_partition(logits[i : i + 1]) * r
        total += np.outer(slope, inputs[i])
    return total / len(inputs)


def train(
    rule: Any, task: Any, router: Any, weights: Any, n_tokens: int, k: int, horizon: int, rate: float
) -> list[dict[str, Any]]:
    """Every step's numbers, with the rule's own methods in Python."""
    penalised = rule.needs_probabilities
    n_parts = rule.n_micro_batches if penalised else 1
    first = penalised and rule.counts_first_choice
    state = rule.init(task.n_experts, 1 if first else k)
    steps = []
    for n in range(horizon):
        batch = task.batch(n, n_tokens)
        inputs = inputs_of(router, batch)
        logits = inputs @ weights.T
        scores, probabilities = scores_of(router, logits), softmax(logits)
        bias = 0.0 if penalised else rule.bias(state)
        marks = choose(scores + bias, k)
        counted = choose(scores, 1) if first else marks
        penalties = [np.zeros(task.n_experts)] * n_parts
        if penalised:
            for m in range(n_parts):
                part = slice(m * n_tokens // n_parts, (m + 1) * n_tokens // n_parts)
                state = rule.update(state, counted[part].sum(axis=0), probabilities[part].mean(axis=0))
                penalties[m] = rule.penalty(state)
        else:
            if rule.needs_scores or getattr(rule, "compiled_observe", None) is not None:
                state = rule.observe(state, scores)
            state = rule.update(state, marks.sum(axis=0), None)
        before = weights
        found = gradient(router, weights, inputs, batch.rewards, marks, penalties, router.z_loss)
        weights = weights + rate * found
        loads = marks.sum(axis=0)
        gates = gates_of(router, logits, marks)
        steps.append(
            {
                "before": before,
                "weights": weights,
                "gradient": found,
                "marks": marks,
                "penalties": penalties,
                "loads": loads,
                "price": penalties[-1] if penalised else rule.bias(state),
                "max_violation": loads.max() / (n_tokens * k / task.n_experts) - 1,
                "reward": (gates * batch.expected).sum(axis=1).mean(),
                "choice_reward": (marks * batch.expected).sum() / (n_tokens * k),
                "entropy": -(probabilities * np.log(probabilities)).sum(axis=1).mean(),
                "squared_log_partition": (log_partition(logits) ** 2).mean(),
            }
        )
    return steps
