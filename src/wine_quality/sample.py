"""A seeded stand-in for the red-wine table, for machines that cannot reach the real one.

Every row is drawn: normal deviates with the real table's rank correlations, each mapped through
the quantiles of its column (a Gaussian copula). Only these summaries of the UCI Wine Quality data
(P. Cortez et al., 2009, CC BY 4.0) are kept here, none of its rows. Standard library only, and
every value rounded, so that a seed gives the same bytes with any version of anything.
"""

import argparse
import math
import random
import sys
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

from wine_quality.runtime import write_atomic

_LEVELS = (0, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99,
           0.995, 1)  # fmt: skip

# column -> decimals, value at each level
# fmt: off
_QUANTILES: dict[str, tuple[int, tuple[float, ...]]] = {
    "fixed acidity": (1, (4.6, 5.2, 5.6, 6.1, 6.5, 7, 7.2, 7.6, 7.9, 8.3, 8.9, 9.7, 10.7, 11.8,
                          12.5, 13.3, 14.003, 15.9)),
    "volatile acidity": (2, (0.12, 0.19, 0.24, 0.27, 0.31, 0.37, 0.415, 0.47, 0.52, 0.57, 0.61,
                             0.66, 0.745, 0.84, 0.915, 1.02, 1.09025, 1.58)),
    "citric acid": (2, (0, 0, 0, 0, 0.01, 0.07, 0.124, 0.21, 0.26, 0.32, 0.39, 0.46, 0.522, 0.6,
                        0.66, 0.7002, 0.74, 1)),
    "residual sugar": (1, (0.9, 1.4, 1.4, 1.59, 1.7, 1.8, 2, 2.1, 2.2, 2.3, 2.5, 2.7, 3.6, 5.1,
                           6.3, 8.306, 11.019, 15.5)),
    "chlorides": (3, (0.012, 0.04298, 0.048, 0.054, 0.06, 0.067, 0.072, 0.076, 0.079, 0.082, 0.087,
                      0.094, 0.109, 0.1261, 0.205, 0.36016, 0.41401, 0.611)),
    "free sulfur dioxide": (0, (1, 3, 3, 4, 5, 6, 9, 11, 14, 16, 19, 24, 31, 35, 40.525, 50.02,
                                53.01, 72)),
    "total sulfur dioxide": (0, (6, 8, 10, 11, 14, 19, 24, 30, 38, 45.8, 55, 69, 93.2, 112.1, 131,
                                 145, 151, 289)),
    "density": (5, (0.99007, 0.99182, 0.99294, 0.9936, 0.99456, 0.99534, 0.99586, 0.9963, 0.99675,
                    0.99716, 0.9976, 0.99817, 0.99914, 1, 1.0004, 1.00151, 1.0026, 1.00369)),
    "pH": (2, (2.74, 2.93, 3.0195, 3.06, 3.12, 3.18, 3.23, 3.28, 3.31, 3.35, 3.38, 3.424, 3.51,
               3.57, 3.6105, 3.7002, 3.7401, 4.01)),
    "sulphates": (2, (0.33, 0.42, 0.44, 0.47, 0.5, 0.54, 0.564, 0.59, 0.62, 0.65, 0.7, 0.76, 0.85,
                      0.93, 1.08, 1.2604, 1.362, 2)),
    "alcohol": (1, (8.4, 9, 9.1, 9.2, 9.3, 9.5, 9.6, 9.9, 10.2, 10.5, 10.9, 11.3, 12, 12.5, 12.8,
                    13.4, 13.604, 14.9)),
}
_SCORES = {3: 0.00625, 4: 0.0394, 5: 0.46529, 6: 0.86429, 7: 0.98874, 8: 1.0}  # cumulative shares

# below the diagonal; the order is that of the columns above, then quality
_CORRELATIONS: tuple[tuple[float, ...], ...] = (
    (),
    (-0.281,),
    (0.686, -0.624),
    (0.231, 0.043, 0.183),
    (0.271, 0.176, 0.12, 0.229),
    (-0.187, 0.018, -0.085, 0.077, -0.001),
    (-0.094, 0.096, 0.008, 0.15, 0.139, 0.809),
    (0.649, 0.037, 0.371, 0.443, 0.436, -0.049, 0.132),
    (-0.732, 0.24, -0.574, -0.094, -0.253, 0.124, -0.016, -0.331),
    (0.227, -0.341, 0.348, 0.038, 0.017, 0.046, -0.007, 0.17, -0.089),
    (-0.075, -0.235, 0.095, 0.121, -0.305, -0.084, -0.276, -0.489, 0.197, 0.216),
    (0.129, -0.431, 0.241, 0.032, -0.22, -0.062, -0.226, -0.202, -0.047, 0.432, 0.542),
)
# fmt: on

COLUMNS = (*_QUANTILES, "quality")


def generate(rows: int, seed: int) -> bytes:
    """The sample as the original is written: `;` between cells, a quoted header, UTF-8."""
    rng = random.Random(seed)  # noqa: S311  a sample is no secret
    normal = NormalDist()
    factor = _cholesky(_CORRELATIONS)
    lines = [";".join(f'"{name}"' for name in COLUMNS)]
    for _ in range(rows):
        # random() may be 0, where the inverse has no value
        drawn = [normal.inv_cdf(max(rng.random(), 2.0**-53)) for _ in COLUMNS]
        shares = [
            normal.cdf(math.fsum(a * z for a, z in zip(line, drawn, strict=False)))
            for line in factor
        ]
        cells = [
            _number(_interpolate(share, values), decimals)
            for share, (decimals, values) in zip(shares, _QUANTILES.values(), strict=False)
        ]
        cells.append(str(next(score for score, top in _SCORES.items() if shares[-1] <= top)))
        lines.append(";".join(cells))
    return ("\n".join(lines) + "\n").encode()


def _interpolate(share: float, values: tuple[float, ...]) -> float:
    right = min(bisect_right(_LEVELS, share), len(_LEVELS) - 1)
    low, high = _LEVELS[right - 1], _LEVELS[right]
    weight = (share - low) / (high - low)
    return values[right - 1] + weight * (values[right] - values[right - 1])


def _number(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def _cholesky(below: tuple[tuple[float, ...], ...]) -> list[list[float]]:
    """Lower triangular factor of the correlation matrix with this lower triangle."""
    factor: list[list[float]] = []
    for i, line in enumerate(below):
        row: list[float] = []
        for j, value in enumerate((*line, 1.0)):
            known = factor[j] if j < i else row
            rest = value - math.fsum(a * b for a, b in zip(row, known, strict=False))
            row.append(math.sqrt(rest) if i == j else rest / known[j])
        factor.append(row)
    return factor


def main(argv: Sequence[str] | None = None) -> int:
    """Write a sample to a file."""
    parser = argparse.ArgumentParser(prog="python -m wine_quality.sample", description=__doc__)
    parser.add_argument("--rows", type=int, default=1599)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    if arguments.rows < 1:
        parser.error(f"--rows is {arguments.rows}, allowed: a whole number from 1")
    write_atomic(arguments.out, generate(arguments.rows, arguments.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
