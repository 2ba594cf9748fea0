"""`python -m cloudless.testing.sim`: see `command`, which worker processes can import too."""

import sys

from cloudless.testing.sim.command import main

if __name__ == "__main__":
    sys.exit(main())
