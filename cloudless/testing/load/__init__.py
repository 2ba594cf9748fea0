"""Load on a real cluster whose every answer is recorded, and judged by `cloudless.testing.history`.

::

    async with recorded_load(api_addresses, etcd_addresses, clients=8) as load:
        await load.require(acks_min=100, reads_min=100)     # fails the test if the load is not there
        ...                                                 # the fault, and its repair
        await load.require(acks_min=100, reads_min=100, since=before)
        report = await load.check()                         # ends the load, then judges all of it
    report.require_sound()

Whatever blocks the event loop meanwhile stops the load. A test that blocks takes `blocking_load`, which is the same
without `await`, in a thread of its own.
"""

from cloudless.testing.load.blocking import BlockingLoad, blocking_load
from cloudless.testing.load.load import Entrance, Load, LoadReport, LoadSettings, NotReached, recorded_load
from cloudless.testing.load.notebook import Counts

__all__ = [
    "BlockingLoad",
    "Counts",
    "Entrance",
    "Load",
    "LoadReport",
    "LoadSettings",
    "NotReached",
    "blocking_load",
    "recorded_load",
]
