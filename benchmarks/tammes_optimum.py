"""The largest class margin that C prototypes can have on a sphere, where it is known, and the sources of that."""

from __future__ import annotations

import math

# Cosines of the optimal configurations on S^2 beyond 2 D = 6 points. 7, 8, 9, 10: Cohn's table of spherical codes
# (hdl.handle.net/1721.1/142661), marked optimal there; 8 is the square antiprism, the larger root of 7 x^2 + 2 x - 1.
# 10 also: OEIS A340918. 11 and 12: the icosahedron, without and with its last corner (Danzer, "Finite point-sets on S^2
# with minimum distance as large as possible", Discrete Mathematics 60, 1986). 14: OEIS A383860 (Musin and Tarasov, "The
# Tammes problem for N=14", Experimental Mathematics 24, 2015).
_COSINES_ON_S2 = {
    7: 0.21013831273060308,
    8: (2 * math.sqrt(2) - 1) / 7,
    9: 1 / 3,
    10: 0.40439432521625075,
    11: 1 / math.sqrt(5),
    12: 1 / math.sqrt(5),
    14: math.cos(0.971634742886224),
}


def largest_class_margin(num_classes: int, dim: int) -> float | None:
    """Degrees of the Tammes problem's optimum for C points on S^(D-1); None where it is not in the table.

    C <= D + 1: arccos(-1 / (C - 1)), a regular simplex. D + 1 < C <= 2 D: 90 degrees, to be had from plus and minus
    the axes. Both: Rankin, "The closest packing of spherical caps in n dimensions", Proc. Glasgow Math. Assoc. 2, 1955.
    D = 2: 360 / C.

    Raises:
        ValueError: fewer than 2 classes or dimensions.
    """
    if num_classes < 2 or dim < 2:
        raise ValueError(f"prototypes on a sphere: take 2 or more classes and dimensions, got {num_classes} and {dim}")
    if num_classes <= dim + 1:
        return math.degrees(math.acos(-1 / (num_classes - 1)))
    if dim == 2:
        return 360 / num_classes
    if num_classes <= 2 * dim:
        return 90.0
    if dim == 3 and num_classes in _COSINES_ON_S2:
        return math.degrees(math.acos(_COSINES_ON_S2[num_classes]))
    return None
