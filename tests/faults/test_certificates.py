"""What happens when certificates run out and authorities are replaced while the cluster is used.

Certificates are good for a minute here, the least that can be asked for, so that a lifetime passes in one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping

from cloudless.adapters.grpc.identity_calls import ask_identity_service
from cloudless.adapters.pki.certificate import read_certificates, validity_of
from cloudless.adapters.pki.credentials import Credentials
from cloudless.adapters.pki.request import build_request, read_key
from cloudless.adapters.pki.vault import Holdings
from cloudless.cli.methods import CREATE_TOKEN, GET_CA, REVOKE_IDENTITY, ROTATE_CA
from cloudless.core.model import AuthorityPurpose
from cloudless.errors import Unauthenticated
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1.objects_pb2 import ROLE_AGENT
from tests.faults.rig.doors import Shown, doors_of, holdings_of, serials_kept, serials_shown, sign_for_a_day
from tests.faults.rig.leading import pass_time
from tests.faults.rig.scenario import scenario
from tests.faults.rig.trial import Trial
from tests.integration.cluster import LocalCluster
from tests.integration.trusted import Trusted, identity_dir

LIFETIME_S = 60
# A certificate is renewed at half of its life at the latest; the rest is room for a busy machine.
WATCHED_S = LIFETIME_S + 5.0
GAP_MAX_S = 3.0
# While etcd's members are restarted one after the other, its leader's is, too: an election each time.
RESTARTED_GAP_MAX_S = 8.0
AWAY_MAX_S = 2.0 * LIFETIME_S
BACK_S = 40.0
ROTATED_MAX_S = 4.0 * LIFETIME_S


@scenario(47, budget_s=180)
def test_certificates_of_a_minute_are_renewed_under_load_and_nobody_notices(trial: Trial) -> None:
    """Each round is a whole lifetime of every certificate there is, etcd's included."""
    cluster = trial.start(trust=Trusted(trial.root, LIFETIME_S))
    for _ in trial.rounds():
        trial.load_up()
        kept, shown = serials_kept(cluster), serials_shown(cluster)
        began_s = trial.note("a lifetime of all certificates passes")
        pass_time(cluster, WATCHED_S)
        assert_no_write_failed(trial, began_s, GAP_MAX_S)
        assert trial.history.counts.unsure == 0, "no answer was lost on the way either"
        assert not set(kept.values()) & set(serials_kept(cluster).values()), "each has another certificate"
        assert not set(shown.values()) & set(serials_shown(cluster).values()), "and shows it"
        trial.figure("certificates", len(kept))
        trial.settle()


@scenario(47, budget_s=300)
def test_who_was_away_past_the_end_of_its_certificate_comes_back(trial: Trial) -> None:
    """A coordinator and an agent by themselves; an agent that was revoked meanwhile by a token that names it."""
    cluster = trial.start(agents=3, tasks=6, trust=Trusted(trial.root, LIFETIME_S))
    returning, revoked = "agent-1", "agent-2"
    for _ in trial.rounds():
        away = random.choice(cluster.coordinators).name
        trial.load_up()
        trial.note(f"{away}, {returning} and {revoked} are killed")
        cluster.kill(away, etcd=True)
        cluster.kill(returning, revoked)
        others = [one.name for one in cluster.coordinators if one.name != away]
        request = pb.RevokeIdentityRequest(kind="agent", name=revoked, reason="its disk was copied")
        cluster.call(REVOKE_IDENTITY, request, *others)
        over = [away, returning, revoked]
        cluster.until(lambda: all(has_run_out(cluster, name) for name in over), "their time is over", AWAY_MAX_S)
        trial.load_up()
        began_s = trial.note("they are started again")
        cluster.start(*over)
        cluster.until(lambda: cluster.phases().get(returning) == "READY", f"{returning} is back", BACK_S)
        trial.figure("agent_back_s", time.monotonic() - began_s)
        cluster.wait_formed(BACK_S)
        trial.figure("coordinator_back_s", time.monotonic() - began_s)
        cluster.until(lambda: says_why(cluster, revoked), f"{revoked} says why it is not let in", BACK_S)
        assert cluster.processes[revoked].lives, "its tasks still need it"
        assert cluster.phases()[revoked] != "READY"
        trial.note(f"{revoked} is given a token that names it")
        cluster.stop(revoked)
        file = cluster.root / f"{revoked}.way-back"
        file.write_text(cluster.call(CREATE_TOKEN, pb.CreateTokenRequest(role=ROLE_AGENT, names=[revoked])).token)
        cluster.processes[revoked].settings["JOIN_TOKEN_FILE"] = str(file)
        cluster.start(revoked)
        trial.settle()


