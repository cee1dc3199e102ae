"""The wine-quality pipeline: from a table of measurements to a registered model."""
