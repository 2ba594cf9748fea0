"""Keep one etcd member running: adopt or start it, watch it, start it again after it ended, stop it.

             start()                    answers               ended
    STOPPED ---------> STARTING ------------------> RUNNING ---------> BACKOFF
       ^                  ^ |          ended                             |
       | stop()           | '-------------------------------------------->|
    (any phase)           '------------------- wait over ----------------'
                                                   ended, and etcd says the cluster removed it -> REMOVED (final)

Guarantees: at most one etcd on a data directory whose lock the caller holds; a member that cannot start costs next
to nothing (`restart`); a removed member stays down. An etcd left behind by a killed coordinator is adopted when it
runs with the settings of today, else ended. It does not decide on membership, and it does not restart a member
that hangs: `probe` tells, the caller decides.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from cloudless.adapters.member import logfile
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.marker import Marker, MarkerState
from cloudless.adapters.member.pidfile import find_orphan, identify, write_pidfile
from cloudless.adapters.member.ports import require_free
from cloudless.adapters.member.probe import answers
from cloudless.adapters.member.process import EtcdProcess, build_environment
from cloudless.adapters.member.progress import find_shortfall
from cloudless.adapters.member.restart import RestartPolicy, count_failures, restart_delay_s
from cloudless.errors import DataLost, MemberFailed, MemberRemoved, StartupError, StoreTimeout
from etcd.find import Found
from etcd.flags import MemberConfig, build_argv, effective, gateway_url
from etcd.gate import Version, check_against_last_writer

MEMORY_LIMIT_BYTES = 160 << 20
_PROBE_PERIOD_S = 0.05
_PROBE_TIMEOUT_S = 1.0
_STOP_GRACE_S = 5.0
_LOG_CHECK_PERIOD_S = 60.0


class Phase(Enum):
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPED = "stopped"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class MemberState:
    """What the supervisor knows. `restarts` counts since `start`; `last_exit` is words, "" before the first end.

    `last_words` is the last line of etcd's log at its last end, if it ended by itself.
    """

    phase: Phase = Phase.STOPPED
    pid: int | None = None
    adopted: bool = False
    restarts: int = 0
    last_exit: str = ""
    last_words: str = ""
    next_start_in_s: float | None = None


class Log(Protocol):
    def info(self, message: str, /) -> object: ...
    def warning(self, message: str, /) -> object: ...


class MemberSupervisor:
    """One member's life. `start`, then `run` as a task; `wait_ready`, `probe`, `restart`, `stop` from the same loop."""

    def __init__(
        self,
        binary: Found,
        config: MemberConfig,
        datadir: DataDir,
        *,
        log: Log | None = None,
        policy: RestartPolicy | None = None,
        memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
        on_started: Callable[[int], object] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`memory_limit_bytes` is soft: Go collects earlier to stay under it.

        `on_started` is told the pid of an etcd that was just started.
        `environment` goes to etcd besides; an etcd that was started with any is not adopted: what it names may be gone.
        """
        self._binary = binary
        self._config = config
        self._datadir = datadir
        self._log: Log = log or logging.getLogger(__name__)
        self._policy = policy or RestartPolicy()
        self._plain_environment = build_environment(memory_limit_bytes)
        self._on_started = on_started
        self._more_environment = dict(environment or {})
        self._process: EtcdProcess | None = None
        self._state = MemberState()
        self._failures = 0
        self._next_start_at_s = 0.0
        self._log_start_bytes = 0
        self._stopping = asyncio.Event()
        # Held while the process is being replaced, so that `run`, `restart` and `stop` never start or end two at once.
        self._changing = asyncio.Lock()

    @property
    def state(self) -> MemberState:
        if self._state.phase is not Phase.BACKOFF:
            return self._state
        left_s = max(0.0, self._next_start_at_s - asyncio.get_running_loop().time())
        return replace(self._state, next_start_in_s=left_s)

    async def start(self) -> None:
        """Adopt the etcd that runs on this directory, or start one. Returns before it answers: see `wait_ready`.

        Raises PortInUse, EtcdRefused (older than the data), StartupError.
        """
        async with self._changing:
            self._stopping.clear()
            self._failures = 0
            self._state = MemberState()
            if not await self._adopt_or_end_orphan():
                self._spawn()

    async def wait_ready(self, timeout_s: float) -> None:
        """Return once the member answers.

        Raises MemberFailed with an excerpt of its log if it ended, MemberRemoved if the cluster removed it, and
        StoreTimeout if it runs but does not answer: a restarted member answers once it has found a quorum.
        """
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        while (left_s := deadline_s - asyncio.get_running_loop().time()) > 0:
            self._raise_if_down()
            if await self.probe(min(_PROBE_TIMEOUT_S, left_s)):
                return
            await self._wait_end_of(self._process, _PROBE_PERIOD_S)
        self._raise_if_down()
        raise StoreTimeout(
            f"etcd runs (pid {self._state.pid}) but gave no answer in {timeout_s:g} s",
            hint="it waits for a quorum of its peers, or it is stopped; see " + str(self._datadir.log_file),
        )

    async def run(self) -> None:
        """Supervise until `stop`, or until the cluster has removed the member.

        Never raises for etcd's failures. Raises DataLost when etcd's log has become shorter than it was: etcd cuts off
        what it cannot read, and a member that has forgotten what it acknowledged must not be started again.
        """
        while not self._stopping.is_set() and self._state.phase is not Phase.REMOVED:
            process = self._process
            if process is None:
                return
            await self._watch(process)
            if self._stopping.is_set():
                return
            async with self._changing:
                # `restart` may have replaced it, or failed to, meanwhile; then this end was meant.
                if self._process is process and process.ended and self._state.phase is not Phase.BACKOFF:
                    self._note_end(process)
            await self._restart_when_due(process)

    async def probe(self, timeout_s: float) -> bool:
        """Ask the member itself; False if it is frozen, stuck, starting or gone."""
        process = self._process
        if process is None or process.ended:
            return False
        url = gateway_url(self._config, self._binary.version)
        if not await answers(url, self._config.client_tls, timeout_s) or process is not self._process or process.ended:
            return False
        if self._state.phase is Phase.STARTING:
            self._state = replace(self._state, phase=Phase.RUNNING)
        return True

    async def restart(
        self,
        config: MemberConfig | None = None,
        grace_s: float = _STOP_GRACE_S,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """End the member and start it at once, with `config` if given (new peer URL, new certificates).

        `environment` replaces what etcd was given besides (None: stays).

        If it cannot be started, `run` tries again and the state says why. Raises MemberFailed if it is down for good.
        """
        async with self._changing:
            if self._state.phase in (Phase.REMOVED, Phase.STOPPED):
                raise MemberFailed(f"etcd is {self._state.phase.value}; it cannot be restarted")
            self._config = config or self._config
            self._more_environment = self._more_environment if environment is None else dict(environment)
            await self._end_process(grace_s)
            self._state = replace(self._state, restarts=self._state.restarts + 1)
            self._try_spawn()

    async def stop(self, grace_s: float = _STOP_GRACE_S) -> None:
        """End the member cleanly (a leader hands over first), kill it after `grace_s`; `run` returns."""
        self._stopping.set()
        async with self._changing:
            await self._end_process(grace_s)
            if self._state.phase is not Phase.REMOVED:
                self._state = replace(self._state, phase=Phase.STOPPED, pid=None, next_start_in_s=None)
            if self._process:
                self._datadir.pidfile.unlink(missing_ok=True)

    # --- starting -------------------------------------------------------------------------------

    async def _adopt_or_end_orphan(self) -> bool:
        """Take over the etcd of an earlier coordinator; end it if its settings are not today's. True if adopted."""
        orphan = find_orphan(self._datadir.pidfile, self._config.data_dir)
        process = EtcdProcess.adopt(orphan) if orphan else None
        if orphan is None or process is None:
            return False
        noted = self._datadir.environment_note.exists() or self._more_environment
        if noted or effective(list(orphan.argv)) != effective(self._argv()):
            self._log.warning(f"ending etcd pid {orphan.pid} of an earlier coordinator: its settings differ")
            await process.end(_STOP_GRACE_S)
            process.close()
            return False
        write_pidfile(self._datadir.pidfile, orphan)
        self._log_start_bytes = self._log_size_bytes()
        self._take(process)
        self._log.info(f"adopted etcd pid {orphan.pid}")
        return True

    def _spawn(self) -> None:
        self._claim_data_for_version()
        self._require_free_ports()
        logfile.rotate(self._datadir.log_file)
        self._log_start_bytes = self._log_size_bytes()
        argv = self._argv()
        try:
            self._note_environment()
            environment = {**self._plain_environment, **self._more_environment}
            process = EtcdProcess.spawn(argv, environment, self._datadir.log_file)
        except OSError as error:
            raise MemberFailed(f"{argv[0]} does not start: {error.strerror}") from error
        if self._on_started:
            self._on_started(process.pid)
        self._take(process)
        identity = identify(process.pid, argv)
        # Gone already means it failed at once; `run` or `wait_ready` will say why.
        if identity:
            write_pidfile(self._datadir.pidfile, identity)
        self._log.info(f"started etcd {self._binary.version} as pid {process.pid}")

    def _note_environment(self) -> None:
        """Leave a note beside an etcd that depends on more than its command line, for who finds it running later."""
        if self._more_environment:
            self._datadir.environment_note.write_text("\n".join(sorted(self._more_environment)))
        else:
            self._datadir.environment_note.unlink(missing_ok=True)

    def _take(self, process: EtcdProcess) -> None:
        if self._process:
            self._process.close()
        self._process = process
        self._state = replace(
            self._state, phase=Phase.STARTING, pid=process.pid, adopted=process.adopted, next_start_in_s=None
        )

    def _argv(self) -> list[str]:
        return build_argv(str(self._binary.path), self._binary.version, self._config)

    def _claim_data_for_version(self) -> None:
        """Refuse data of a newer etcd, and note this one before it can write."""
        marker = Marker.read(self._datadir.marker)
        last = Version.parse(marker.last_etcd_version) if marker.last_etcd_version else None
        check_against_last_writer(self._binary.version, last)
        if marker.state is not MarkerState.ABSENT and last != self._binary.version:
            replace(marker, last_etcd_version=str(self._binary.version)).write(self._datadir.marker)

    def _require_free_ports(self) -> None:
        require_free(self._config.peer_listen_url, "etcd peers")
        require_free(self._config.client_url, "etcd clients")
        if gateway_url(self._config, self._binary.version) != self._config.client_url:
            require_free(gateway_url(self._config, self._binary.version), "etcd clients over HTTP")
        if self._config.metrics_url:
            require_free(self._config.metrics_url, "etcd metrics")

    # --- watching -------------------------------------------------------------------------------

    async def _watch(self, process: EtcdProcess) -> None:
        """Return when `process` has ended or the supervisor stops; meanwhile find out when it answers."""
        while not process.ended and not self._stopping.is_set():
            if self._state.phase is Phase.STARTING:
                await self.probe(_PROBE_TIMEOUT_S)
                await self._wait_end_of(process, _PROBE_PERIOD_S)
            else:
                logfile.rotate_open(self._datadir.log_file)
                await self._wait_end_of(process, _LOG_CHECK_PERIOD_S)

    async def _wait_end_of(self, process: EtcdProcess | None, timeout_s: float) -> None:
        """Wait for the end of `process`, for `stop`, or for `timeout_s`."""
        waits: list[asyncio.Task[object]] = [asyncio.create_task(self._stopping.wait())]
        if process:
            waits.append(asyncio.create_task(process.wait_end()))
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _note_end(self, process: EtcdProcess) -> None:
        removed = logfile.says_removed(self._datadir.log_file, self._log_start_bytes)
        self._failures = count_failures(self._policy, self._failures, process.ran_s)
        delay_s = restart_delay_s(self._policy, self._failures, random.random())
        self._next_start_at_s = asyncio.get_running_loop().time() + delay_s
        phase = Phase.REMOVED if removed else Phase.BACKOFF
        words = logfile.last_words(self._datadir.log_file, self._log_start_bytes)
        self._state = replace(self._state, phase=phase, pid=None, last_exit=process.exit_text, last_words=words)
        if removed:
            self._log.warning("etcd ended: the cluster has removed this member; it is not started again")
        else:
            self._log.warning(f"etcd pid {process.pid}: {process.exit_text}; starting again in {delay_s:.1f} s")

    async def _restart_when_due(self, process: EtcdProcess) -> None:
        while self._state.phase is Phase.BACKOFF and self._process is process and not self._stopping.is_set():
            await self._wait_end_of(None, self._next_start_at_s - asyncio.get_running_loop().time())
            async with self._changing:
                if self._stopping.is_set() or self._process is not process:
                    return
                await self._require_whole_log()
                self._state = replace(self._state, restarts=self._state.restarts + 1)
                self._try_spawn()

    async def _require_whole_log(self) -> None:
        shortfall = await asyncio.to_thread(find_shortfall, self._datadir)
        if shortfall:
            raise DataLost(
                f"etcd has lost a part of its log: {shortfall}",
                hint="start the coordinator again: if another one is there, its member is replaced",
            )

    def _try_spawn(self) -> None:
        """Start again; what hinders it (a port taken meanwhile) counts as one more failure."""
        try:
            self._spawn()
        except (StartupError, OSError) as error:
            self._failures += 1
            delay_s = restart_delay_s(self._policy, self._failures, random.random())
            self._next_start_at_s = asyncio.get_running_loop().time() + delay_s
            self._state = replace(self._state, phase=Phase.BACKOFF, pid=None, last_exit=str(error), last_words="")
            self._log.warning(f"etcd cannot be started: {error}; trying again in {delay_s:.1f} s")

    # --- ending ---------------------------------------------------------------------------------

    async def _end_process(self, grace_s: float) -> None:
        if self._process:
            await self._process.end(grace_s)
            self._state = replace(self._state, last_exit=self._process.exit_text)
            self._process.close()

    def _raise_if_down(self) -> None:
        if self._process and not self._process.ended:
            return
        if self._process and logfile.says_removed(self._datadir.log_file, self._log_start_bytes):
            raise MemberRemoved("the cluster has removed this member", hint="remove its data and join again")
        noted = self._process is None or self._state.phase in (Phase.BACKOFF, Phase.STOPPED)
        how = self._state.last_exit if noted else self._process.exit_text if self._process else ""
        log = logfile.excerpt(self._datadir.log_file, self._log_start_bytes)
        raise MemberFailed(f"etcd: {how or 'not started'}; its log:\n{log}")

    def _log_size_bytes(self) -> int:
        return self._datadir.log_file.stat().st_size if self._datadir.log_file.exists() else 0
