"""Settings shared by all tests; asyncio mode, time-outs and markers are in setup.cfg.

In CI hypothesis draws the same examples every time, so that a red build stays red until something changes;
on a developer's machine it keeps exploring.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.faults.rig.plugin"]

settings.register_profile("developer", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "developer")

# No test reads or writes the contexts of the person who runs it.
os.environ["CLOUDLESS_CONTEXTS"] = str(Path(tempfile.gettempdir()) / f"cloudless-test-contexts-{os.getpid()}.yaml")
