"""Simulated agents: thousands of sessions in one process, to load a real control plane.

Sessions, failover, jitter and the judging of assignments are the product's own code; what is simulated is the machine:
tasks have no processes, and nothing is written to disk but the agents' certificates.
"""

from cloudless.testing.fleet.agent import FleetAgent, ForgetfulJournal
from cloudless.testing.fleet.tasks import LightTasks

__all__ = ["FleetAgent", "ForgetfulJournal", "LightTasks"]
