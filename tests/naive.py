"""Slow, obvious twins of the kernels: the oracle for every backend."""

import bisect
import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np

MASK = 0xFFFFFFFF


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, ...]:
    """Philox4x32-10 in Python integers, as Salmon et al. (2011) print it."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def choose(scores: Any, bias: Any, k: int) -> list[list[int]]:
    """Each token's K experts by (biased score, lower index), ascending."""
    chosen = []
    for row in np.asarray(scores):
        biased = [x + b for x, b in zip(row, np.asarray(bias).astype(row.dtype), strict=True)]
        order = sorted(range(len(biased)), key=lambda e: (-biased[e], e))
        chosen.append(sorted(order[:k]))
    return chosen


def limit(scores: Any, bias: Any, n_groups: int, n_chosen: int, n_summed: int) -> Any:
    """The scores with minus infinity outside each token's best groups, by (summed score, lower group)."""
    rows = np.array(scores)
    bias = np.asarray(bias).astype(rows.dtype)
    size = rows.shape[1] // n_groups
    for row in rows:
        own = []
        for g in range(n_groups):
            best = sorted((row[e] + bias[e] for e in range(g * size, (g + 1) * size)), reverse=True)
            own.append(best[0] if n_summed == 1 else best[0] + best[1])
        order = sorted(range(n_groups), key=lambda g: (-own[g], g))
        for g in order[n_chosen:]:
            row[g * size : (g + 1) * size] = -math.inf
    return rows


def loads_of(chosen: list[list[int]], n_experts: int) -> list[int]:
    loads = [0] * n_experts
    for experts in chosen:
        for e in experts:
            loads[e] += 1
    return loads


def top_sums(scores: Any, bias: Any, k: int) -> list[float]:
    """Each token's sum of its K largest biased scores, in float64."""
    rows = np.asarray(scores)
    bias = np.asarray(bias).astype(rows.dtype)
    return [
        math.fsum(float(row[e] + bias[e]) for e in experts)
        for row, experts in zip(rows, choose(rows, bias, k), strict=True)
    ]


def difference(scores: Any, p: Any, q: Any, k: int) -> list[float]:
    """S5's membership form, in exact sums: topsum_K(x + p) - topsum_K(x + q) of each token."""
    rows = np.asarray(scores)
    p, q = np.asarray(p).astype(rows.dtype), np.asarray(q).astype(rows.dtype)
    result = []
    for row, with_p, with_q in zip(rows, choose(rows, p, k), choose(rows, q, k), strict=True):
        parts = []
        for e in range(row.size):
            if e in with_p and e in with_q:
                parts.append(float(p[e]) - float(q[e]))
            elif e in with_p:
                parts.append(float(row[e] + p[e]))
            elif e in with_q:
                parts.append(-float(row[e] + q[e]))
        result.append(math.fsum(parts))
    return result


def project(price: Any, radius: float) -> Any:
    """Project onto {sum p = 0, |p_k| <= radius}: try every interval between the shift's breakpoints."""
    breakpoints = sorted({x - radius for x in price} | {x + radius for x in price})
    for low, high in itertools.pairwise(breakpoints):
        middle = 0.5 * (low + high)
        free = [x for x in price if abs(x - middle) < radius]
        fixed = sum(math.copysign(radius, x - middle) for x in price if abs(x - middle) >= radius)
        if not free:
            continue
        shift = (math.fsum(free) + fixed) / len(free)
        if low <= shift <= high:
            return np.array([min(max(x - shift, -radius), radius) for x in price])
    return np.zeros(len(price))


def step_size(schedule: str, size: float, n: int, delay: int) -> float:
    return {"harmonic": size / (n + delay), "sqrt": size / math.sqrt(n + delay)}.get(schedule, size)


def simulate(source: Any, rule: Any, q: Any, n_tokens: int, k: int, horizon: int) -> dict[str, list[Any]]:
    """The loop as the definitions read, one batch at a time, every step kept."""
    n_experts = source.n_experts
    price = np.zeros(n_experts)
    rows: dict[str, list[Any]] = {"loads": [], "bias": [], "regret": [], "score_lost": [], "top_score": []}
    regret = lost = top = 0.0
    for n in range(1, horizon + 1):
        scores = source.batch(n - 1, n_tokens)
        used = price.astype(scores.dtype).astype(np.float64)
        reference = np.asarray(q).astype(scores.dtype).astype(np.float64)
        loads = np.array(loads_of(choose(scores, used, k), n_experts))
        gained = math.fsum(difference(scores, used, reference, k)) / n_tokens
        regret += gained - k / n_experts * (used.sum() - reference.sum())
        zero = np.zeros(n_experts)
        lost += (math.fsum(difference(scores, zero, used, k)) + float(loads @ used)) / n_tokens
        top += math.fsum(top_sums(scores, zero, k)) / n_tokens
        violation = (loads - n_tokens * k / n_experts) / n_tokens
        if rule is not None:
            direction = np.sign(violation) if rule.schedule == "sign" else violation
            price = price - step_size(rule.schedule, rule.step_size, n, rule.delay) * direction
            if rule.recentre or rule.radius is not None:
                price = price - price.mean()
            if rule.radius is not None and np.abs(price).max() > rule.radius:
                price = project(price, rule.radius)
        for name, value in zip(rows, (loads, price, regret, lost, top), strict=True):
            rows[name].append(value)
    return rows


