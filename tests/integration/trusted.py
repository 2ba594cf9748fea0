"""Who takes part in a test's cluster, and by what it proves that: nobody knows anybody, or mTLS as users run it.

::

    Plain      every connection is plain, everybody may do everything
    Trusted    a founding file for the founders, deleted once the cluster is there; a token for whoever comes later;
               an admin, whose certificate is kept fresh, for all that the test itself asks

`prepare` does before the start of a process what an operator would have to do. Whatever the test holds for long takes
`credentials` as a source, asked anew for each connection: certificates may be good for a minute only.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from cloudless.adapters.grpc.channel import Dialler
from cloudless.adapters.grpc.identity_calls import ask_identity_service
from cloudless.adapters.pki.credentials import Credentials
from cloudless.adapters.pki.etcd_files import EtcdClient, EtcdFiles
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.joining import IdentityKeeper, enrol
from cloudless.adapters.pki.vault import Vault
from cloudless.adapters.system import SystemClock
from cloudless.cli.client import Client
from cloudless.cli.commands.found import LEAF_LIFETIME_S, write_founding_file
from cloudless.cli.contexts import Context, ContextFile
from cloudless.cli.methods import CREATE_TOKEN, LIST_IDENTITIES
from cloudless.cli.signing_in import create_first_token, sign_in
from cloudless.core.identity.renewal import Freshness
from cloudless.core.model import Role
from cloudless.errors import CloudlessError, Unauthenticated, Unavailable
from cloudless.ports import Credentials as Shown
from cloudless.ports import CredentialSource
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1 import objects_pb2
from etcd.flags import TlsFiles

ADMIN, CONTEXT = "admin", "test"
FORMED_S = 60.0
POLL_S = 0.1
Settings = dict[str, str]
T = TypeVar("T")


class Site(Protocol):
    """One process, as far as trust is concerned; see `cluster.Process`."""

    name: str
    role: str
    settings: Settings
    data_dir: Path

    def address(self, use: str = "api") -> str: ...


class Plain:
    """A cluster in which nobody proves anything."""

    scheme = "http"
    settings: ClassVar[Settings] = {"TLS_ENABLED": "false", "ALLOW_PLAIN_NETWORK": "true"}
    credentials: CredentialSource | None = None

    def prepare(self, site: Site, coordinators: Sequence[Site]) -> None:
        """Give a process what it needs to prove itself, before its start."""

    def begin(self, coordinators: Sequence[Site]) -> None:
        """Do what has to be done once the cluster is there."""

    def etcd_credentials(self, site: Site) -> CredentialSource | None:
        """Return what a coordinator shows to its etcd."""
        return None

    def etcd_files(self, site: Site) -> TlsFiles | None:
        return None

    def web(self) -> ssl.SSLContext | None:
        """Return what to ask over HTTP with."""
        return None

    def cli_settings(self) -> Settings:
        """Return what a person's command line is set to."""
        return {}

    def secrets(self, sites: Sequence[Site]) -> dict[str, str]:
        """Return every secret there is by what it is; none of them may be seen anywhere."""
        return {}

    def enter(self, name: str) -> Dialler:
        """Let an agent in that is no process of the cluster; return what it dials with."""
        return Dialler()

    def invitation(self, names: str, count: int) -> dict[str, Any]:
        """Return where and by which token so many agents of these names may enrol; nothing if nobody has to."""
        return {}

    def close(self) -> None:
        """End what this runs."""


