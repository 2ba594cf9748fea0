"""Tasks as containers of a Docker engine on this machine: see `executor`."""

from cloudless.adapters.docker.engine import Engine, EngineLimits
from cloudless.adapters.docker.executor import DockerExecutor

__all__ = ["DockerExecutor", "Engine", "EngineLimits"]
