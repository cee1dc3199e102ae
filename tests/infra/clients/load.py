"""Load a registered model by its alias, knowing MLFLOW_TRACKING_URI alone; prints what it is.

usage: load.py MODEL
"""

from __future__ import annotations

import sys

import mlflow.sklearn

print(type(mlflow.sklearn.load_model(f"models:/{sys.argv[1]}@champion")).__name__)
