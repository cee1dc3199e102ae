"""The iris pipeline: one settings file, three stages, one MLflow run."""
