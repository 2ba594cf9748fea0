"""Load the fault that a planted override names, into `cloudless coordinator run` and `cloudless agent run` alone.

Python imports this by itself at its start, because the override puts its directory on PYTHONPATH. The product knows
nothing of it.
"""

import importlib
import os
import sys

if "run" in sys.orig_argv and (fault := os.environ.get("PLANTED")):
    importlib.import_module(fault)
