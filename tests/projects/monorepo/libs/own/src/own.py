"""A package beside the pipelines that use it."""

import six


def main() -> None:
    """Say which package of an index is there."""
    print("own", six.__version__)
