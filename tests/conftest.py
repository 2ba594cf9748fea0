"""Settings shared by all tests; asyncio mode, time-outs and markers are in setup.cfg.

In CI hypothesis draws the same examples every time, so that a red build stays red until something changes;
on a developer's machine it keeps exploring.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A developer who has signed in somewhere runs the same tests as one who has not.
os.environ["CLOUDLESS_CONFIG"] = "/nonexistent/cloudless"

pytest_plugins = ["tests.control_groups", "tests.docker_engine", "tests.faults.rig.plugin"]

settings.register_profile("developer", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "developer")
