"""What `marginface evaluate` and the jobs of a sweep run."""

import os
import sys

sys.path[0] = os.getcwd()  # not this folder: modules of the user's own come first

from marginface.cli.evaluate import main  # noqa: E402

if __name__ == "__main__":
    main()
