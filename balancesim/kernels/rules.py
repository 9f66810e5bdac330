"""Price updates: what a balancing rule does once a step, on flat arrays."""

import numpy as np

from balancesim.kernels.jit import strict

# Kinds of rule. ASSIGNED: the caller has chosen the experts, counted loads and added to the score lost.
FIXED = 0
ALF_LB = 1
IN_PYTHON = 2
ASSIGNED = 3

# ALF-LB's parameters, in this order; schedules are SIGN, CONSTANT, HARMONIC, SQRT.
SCHEDULE, STEP_SIZE, DELAY, RECENTRE, RADIUS = range(5)
N_PARAMETERS = 5
SIGN, CONSTANT, HARMONIC, SQRT = range(4)


@strict
def project(price, radius):
    """Project onto {sum p = 0, |p_k| <= radius} (S4) in place: shift, then clip.

    The sum of the clipped prices falls monotonically with the shift; bisection ends when no floating-point
    number is left between the brackets of its root.
    """
    low, high = price.min() - radius, price.max() + radius
    while True:
        shift = 0.5 * (low + high)
        if not low < shift < high:
            break
        total = 0.0
        for e in range(price.size):
            total += min(max(price[e] - shift, -radius), radius)
        if total > 0.0:
            low = shift
        else:
            high = shift
    for e in range(price.size):
        price[e] = min(max(price[e] - shift, -radius), radius)


@strict
def update_alf_lb(parameters, step, n_tokens, k, loads, price):
    """One ALF-LB step on ``price`` (E,) in place; ``step`` counts from 1 (theory.md, "Step rules")."""
    schedule = int(parameters[SCHEDULE])
    size = parameters[STEP_SIZE]
    if schedule == HARMONIC:
        size = size / (step + parameters[DELAY])
    elif schedule == SQRT:
        size = size / np.sqrt(step + parameters[DELAY])
    n_experts = price.size
    for e in range(n_experts):
        violation = (loads[e] * n_experts - n_tokens * k) / (n_experts * n_tokens)
        if schedule == SIGN:
            violation = np.sign(violation)
        price[e] -= size * violation
    if parameters[RECENTRE] != 0.0 or parameters[RADIUS] < np.inf:
        price -= price.mean()
    if parameters[RADIUS] < np.inf and np.abs(price).max() > parameters[RADIUS]:
        project(price, parameters[RADIUS])


@strict
def update_price(kind, parameters, step, n_tokens, k, loads, price):
    """Apply the rule of this kind to its price in place."""
    if kind == ALF_LB:
        update_alf_lb(parameters, step, n_tokens, k, loads, price)


@strict
def within(price, limit):
    """Whether every price is a number of magnitude at most ``limit``."""
    for e in range(price.size):
        if not abs(price[e]) <= limit:
            return False
    return True