@scenario(48, budget_s=420)
def test_authorities_are_replaced_under_load_and_the_old_ones_open_no_door(trial: Trial) -> None:
    """All three at once: the cluster's, and those of etcd's members and clients, for which each etcd restarts twice."""
    cluster = trial.start(trust=Trusted(trial.root, LIFETIME_S))
    for number in trial.rounds():
        trial.load_up()
        old = sign_for_a_day(cluster, holdings_of(cluster), cluster.root / f"old-{number}")
        doors = doors_of(cluster)
        person = sign_person(cluster, holdings_of(cluster))
        assert enrols_again(cluster, person), "the door for enrolment knows it before"
        visits = {door: old[door.purpose].opens(door) for door in doors}
        assert all(visits.values()), "they open nothing even before, so that their refusal would prove nothing"
        names = {one.id for one in authorities(cluster)}
        began_s = trial.note("replace all authorities")
        cluster.call(ROTATE_CA, pb.RotateCaRequest())
        cluster.until(
            lambda: not names & {one.id for one in authorities(cluster)}, "the old ones are gone", ROTATED_MAX_S
        )
        trial.figure("rotated_s", time.monotonic() - began_s)
        assert_no_write_failed(trial, began_s, RESTARTED_GAP_MAX_S)
        new = sign_for_a_day(cluster, holdings_of(cluster), cluster.root / f"new-{number}")
        cluster.until(lambda: not opened(old, cluster), "what the old ones signed opens no door", BACK_S)
        trial.figure("shut_s", time.monotonic() - began_s)
        resumed = [door.what for door, visit in visits.items() if old[door.purpose].opens(door, visit)]
        assert not resumed, f"who came before comes in again without showing anything: {resumed}"
        assert opened(new, cluster) == [door.what for door in doors], "the new ones open every door"
        assert not enrols_again(cluster, person), "the old one's word for a person is worth nothing at enrolment"
        trial.settle()


# --- what the scenarios do ---


def assert_no_write_failed(trial: Trial, since_s: float, gap_max_s: float) -> None:
    """No write was given up or refused, and none waited longer than this."""
    gap_s = trial.load.longest_gap_s(since_s)
    trial.figure("gap_s", gap_s)
    assert trial.load.writer.uncertain == 0
    assert trial.load.writer.refusals == []
    assert gap_s < gap_max_s, f"no write for {gap_s:.1f} s"


def has_run_out(cluster: LocalCluster, name: str) -> bool:
    """Return whether a process's certificate is good no longer, the etcd's of a coordinator included."""
    home = identity_dir(cluster.processes[name])
    files = [home / "identity.pem", *(home / "etcd").glob("peer.pem"), *(home / "etcd").glob("server.pem")]
    pems = [file.read_bytes() for file in files]
    leaves = [read_certificates(pem[pem.index(b"-----BEGIN CERTIFICATE") :])[0] for pem in pems]
    return all(validity_of(leaf).not_after_ms < time.time() * 1000 for leaf in leaves)


def says_why(cluster: LocalCluster, name: str) -> bool:
    said = cluster.tail(name, 200)
    return f"agent/{name} was revoked" in said and "token that names it" in said


def authorities(cluster: LocalCluster) -> list[pb.Authority]:
    return list(cluster.call(GET_CA, pb.GetCaRequest()).authorities)


def sign_person(cluster: LocalCluster, holdings: Holdings) -> str:
    """Return a certificate for the test's own person and key, as PEM, signed by these authorities."""
    own = cluster.credentials()
    assert isinstance(own, Credentials)
    authority = holdings.open_issuing(AuthorityPurpose.CLUSTER)
    leaf = authority.sign_identity(own.identity, read_key(own.key_pem).public_key(), int(time.time() * 1000))
    return authority.chain_pem(leaf)


def enrols_again(cluster: LocalCluster, certificate_pem: str) -> bool:
    """Return whether every coordinator signs anew for who shows this old certificate and proves its key."""
    own = cluster.credentials()
    assert own is not None
    request = pb.ReenrolRequest(certificate_pem=certificate_pem, csr_pem=build_request(read_key(own.key_pem)))

    async def ask(address: str) -> bool:
        try:
            await ask_identity_service(address, "Reenrol", request, pb.ReenrolResponse, own.roots_pem, None)
        except Unauthenticated:
            return False
        return True

    async def ask_all() -> list[bool]:
        return [await ask(process.address("enrol")) for process in cluster.coordinators]

    told = asyncio.run(ask_all())
    assert len(set(told)) == 1, told
    return told[0]


def opened(shown: Mapping[AuthorityPurpose, Shown], cluster: LocalCluster) -> list[str]:
    """Return the doors that a set of certificates opens."""
    return [door.what for door in doors_of(cluster) if shown[door.purpose].opens(door)]
