"""The doctor's manual, written from the table of findings: `python -m cloudless.cli.doctor.manual > docs/doctor.md`.

A test compares the file with what this would write, so that no finding is without its page and no page without finding.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from cloudless.core.diagnosis import GROUPS, Kind

_INTRO = """\
# The doctor: what can be wrong, and the cure

```sh
cloudless cluster doctor                                # the cluster by all that answer, and this host
cloudless cluster doctor --data-dir /var/lib/cloudless  # one coordinator's directory, whether or not anything runs
cloudless cluster doctor --preflight coordinator        # could one run here, with the settings of this environment?
cloudless cluster doctor -o json                        # for programs
```

It looks and changes nothing. Each finding says what is wrong, what shows it, and the command that cures it. `trouble`
fails now or puts data at risk, a `warning` will after one more loss or some time, a `note` is good to know. It exits
with 1 if there is trouble (with `--strict` also for warnings), else with 0.

It is made for sick clusters: each coordinator is asked at the same time with a deadline of its own, first for what it
knows of itself (which needs neither a cluster nor a quorum), and one that is silent is a finding. Addresses come from
`--coordinator` (CLOUDLESS_COORDINATORS), and from those that answer.

Where nothing answers, go to the hosts and look at the data directories: that needs no coordinator, no etcd and no
network. Only the speed of the disk is measured there, by a small file that is removed again.

`--preflight` reads the settings, tries the ports, resolves the names, finds etcd and judges its version, and measures
the disk. It also asks the coordinators that the new node would join (or those given with `-c`): whether they answer,
whether they are well, whether their versions and clocks fit, whether the id is free.

## A bundle for whoever helps you

`cloudless cluster debug` writes status, members, digests, events, metrics, settings, findings and facts of all
coordinators that answer into one archive, with `--data-dir` also the ends of the logs there. It says what it will hold
before it writes (`--dry-run`: only that). Everything passes through one function that takes out tokens, keys, PEM
blocks, passwords in addresses and the values of settings with secret names; the store's content is never in it. An
entry has at most 512 KiB, all together 16 MiB. Still: read it before you hand it on.

## Room in the store

etcd has a quota (`CLOUDLESS_ETCD_QUOTA_MB`, 2048). The leader keeps the store below it by itself: etcd compacts history
every ten minutes, the leader does so earlier when six tenths are in use, and it defragments members whose files are
mostly free: followers first, one at a time, etcd's leader last after leadership was handed on, only while all members
are well, and only with versions of etcd with which that is safe (3.5.23, 3.6.5 and newer).

From nine tenths on users' writes are refused (`no-space`, exit code 3); deleting, cordoning and draining work. The last
tenth is for leases and the leader's own work: at the quota itself etcd grants no leases, and a leader that died then
could not be followed by another.

- `cloudless cluster hygiene status` shows every member's file, what is in use, and when it will be full at this pace.
- `cloudless cluster hygiene run` makes room now: compacts, defragments every member, and disarms the alarm NOSPACE once
  the files are small again, never before. It works without a leader. If it says that too much is in use, delete
  workloads or raise the quota on all coordinators (restart them one by one), and run it again.

## Before an upgrade

`cloudless cluster upgrade --check [--to VERSION] [--etcd VERSION]` judges whether the cluster may be upgraded now, or
go on with an upgrade: one minor version at a time, everybody well, no other upgrade under way. It names the order of
restarts (the leader last) or every reason against it, and exits with 1 in that case. `docs/upgrade.md` tells the rest.

## All findings

"""
_NAME = re.compile(r"\{(\w+)\}")


def write_manual() -> str:
    """Return the text of docs/doctor.md."""
    return _INTRO + "\n".join(_groups())


def _groups() -> Iterator[str]:
    for title, kinds in GROUPS:
        yield f"### {title}\n"
        for kind in kinds:
            yield from _lines(kind)
        yield ""


def _lines(kind: Kind) -> Iterator[str]:
    yield f"- **{_shown(kind.says)}** (`{kind.code}`, {kind.severity.value})" + (f" – {kind.why}" if kind.why else "")
    yield f"  Cure: {_shown(kind.cure)}."


def _shown(text: str) -> str:
    return _NAME.sub(lambda match: match[1].upper(), text)


if __name__ == "__main__":
    sys.stdout.write(write_manual())
