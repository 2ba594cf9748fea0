"""Certificates written for etcd, shown to real members: they let in each other and their coordinator, nobody else."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudless.adapters.pki.etcd_files import EtcdFiles
from cloudless.adapters.pki.vault import found
from cloudless.core.identity.names import Identity, IdentityKind
from etcd.find import Found
from etcd.flags import MemberConfig, TlsFiles, build_argv
from etcd.profiles import PROFILES
from tests.integration.etcd_fixture import binary, free_ports

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

NAMES = ("c1", "c2", "c3")
NOW_MS = int(time.time() * 1000)
HOLDINGS = found("feedbeef", NOW_MS)


class Member:
    """One etcd with certificates."""

    def __init__(self, name: str, folder: Path, ports: tuple[int, int]) -> None:
        self.name, self.folder = name, folder
        self.files = EtcdFiles(folder / "pki")
        self.peer_url, self.client_url = (f"https://127.0.0.1:{port}" for port in ports)
        self.write()

    def write(self) -> None:
        identity = Identity(HOLDINGS.cluster_id, IdentityKind.COORDINATOR, self.name)
        self.files.write(HOLDINGS, identity, ["127.0.0.1"], NOW_MS)

    def argv(self, found_binary: Found, members: list[Member]) -> list[str]:
        files = self.files
        config = MemberConfig(
            name=self.name,
            data_dir=str(self.folder / "etcd"),
            peer_listen_url=self.peer_url,
            peer_advertise_url=self.peer_url,
            client_url=self.client_url,
            initial_cluster=tuple((member.name, member.peer_url) for member in members),
            initial_cluster_state="new",
            cluster_token="test",
            heartbeat_ms=PROFILES["lan"].heartbeat_ms,
            election_ms=PROFILES["lan"].election_ms,
            client_tls=TlsFiles(str(files.server), str(files.key), str(files.client_roots)),
            peer_tls=TlsFiles(str(files.peer), str(files.key), str(files.peer_roots)),
        )
        dialling = [f"--peer-client-cert-file={files.peer_client}", f"--peer-client-key-file={files.key}"]
        return [*build_argv(str(found_binary.path), found_binary.version, config), *dialling]

    def post(self, path: str, body: dict[str, Any], certificate: Path | None, roots: Path | None = None) -> Any:
        """Ask the member's gateway, which dials the member with the server's certificate."""
        context = ssl.create_default_context(cafile=str(roots or self.files.client_roots))
        if certificate is not None:
            context.load_cert_chain(certificate, self.files.key)
        request = urllib.request.Request(self.client_url + path, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=3.0, context=context) as answer:
            return json.loads(answer.read())

    def put(self, certificate: Path | None) -> int:
        """Write a key; return how far the store is."""
        body = {"key": base64.b64encode(b"k").decode(), "value": base64.b64encode(b"v").decode()}
        return int(self.post("/v3/kv/put", body, certificate)["header"]["revision"])

    def shown(self) -> str:
        """Return the certificate the member shows, as PEM."""
        port = int(self.client_url.rpartition(":")[2])
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=3.0)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[list[Member]]:
    root, ports = tmp_path_factory.mktemp("etcd-tls"), free_ports(6)
    made = [Member(name, root / name, (ports[2 * n], ports[2 * n + 1])) for n, name in enumerate(NAMES)]
    with contextlib.ExitStack() as stack:
        for member in made:
            member.folder.mkdir(exist_ok=True)
            log = stack.enter_context((member.folder / "etcd.log").open("wb"))
            process = subprocess.Popen(member.argv(binary, made), stdout=log, stderr=log)
            stack.callback(process.wait, 10)
            stack.callback(process.send_signal, signal.SIGKILL)
        until(lambda: made[0].put(made[0].files.client) > 0, "three members have a leader")
        yield made


def until(look: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    deadline_s, last = time.monotonic() + timeout_s, ""
    while time.monotonic() < deadline_s:
        try:
            if look():
                return
        except OSError as error:
            last = repr(error)
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {timeout_s} s; last: {last}")


def test_members_with_our_certificates_are_one_cluster(members: list[Member]) -> None:
    revision = members[0].put(members[0].files.client)
    for member in members:
        assert member.put(member.files.client) > revision
    listed = members[0].post("/v3/cluster/member/list", {}, members[0].files.client)["members"]
    assert sorted(member["name"] for member in listed) == sorted(NAMES)


def test_nobody_else_is_let_in(members: list[Member]) -> None:
    member = members[0]
    for certificate in (None, member.files.peer, member.files.peer_client):
        with pytest.raises((OSError, ssl.SSLError)):
            member.put(certificate)
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        member.post("/v3/cluster/member/list", {}, member.files.client, roots=member.files.peer_roots)


def test_new_certificates_are_shown_without_a_restart(members: list[Member]) -> None:
    member = members[1]
    before = member.shown()
    member.write()
    assert member.shown() != before
    assert member.put(member.files.client) > 0