class Trusted(Plain):
    """A cluster as users run it. `leaf_lifetime_s` is how long certificates are good for."""

    scheme = "https"
    settings: ClassVar[Settings] = {"TLS_ENABLED": "true"}

    def __init__(self, root: Path, leaf_lifetime_s: int = LEAF_LIFETIME_S) -> None:
        self.root = root / "trust"
        self.root.mkdir(mode=0o700, parents=True)
        self.founding_file = self.root / "founding"
        write_founding_file(self.founding_file, leaf_lifetime_s)
        self.credentials = self._find_credentials
        self.tokens: list[str] = []
        self._contexts = ContextFile(self.root / "config")
        self._admin = IdentityDir(self._contexts.identity_path(CONTEXT))
        self._keeper: IdentityKeeper | None = None
        self._loop = asyncio.new_event_loop()
        self._keeping = threading.Thread(target=self._loop.run_forever, name="admin", daemon=True)
        self._renewing: Future[None]
        self._coordinators: Sequence[Site] = ()

    # --- what an operator does ---

    def prepare(self, site: Site, coordinators: Sequence[Site]) -> None:
        self._coordinators = coordinators
        site.settings.setdefault("ENROL_AT", ",".join(_enrol_addresses(coordinators)))
        directory = identity_dir(site)
        known = Vault(directory).load() if site.role == "coordinator" else IdentityDir(directory).load()
        file = self.root / f"{site.name}.token"
        if known is not None or site.settings.get("JOIN_TOKEN_FILE", str(file)) != str(file):
            return  # somebody already, or given a token by the test itself
        if self.founding_file.exists() and site.role == "coordinator" and "BOOTSTRAP_EXPECT" in site.settings:
            site.settings["FOUNDING_FILE"] = str(self.founding_file)
            return
        self.begin(coordinators)
        role = objects_pb2.ROLE_COORDINATOR if site.role == "coordinator" else objects_pb2.ROLE_AGENT
        file.write_text(self.create_token(role, site.name))
        site.settings.pop("FOUNDING_FILE", None)
        site.settings["JOIN_TOKEN_FILE"] = str(file)

    def begin(self, coordinators: Sequence[Site]) -> None:
        """Make the test an admin, once, and delete the founding file, as the documentation says."""
        self._coordinators = coordinators
        if self._keeper is not None:
            return
        addresses = [one.address() for one in coordinators]
        context = Context(
            name=CONTEXT, coordinators=tuple(addresses), join_addresses=tuple(_enrol_addresses(coordinators))
        )
        _patiently(lambda: self._sign_in(context))
        held = self._admin.load()
        assert held is not None
        self._keeper = IdentityKeeper(
            self._admin, held, self._find_addresses, ask_identity_service, SystemClock(), lambda credentials: None
        )
        self._keeping.start()
        self._renewing = asyncio.run_coroutine_threadsafe(self._keeper.run(), self._loop)
        _patiently(lambda: self._require_founded(coordinators))
        self.founding_file.unlink()
        for one in coordinators:
            one.settings.pop("FOUNDING_FILE", None)

    def create_token(self, role: Any, *names: str, **fields: Any) -> str:
        """Return a new token, as the admin would get it; waits for a cluster that can make one."""
        request = pb.CreateTokenRequest(role=role, names=names, **fields)
        addresses = [one.address() for one in self._coordinators]

        def create() -> str:
            with Client(addresses, credentials=self._find_credentials()) as client:
                return client.call(CREATE_TOKEN, request).token

        self.tokens.append(_patiently(create))
        return self.tokens[-1]

    def enter(self, name: str) -> Dialler:
        token = self.create_token(objects_pb2.ROLE_AGENT, name)
        directory = IdentityDir(self.root / "agents" / name)
        made = asyncio.run(
            enrol(directory, token, name, Role.AGENT, _enrol_addresses(self._coordinators), ask_identity_service)
        )
        return Dialler(lambda: made)

    def invitation(self, names: str, count: int) -> dict[str, Any]:
        token = self.create_token(objects_pb2.ROLE_AGENT, names, uses=count)
        return {"token": token, "doors": _enrol_addresses(self._coordinators), "home": str(self.root / "agents")}

    # --- what the test asks with ---

    def _find_credentials(self) -> Shown:
        """Return the admin's credentials; before there is an admin, those of a coordinator. Raises Unavailable."""
        if self._keeper is not None:
            return self._keeper.credentials
        return self._first_coordinator()[1]

    def etcd_credentials(self, site: Site) -> CredentialSource | None:
        files = EtcdFiles(identity_dir(site) / "etcd")
        last: EtcdClient | None = None

        def read() -> Shown:
            nonlocal last
            last = EtcdClient.read(files, last)
            return last

        return read

    def etcd_files(self, site: Site) -> TlsFiles | None:
        files = EtcdFiles(identity_dir(site) / "etcd")
        return TlsFiles(cert_file=str(files.client), key_file=str(files.key), ca_file=str(files.client_roots))

    def web(self) -> ssl.SSLContext | None:
        """Return the admin's context, or one that shows nothing while there is nobody."""
        try:
            directory = self._admin if self._keeper is not None else self._first_coordinator()[0]
        except Unavailable:
            return ssl._create_unverified_context()
        context = ssl.create_default_context(cafile=str(directory.roots_file))
        context.check_hostname = False  # certificates carry no addresses
        context.load_cert_chain(directory.identity_file)
        return context

    def cli_settings(self) -> Settings:
        return {"CONFIG": str(self._contexts.path), "CONTEXT": CONTEXT}

    def secrets(self, sites: Sequence[Site]) -> dict[str, str]:
        found = {f"token {token.split('.')[1]}": token.split(".")[2] for token in self.tokens}
        for site in sites:
            directory = identity_dir(site)
            for path in (directory / "identity.pem", directory / "etcd" / "etcd.key", directory / "cluster.key"):
                for number, line in enumerate(_secret_lines(path)):
                    found[f"{path.name} of {site.name}, line {number}"] = line
        return found

    def close(self) -> None:
        if self._keeping.is_alive():
            self._renewing.cancel()
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result()  # it has heard of that
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._keeping.join()
        self._loop.close()

    # --- how ---

    def _sign_in(self, context: Context) -> None:
        held = self._first_coordinator()[1]
        token = create_first_token(context, held, ADMIN)
        self.tokens.append(token)
        sign_in(self._contexts, context, token, ADMIN)

    def _require_founded(self, coordinators: Sequence[Site]) -> None:
        """Raise Unavailable until every founder is on record: before that nobody knows one whose etcd is gone."""
        with Client([one.address() for one in coordinators], credentials=self._find_credentials()) as client:
            listed = client.call(LIST_IDENTITIES, pb.ListIdentitiesRequest(kind="coordinator")).identities
        founders = {one.name for one in coordinators if "FOUNDING_FILE" in one.settings}
        if late := founders - {one.record.name for one in listed}:
            raise Unavailable(f"{', '.join(sorted(late))} is not on record yet")

    def _first_coordinator(self) -> tuple[IdentityDir, Credentials]:
        for site in self._coordinators:
            directory = IdentityDir(identity_dir(site))
            if identity_dir(site).is_dir() and (held := directory.load()) is not None:
                return directory, held
        raise Unavailable("no coordinator has an identity yet")

    def _find_addresses(self) -> Sequence[str]:
        assert self._keeper is not None
        expired = self._keeper.credentials.freshness(int(time.time() * 1000)) is Freshness.EXPIRED
        return _enrol_addresses(self._coordinators) if expired else [one.address() for one in self._coordinators]


def identity_dir(site: Site) -> Path:
    """Return where a process keeps who it is."""
    return Path(site.settings.get("IDENTITY_DIR", Path(site.settings["DATA_DIR"]) / "identity"))


def _enrol_addresses(coordinators: Sequence[Site]) -> list[str]:
    return [one.address("enrol") for one in coordinators]


def _secret_lines(path: Path) -> list[str]:
    """Return the lines of a file of secrets that nobody may see: of PEM what is between a key's marks."""
    with suppress(FileNotFoundError):
        text = path.read_text(encoding="ascii")
        if "-----BEGIN" not in text:
            return text.split()
        _, _, rest = text.partition("PRIVATE KEY-----\n")
        return rest.partition("-----END")[0].split()[:2]  # what follows is the public key
    return []


def _patiently(do: Callable[[], T]) -> T:
    """Return what `do` comes to, once the cluster is there and lets it."""
    deadline_s = time.monotonic() + FORMED_S
    while True:
        try:
            return do()
        except CloudlessError as error:
            # A coordinator that has just been made known is not enrolled before the leader has written it down.
            passes = error.retryable or isinstance(error, Unauthenticated)
            if not passes or time.monotonic() > deadline_s:
                raise
        time.sleep(POLL_S)
