"""Tasks as plain processes: see `executor`."""

from cloudless.adapters.subprocess.executor import ProcessExecutor

__all__ = ["ProcessExecutor"]
