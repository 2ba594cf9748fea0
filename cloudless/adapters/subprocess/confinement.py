"""What confines a task's command: its security context and volumes, as orders for the shim's child (`confine.py`).

A process sees the node's own files. What it is to see otherwise (a /tmp of its own, a read-only root, volumes) is
arranged in a mount namespace of its own, which needs an agent with CAP_SYS_ADMIN. Whether something is permitted is
for the kernel to say, at the start; what can be told before is refused here.
"""

from __future__ import annotations

import functools
import os
import pwd
import resource
from pathlib import Path
from typing import Any

from cloudless.core.abilities import MOUNTS, RUN_AS_USER
from cloudless.core.model import CAPABILITIES, SecurityContext, Volume
from cloudless.errors import Permanent

TMP = Path("/tmp")
_SOURCE = Path(__file__).with_name("confine.py")
_RLIMIT_LOCKS = 10  # unknown to Python
_NUMBERS = (
    *"CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE".split(),
    *"NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT".split(),
    *"SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE".split(),
    *"AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ".split(),
    *"PERFMON BPF CHECKPOINT_RESTORE".split(),
)
"""The kernel's capabilities, each at its own number."""
assert {*_NUMBERS, "ALL"} == {*CAPABILITIES}


def build_confinement(security: SecurityContext, volumes: tuple[Volume, ...], task_dir: Path) -> dict[str, Any] | None:
    """Return the orders for `confine`, None if there are none. Raises Permanent for what can never be."""
    binds = _build_binds(security, volumes, task_dir)
    capabilities = _build_capabilities(security)
    order = {
        "user": security.run_as_user,
        "group": find_group(security),
        "capabilities": capabilities,
        "read_only_root": security.read_only_root,
        "binds": binds,
        "rlimits": [(_rlimit_number(one.name), one.soft, one.hard) for one in security.rlimits],
    }
    if not any(value not in (None, False, []) for value in order.values()):
        return None
    # Who gives up privileges does not win them back by a program that has some of its own.
    gives_up = security.run_as_user is not None or security.run_as_group is not None or capabilities is not None
    return {**order, "no_new_privileges": gives_up or security.read_only_root, "code": _code()}


def find_group(security: SecurityContext) -> int | None:
    """Return the group to run as: the one that is asked for, else the user's own by this node's user database."""
    if security.run_as_group is not None or security.run_as_user is None:
        return security.run_as_group
    try:
        return pwd.getpwuid(security.run_as_user).pw_gid
    except KeyError:
        return security.run_as_user


def give_directories(security: SecurityContext, volumes: tuple[Volume, ...], task_dir: Path) -> None:
    """Make the directories that the task writes to its user's. Raises Permanent if the user cannot get there."""
    own = [
        task_dir / "home",
        task_dir / "tmp",
        *(_own_volume(task_dir, one.name) for one in volumes if not one.host_path),
    ]
    for path in own:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if security.run_as_user is None and security.run_as_group is None:
        if security.private_tmp:
            own[1].chmod(0o1777)  # as every /tmp is; nobody else gets as far as here
        return
    user = -1 if security.run_as_user is None else security.run_as_user
    group = find_group(security)
    for path in own:
        try:
            os.chown(path, user, -1 if group is None else group)
        except PermissionError as error:
            raise Permanent(
                f"cannot set runAsUser: {error.strerror}", hint="only an agent that is root can run tasks as others"
            ) from error
    if user > 0:
        for path in (task_dir.parent, task_dir, task_dir / "volumes"):
            if path.is_dir():
                path.chmod(0o711)
        _check_way(task_dir, user, group or 0)


def _check_way(path: Path, user: int, group: int) -> None:
    """Refuse if the user may not pass through one of the directories above. Raises Permanent."""
    for above in path.parents:
        found = above.stat()
        shift = 6 if found.st_uid == user else 3 if found.st_gid == group else 0
        if not found.st_mode >> shift & 1:
            raise Permanent(
                f"user {user} cannot get to its directory: {above} lets nobody else through",
                hint=f"chmod o+x {above}, or give the agent another CLOUDLESS_DATA_DIR",
            )


def _own_volume(task_dir: Path, name: str) -> Path:
    return task_dir / "volumes" / name


def _build_binds(security: SecurityContext, volumes: tuple[Volume, ...], task_dir: Path) -> list[tuple[Any, ...]]:
    """Return (source, target, read only, make the target) each, in the order of mounting."""
    home, tmp = task_dir / "home", task_dir / "tmp"
    binds: list[tuple[Any, ...]] = []
    hidden = security.private_tmp and home.is_relative_to(TMP)
    if security.private_tmp:
        binds.append((str(tmp), str(TMP), False, False))
    elif security.read_only_root:
        binds.append((str(tmp), str(tmp), False, False))
    if hidden or security.read_only_root:
        binds.append((str(home), str(home), False, hidden))
    for volume in sorted(volumes, key=lambda one: one.mount_path):
        target, source = Path(volume.mount_path), Path(volume.host_path or _own_volume(task_dir, volume.name))
        make = security.private_tmp and target.is_relative_to(TMP)
        for path, what in ((target, "mountPath"), (source, "hostPath")):
            if not (path == target and make) and (path == target or volume.host_path) and not path.is_dir():
                raise Permanent(
                    f"volume {volume.name}: {what} {path} is not a directory of this node",
                    hint="a process sees the node's own files: make the directory there",
                )
        binds.append((str(source), str(target), volume.read_only, make))
    return binds


def _build_capabilities(security: SecurityContext) -> dict[str, list[int]] | None:
    """Return what is kept and what is held at the exec, None to change nothing. Raises Permanent."""
    if not security.add_capabilities and not security.drop_capabilities:
        return None
    own = _own_capabilities()
    dropped, added = (
        own if "ALL" in names else {_NUMBERS.index(name) for name in names}
        for names in (security.drop_capabilities, security.add_capabilities)
    )
    if lacking := sorted(_NUMBERS[number] for number in added - own):
        raise Permanent(
            f"this node's agent cannot give the capability {', '.join(lacking)}: it does not have it",
            hint="run the agent as root",
        )
    kept = (own - dropped) | added
    as_root = (os.geteuid() if security.run_as_user is None else security.run_as_user) == 0
    return {"bounding": sorted(kept), "held": sorted(kept if as_root else added)}


@functools.cache
def _own_capabilities() -> set[int]:
    """Return what this process may have (CapPrm), by number."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == "CapPrm":
            mask = int(value, 16)
            return {number for number in range(len(_NUMBERS)) if mask >> number & 1}
    return set()


def find_powers() -> dict[str, str]:
    """Return the abilities that capabilities give: "", or what this process lacks for it."""
    own = _own_capabilities()
    needed = {RUN_AS_USER: ("SETUID", "SETGID", "CHOWN"), MOUNTS: ("SYS_ADMIN",)}
    lacking = {
        ability: [f"CAP_{name}" for name in names if _NUMBERS.index(name) not in own]
        for ability, names in needed.items()
    }
    return {
        ability: f"the agent lacks {' and '.join(names)}: run it as root" if names else ""
        for ability, names in lacking.items()
    }


def _rlimit_number(name: str) -> int:
    return _RLIMIT_LOCKS if name == "locks" else int(getattr(resource, f"RLIMIT_{name.upper()}"))


@functools.cache
def _code() -> Any:
    return compile(_SOURCE.read_text(encoding="utf-8"), str(_SOURCE), "exec", optimize=2)
