"""phi-balancing, [P] arXiv:2605.15403, known from its abstract and from code that cites it: P1-P7."""
