"""What a task may do on its node: as whom it runs, and within which bounds."""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.core.model.evolving import Evolving

CAPABILITIES = (
    *"ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE".split(),
    *"DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE".split(),
    *"MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID".split(),
    *"SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO".split(),
    *"SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM".split(),
)
"""The kernel's capabilities as capabilities(7) names them, without `CAP_`; ALL stands for every one."""

RLIMIT_UNLIMITED = -1

RLIMIT_NAMES = tuple(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
"""The kernel's limits per process, as setrlimit(2) names them (RLIMIT_NOFILE: nofile), with its units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit(Evolving):
    """One of `RLIMIT_NAMES`: the limit in force, and how far the task may raise it. RLIMIT_UNLIMITED: no limit."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityContext(Evolving):
    """As whom and within which bounds a task runs.

    `run_as_user` and `run_as_group` are numeric ids; None leaves what the executor or the image says.
    Of `CAPABILITIES`, those dropped go first, then those added come. `private_tmp`: the task has a /tmp of its
    own. `rlimits` are sorted by name.
    """

    run_as_user: int | None = None
    run_as_group: int | None = None
    read_only_root: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    private_tmp: bool = False
    rlimits: tuple[Rlimit, ...] = ()
