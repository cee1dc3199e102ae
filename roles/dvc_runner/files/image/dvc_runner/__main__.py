"""Start the runner, by `python -m dvc_runner` or by the path of this directory."""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).parent.parent)

from dvc_runner.command_line import main

if __name__ == "__main__":
    sys.exit(main())
