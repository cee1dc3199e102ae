"""A seeded stand-in for creditcard.csv: the same columns, size and imbalance, none of its rows.

Only summaries of the data of the Machine Learning Group of ULB (DbCL 1.0) are kept here: rounded
standard deviations of the components, and how far the mean of frauds lies off.
"""

import numpy as np
import pandas as pd

from fraud.table import COLUMNS, COMPONENTS, TARGET

ONE_FRAUD_IN = 284_807 / 492
SECONDS = 172_792  # two days
# fmt: off
_DEVIATIONS = (2.0, 1.7, 1.5, 1.4, 1.4, 1.3, 1.2, 1.2, 1.1, 1.1, 1.0, 1.0, 1.0, 1.0, 0.9, 0.9, 0.8,
               0.8, 0.8, 0.8, 0.7, 0.7, 0.6, 0.6, 0.5, 0.5, 0.4, 0.3)
_FRAUDS_LIE_AT = (-4.8, 3.6, -7.0, 4.5, -3.2, -1.4, -5.6, 0.6, -2.6, -5.7, 3.8, -6.3, -0.1, -7.0,
                  -0.1, -4.1, -6.7, -2.2, 0.7, 0.4, 0.7, 0.0, 0.0, -0.1, 0.0, 0.1, 0.2, 0.1)
# fmt: on
TAIL = 5  # degrees of freedom of Student's t: components have heavy tails
MEDIAN_AMOUNT = 22.0


def generate(rows: int, seed: int) -> pd.DataFrame:
    """A table of `rows` transactions in the order of their time.

    Each fraud lies a share of its own on the way from a good transaction to the frauds' mean, so
    some cannot be told and no model is perfect.
    """
    rng = np.random.default_rng(seed)
    frauds = max(1, round(rows / ONE_FRAUD_IN))
    target = np.zeros(rows, dtype="int64")
    target[rng.choice(rows, frauds, replace=False)] = 1
    spread = np.sqrt((TAIL - 2) / TAIL)
    values = rng.standard_t(TAIL, (rows, len(COMPONENTS))) * spread * np.array(_DEVIATIONS)
    values[target == 1] += rng.uniform(0, 1, (frauds, 1)) * np.array(_FRAUDS_LIE_AT)
    table = pd.DataFrame(values.round(6), columns=list(COMPONENTS))
    table["Time"] = np.sort(rng.integers(0, SECONDS + 1, rows))
    table["Amount"] = (MEDIAN_AMOUNT * np.exp(1.65 * rng.standard_normal(rows))).round(2)
    table[TARGET] = target
    return table[list(COLUMNS)]
