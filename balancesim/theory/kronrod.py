"""Gauss and Kronrod's pair of rules on [-1, 1], 10 and 21 points (constants of QUADPACK's qk21)."""

import numpy as np

_POSITIVE = (
    (0.9956571630258080807, 0.0116946388673718743),
    (0.9739065285171717201, 0.0325581623079647275),
    (0.9301574913557082260, 0.0547558965743519960),
    (0.8650633666889845107, 0.0750396748109199528),
    (0.7808177265864168971, 0.0931254545836976055),
    (0.6794095682990244062, 0.1093871588022976419),
    (0.5627571346686046833, 0.1234919762620658511),
    (0.4333953941292471908, 0.1347092173114733259),
    (0.2943928627014601981, 0.1427759385770600808),
    (0.1488743389816312109, 0.1477391049013384914),
)
_CENTRE = 0.1494455540029169057

N_NODES = 21

NODES = np.array([-x for x, _ in _POSITIVE] + [0.0] + [x for x, _ in reversed(_POSITIVE)])
"""(21,) rising; every other one, from the second, is a node of the 10-point rule."""

WEIGHTS = np.zeros((N_NODES, 2))
"""(21, 2): weights of the 21-point rule and of the 10-point rule."""

WEIGHTS[:, 0] = [w for _, w in _POSITIVE] + [_CENTRE] + [w for _, w in reversed(_POSITIVE)]
WEIGHTS[1::2, 1] = np.polynomial.legendre.leggauss(10)[1]
