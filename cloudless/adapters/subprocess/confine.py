"""Confine the command: what the shim's child does to itself between fork and exec, by orders from `confinement`.

It runs in a bare interpreter, in a process that is about to become the command: what it imports costs the shim
nothing. The agent compiles this file and sends the code along with the orders that need it.

::

    mounts → limits → groups → capabilities it may not win back → user → capabilities → no new privileges

Mounts come first because they need privileges, and the user last but one because all before it does. Each step
that fails raises OSError; `enter` is told its name before.
"""

from __future__ import annotations

import ctypes
import os
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_SLAVE = 0x1000, 0x4000, 0x80000
SYS_MOUNT_SETATTR = 442
AT_FDCWD = -100
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 0x1
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
PR_SET_KEEPCAPS = 8
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4
CAPABILITY_VERSION_3 = 0x20080522
SHARED_MEMORY = "/dev/shm"

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def prctl(option: int, *arguments: int) -> None:
    check(libc.prctl(option, *(ctypes.c_ulong(one) for one in (*arguments, 0, 0, 0, 0)[:4])))


def mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    words = (word.encode() if word is not None else None for word in (source, target, kind))
    check(libc.mount(*words, ctypes.c_ulong(flags), None))


def set_read_only(path: str, read_only: bool, *, recursive: bool = False) -> None:
    """Change the mount at `path`, with all below it if `recursive` (Linux 5.12 and later)."""
    attributes = (ctypes.c_uint64 * 4)(*((MOUNT_ATTR_RDONLY, 0) if read_only else (0, MOUNT_ATTR_RDONLY)), 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    size = ctypes.sizeof(attributes)
    check(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, ctypes.byref(attributes), size))


def change_mounts(order: dict[str, Any]) -> None:
    """Give the command a view of the file systems of its own.

    `binds` are (source, target, read only, make the target); sources are held open before anything is covered.
    """
    check(libc.unshare(CLONE_NEWNS))
    # What the node mounts later is seen here too, what is mounted here is not seen there.
    mount(None, "/", None, MS_REC | MS_SLAVE)
    held = [os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for source, *_ in order["binds"]]
    for handle, (_, target, _, make) in zip(held, order["binds"], strict=True):
        if make:
            os.makedirs(target, mode=0o711, exist_ok=True)
        mount(f"/proc/self/fd/{handle}", target, None, MS_BIND | MS_REC)
        os.close(handle)
    shared = os.path.ismount(SHARED_MEMORY) and not os.statvfs(SHARED_MEMORY).f_flag & os.ST_RDONLY
    if order["read_only_root"]:
        set_read_only("/", True, recursive=True)
        if shared:
            set_read_only(SHARED_MEMORY, False)
    for _, target, read_only, _ in order["binds"]:
        if read_only:
            set_read_only(target, True, recursive=True)
        elif order["read_only_root"]:
            set_read_only(target, False)


def set_limits(limits: list[tuple[int, int, int]]) -> None:
    """Set (number, soft, hard) each; -1 is no limit."""
    for number, soft, hard in limits:
        try:
            resource.setrlimit(number, (soft, hard))
        except ValueError as error:  # this is how Python tells of EPERM and EINVAL here
            raise OSError(1, str(error)) from error


def drop_bounding(kept: set[int]) -> None:
    """Take away what even a program with capabilities of its own could win."""
    number = 0
    while (result := libc.prctl(PR_CAPBSET_READ, ctypes.c_ulong(number), 0, 0, 0)) >= 0:
        if number not in kept and result == 1:
            try:
                prctl(PR_CAPBSET_DROP, number)
            except OSError:
                # Without being root, "no new privileges" is enough to win nothing.
                if os.getuid() == 0:
                    raise
        number += 1


def set_capabilities(numbers: set[int], ambient: bool) -> None:
    """Have exactly these, and, without being root, have the program inherit them."""
    mask = sum(1 << number for number in numbers)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    inheritable = (low, high) if ambient else (0, 0)
    data = (ctypes.c_uint32 * 6)(low, low, inheritable[0], high, high, inheritable[1])
    check(libc.capset(header, data))
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for number in sorted(numbers if ambient else ()):
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def confine(order: dict[str, Any], work: str, enter: Callable[[str], None]) -> None:
    """Do what is in `order`, see the module, and change to the directory `work`. Raises OSError."""
    user, group, capabilities = order["user"], order["group"], order["capabilities"]
    if order["binds"] or order["read_only_root"]:
        enter("mounts")
        change_mounts(order)
    enter("its directory")
    os.chdir(work)  # not before: it would be the one below the mounts
    enter("rlimits")
    set_limits(order["rlimits"])
    if user is not None or group is not None:
        enter("runAsGroup")
        os.setgroups([])
    if group is not None:
        os.setresgid(group, group, group)
    if capabilities is not None:
        enter("capabilities")
        drop_bounding(set(capabilities["bounding"]))
        prctl(PR_SET_KEEPCAPS, 1)
    if user is not None:
        enter("runAsUser")
        os.setresuid(user, user, user)
    if capabilities is not None:
        enter("capabilities")
        set_capabilities(set(capabilities["held"]), ambient=os.getuid() != 0)
    if order["no_new_privileges"]:
        enter("no new privileges")
        prctl(PR_SET_NO_NEW_PRIVS, 1)
