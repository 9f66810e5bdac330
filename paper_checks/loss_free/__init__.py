"""Loss-free balancing, [W] arXiv:2408.15664: the claims that a simulation of routing can reach, W1-W6.

Out of reach, as no language model is trained here: every perplexity (9.50 against 9.56 for the auxiliary loss
at 1B, 7.92 against 7.97 at 3B, of the variants 9.50 to 9.60), hence that balance without a loss makes a
better model, which gate makes the better one, and what expert parallelism gains. The paper's global MaxVio
(0.04 against 0.72 for the auxiliary loss; of variants 0.027 to 0.044) is known here second-hand, of routers
that learn on text with other batches. Such figures are compared in kind only: which is larger, and
by what order; a number that is close here is no confirmation.
"""