def trained(
    source: Any,
    update: Any,
    n_tokens: int,
    k: int,
    horizon: int,
    *,
    every: int = 1,
    lag: int = 0,
    n_ranks: int = 1,
    groups: tuple[int, int, int] | None = None,
    above: bool = False,
) -> dict[str, Any]:
    """A rule as trainers run it: loads, prices after each step, and the score lost to the K best of all.

    ``update(price, loads, n, n_tokens)`` gives the n-th newer price; ``above`` sends each token to all
    experts whose biased score is positive.
    """
    n_experts = source.n_experts
    prices = [np.zeros(n_experts)] * (lag + 1)  # in force, ..., the newest
    pending = np.zeros((n_ranks, n_experts), np.int64)
    first = [math.ceil(rank * n_tokens / n_ranks) for rank in range(n_ranks + 1)]
    zero, lost = np.zeros(n_experts), 0.0
    rows: dict[str, list[Any]] = {"loads": [], "bias": [], "score_lost": []}
    for n in range(1, horizon + 1):
        scores = source.batch(n - 1, n_tokens)
        used = prices[0].astype(scores.dtype)
        if above:
            chosen = [[e for e in range(n_experts) if row[e] + used[e] > 0.0] for row in scores]
        else:
            chosen = choose(scores if groups is None else limit(scores, used, *groups), used, k)
        best = choose(scores, zero, k)
        for row, mine, theirs in zip(scores, chosen, best, strict=True):
            gone, new = set(theirs) - set(mine), set(mine) - set(theirs)
            lost += math.fsum([*(float(row[e]) for e in gone), *(-float(row[e]) for e in new)]) / n_tokens
        for rank in range(n_ranks):
            pending[rank] += loads_of(chosen[first[rank] : first[rank + 1]], n_experts)
        newest = prices[-1]
        if n % every == 0:
            sizes = [every * (first[rank + 1] - first[rank]) for rank in range(n_ranks)]
            local = [
                update(newest, loads, n // every, size) for loads, size in zip(pending, sizes, strict=True)
            ]
            newest = sum(local[1:], start=local[0]) / n_ranks
            pending[:] = 0
        prices = [*prices[1:], newest] if lag else [newest]
        for name, value in zip(rows, (loads_of(chosen, n_experts), prices[0], lost), strict=True):
            rows[name].append(value)
    return {name: np.array(values) for name, values in rows.items()}


def assignments(scores: Any, k: int) -> tuple[Any, Any]:
    """Every assignment's value (N,) and loads (N, E), N = C(E, K)^T of them; minus infinity where masked."""
    n_experts = scores.shape[1]
    choices = list(itertools.combinations(range(n_experts), k))
    picks = np.array([[e in choice for e in range(n_experts)] for choice in choices])
    values, loads = np.zeros(1), np.zeros((1, n_experts), np.int8)
    for row in scores:
        gains = np.array([sum(row[e] for e in choice) for choice in choices])
        values = np.add.outer(values, gains).ravel()
        loads = (loads[:, None, :] + picks[None, :, :].astype(np.int8)).reshape(-1, n_experts)
    return values, loads


def best_value(values: Any, loads: Any, low: Any, high: Any) -> float:
    """The largest value of the assignments whose loads keep to the limits; minus infinity without one."""
    feasible = ((loads >= low) & (loads <= high)).all(axis=1)
    return float(values[feasible].max(initial=-math.inf))


def cheapest_price(bias: Any, low: Any, high: Any, total: int) -> float:
    """The least price of loads within limits that sum to ``total``, one token after the other."""
    loads = [int(x) for x in low]
    for _ in range(total - sum(loads)):
        loads[min((e for e in range(len(loads)) if loads[e] < high[e]), key=lambda e: bias[e])] += 1
    return math.fsum(n * float(b) for n, b in zip(loads, bias, strict=True))


def certificate(scores: Any, k: int, low: Any, high: Any, experts: Any, bias: Any) -> dict[str, Any]:
    """All that `certify` finds, token by token; the choice of each token must be K different experts."""
    n_tokens, n_experts = scores.shape
    loads = loads_of(experts, n_experts)
    dual = -cheapest_price(bias, low, high, n_tokens * k) + math.fsum(top_sums(scores, bias, k))
    value = math.fsum(float(scores[i, e]) for i in range(n_tokens) for e in experts[i])
    violation, violated = 0.0, 0
    slack = np.full((n_experts, 2), math.inf)
    ahead = []
    for i in range(n_tokens):
        chosen, others = set(experts[i]), set(range(n_experts)) - set(experts[i])
        biased = [float(x + b) for x, b in zip(scores[i], bias, strict=True)]
        least, largest = min(biased[e] for e in chosen), max(biased[e] for e in others)
        ahead.append(abs(sum(biased[e] for e in chosen) - k * largest) if largest > -math.inf else 0.0)
        if largest > least:
            violation = max(violation, largest - least)
            size = max(abs(least), abs(largest)) + max(abs(b) for b in bias)
            violated += largest - least > 4 * np.finfo(float).eps * size
        for e in chosen:
            slack[e, 0] = min(slack[e, 0], biased[e] - largest)
        for e in others:
            slack[e, 1] = min(slack[e, 1], least - biased[e])
    for e, f in itertools.permutations(range(n_experts), 2):
        if loads[e] > low[e] and loads[f] < high[f]:  # then e may not become dearer than f
            slack[e, 1] = min(slack[e, 1], bias[f] - bias[e])
            slack[f, 0] = min(slack[f, 0], bias[f] - bias[e])
    masked = sum(any(scores[i, e] == -math.inf for e in experts[i]) for i in range(n_tokens))
    outside = sum(max(a - n, 0) + max(n - b, 0) for n, a, b in zip(loads, low, high, strict=True))
    price = math.fsum(n * float(b) for n, b in zip(loads, bias, strict=True))
    return {
        "row_residual": masked,
        "column_residual": int(outside),
        "integral": True,
        "gap": (dual - value) / max(1.0, abs(value)),
        "slackness_violation": violation,
        "n_violated": violated,
        "price_violation": price - cheapest_price(bias, low, high, n_tokens * k),
        "excess": dual - value,
        "scale": n_tokens * float(np.median(ahead)),
        "loads": loads,
        "value": value,
        "dual_value": dual,
        "slack": np.maximum(slack, 0.0).tolist(),
    }


def boundary(biased: Any, k: int) -> tuple[list[int], int, int, float, float]:
    """A token's K experts, the K-th, the next (-1 where that is masked), and the scores of these two."""
    order = sorted(range(len(biased)), key=lambda e: (-biased[e], e))
    kth, following = order[k - 1], order[k]
    if biased[following] == -math.inf:
        return sorted(order[:k]), kth, -1, biased[kth], biased[following]
    return sorted(order[:k]), kth, following, biased[kth], biased[following]


def dual(scores: Any, bias: Any, k: int) -> Fraction:
    """D(p) in exact arithmetic, as whole multiples of one unit; prices may be fractions."""
    rows = [[x for x in row if x > -math.inf] for row in np.asarray(scores, np.float64).tolist()]
    unit = math.lcm(*(x.as_integer_ratio()[1] for x in itertools.chain(bias, *rows)))

    def whole(x: Any) -> int:
        numerator, denominator = x.as_integer_ratio()
        return int(numerator * (unit // denominator))

    prices = [whole(price) for price in bias]
    total = 0
    for row in np.asarray(scores, np.float64).tolist():
        biased = [whole(x) + price for x, price in zip(row, prices, strict=True) if x > -math.inf]
        total += sum(sorted(biased)[-k:])
    return Fraction(total * len(prices) - len(rows) * k * sum(prices), unit * len(prices))


def line_end(scores: Any, bias: Any, direction: Any, k: int) -> Fraction:
    """D3's t* for finite scores and a direction that is not constant: h at every breakpoint, bisected."""
    p, d = [Fraction(float(x)) for x in bias], [Fraction(float(x)) for x in direction]
    rows = [[Fraction(float(x)) + b for x, b in zip(row, p, strict=True)] for row in scores]
    points = {Fraction(0)}
    for row in rows:
        for a, b in itertools.combinations(range(len(d)), 2):
            if d[a] != d[b] and (row[a] - row[b]) / (d[b] - d[a]) > 0:
                points.add((row[a] - row[b]) / (d[b] - d[a]))
    ordered = sorted(points)
    ordered.append(ordered[-1] + 1)
    start = dual(scores, p, k)

    def h(t: Fraction) -> Fraction:
        return dual(scores, [b + t * x for b, x in zip(p, d, strict=True)], k) - start

    # Past the last breakpoint h is a line: one more point gives its slope.
    first = bisect.bisect_left(ordered, True, lo=1, key=lambda t: h(t) > 0)
    first = min(first, len(ordered) - 1)
    left, right = ordered[first - 1], ordered[first]
    slope = (h(right) - h(left)) / (right - left)
    return left - h(left) / slope
