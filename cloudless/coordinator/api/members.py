"""ClusterService, the part about members: list, join, leave, remove, replace, promote, move."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloudless.coordinator.api.access import Access, Decided
from cloudless.coordinator.api.joining import Admission, Joiner
from cloudless.coordinator.asking import ask_formation
from cloudless.coordinator.departure import Departure
from cloudless.coordinator.membership import Members
from cloudless.core import keys
from cloudless.core.membership.health import describe_health
from cloudless.core.membership.observed import JoinView, MemberView, Observed, ReplacementView
from cloudless.core.membership.records import autopilot_of, autopilot_status_of, joins_of, replacements_of
from cloudless.core.membership.replacement import find_newcomer, next_step
from cloudless.core.model import ReplacementRecord
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.setting_values import parse_address
from cloudless.core.state import View
from cloudless.errors import Conflict, InvalidSpec, NotFound, Problem, Unavailable
from cloudless.rpc import codec
from cloudless.rpc.v1 import cluster_pb2 as pb
from cloudless.rpc.v1 import objects_pb2

LEARNER_TIMEOUT_S = 0.8


class MemberCalls:
    """What ClusterService does with the members."""

    def __init__(self, access: Access, members: Members, departure: Departure) -> None:
        self._access, self._members, self._departure = access, members, departure
        self._admission = Admission(access, members)

    # --- reading ---

    async def ListMembers(self, request: pb.ListMembersRequest, context: Any) -> pb.ListMembersResponse:
        await self._members.refresh()
        status = self._members.status
        assert status is not None
        return pb.ListMembersResponse(
            header=self._access.header(),
            etcd_cluster_id=status.cluster_id,
            members=await self.describe_members(),
            joiners=self.describe_joiners(),
        )

    async def describe_members(self) -> list[pb.Member]:
        """Return every member with its health as seen from here, and what the autopilot waits for."""
        status = self._members.status
        assert status is not None
        indexes = await self._ask_learners()
        views = {view.id: view for view in self._members.views()}
        found = []
        for member in self._members.list:
            view = views[member.id]
            index = indexes.get(view.name, view.raft_index)
            lag = max(0, status.raft_index - index) if index else None
            lag_max = autopilot_of(self._access.view).catch_up_lag_max
            seen = view if not view.learner else _linked(view, view.name in indexes)
            found.append(
                pb.Member(
                    id=member.id,
                    name=member.name,
                    peer_urls=member.peer_urls,
                    client_urls=member.client_urls,
                    learner=member.is_learner,
                    started=bool(member.client_urls),
                    raft_leader=member.id == status.leader_id,
                    health=describe_health(seen, lag, lag_max),
                    note="; ".join(filter(None, (view.ailment, *self._waits_of(view.label)))),
                    raft_lag=-1 if lag is None else lag,
                )
            )
        return found

    def describe_joiners(self) -> list[pb.Joiner]:
        """Return who asks to join and is no member yet, in order."""
        members = {member.name for member in self._members.list}
        asking = sorted(joins_of(self._access.view).values(), key=lambda join: join.create_revision)
        return [
            pb.Joiner(
                record=codec.to_message(join.record, objects_pb2.JoinRecord),
                note="; ".join(self._waits_of(join.record.id)),
            )
            for join in asking
            if join.record.id not in members
        ]

    def _waits_of(self, subject: str) -> list[str]:
        return [wait.reason for wait in autopilot_status_of(self._access.view).waits if wait.subject == subject]

    async def _ask_learners(self) -> dict[str, int]:
        """Return how far the learners that answer have got, by id: they have no links yet."""
        joins = joins_of(self._access.view)
        learners = {member.name for member in self._members.list if member.is_learner and member.name}
        addresses = {joins[name].record.api_address: name for name in sorted(learners & joins.keys())}
        answers = await ask_formation(self._members.own.dialler, sorted(addresses), timeout_s=LEARNER_TIMEOUT_S)
        return {
            addresses[address]: answer.raft_index
            for address, answer in answers.items()
            if answer.node_id == addresses[address]
        }

    # --- changing ---

    async def JoinRaftCluster(self, request: pb.JoinRaftClusterRequest, context: Any) -> pb.JoinRaftClusterResponse:
        raft_address = _check_member("node_id", request.node_id, request.raft_address)
        api_address = _check_address("api_address", request.api_address)
        joiner = Joiner(
            request.node_id, raft_address, api_address, request.empty, request.etcd_version, request.version
        )
        return await self._admission.admit(joiner, context)

    async def UpdateMember(self, request: pb.UpdateMemberRequest, context: Any) -> pb.UpdateMemberResponse:
        raft_address = _check_member("coordinator_id", request.coordinator_id, request.raft_address)
        await self._members.move(request.coordinator_id, raft_address)
        return pb.UpdateMemberResponse(header=self._access.header())

    async def RemoveMember(self, request: pb.RemoveMemberRequest, context: Any) -> pb.RemoveMemberResponse:
        _check_given(request.coordinator_id)
        await self._members.remove(request.coordinator_id, force=request.force)
        return pb.RemoveMemberResponse(header=self._access.header())

    async def LeaveCluster(self, request: pb.LeaveClusterRequest, context: Any) -> pb.LeaveClusterResponse:
        _check_given(request.coordinator_id)
        if request.coordinator_id != self._access.own_id:
            raise Conflict(
                f"this is {self._access.own_id}, not {request.coordinator_id}", hint="ask the one that is to leave"
            )
        await self._departure.leave(force=request.force)
        return pb.LeaveClusterResponse(header=self._access.header())

    async def PromoteMember(self, request: pb.PromoteMemberRequest, context: Any) -> pb.PromoteMemberResponse:
        _check_given(request.coordinator_id)
        await self._members.refresh()
        member = self._members.find(request.coordinator_id)
        voters, most = len(self._members.voters()), autopilot_of(self._access.view).voters_max
        if member.is_learner and voters >= most:
            raise Conflict(f"there are {voters} voters, the most allowed", hint="remove one first")
        voters = await self._members.promote(request.coordinator_id)
        return pb.PromoteMemberResponse(header=self._access.header(), voters=voters)

    async def ReplaceMember(self, request: pb.ReplaceMemberRequest, context: Any) -> pb.ReplaceMemberResponse:
        _check_replacement(request)
        await self._members.refresh()
        key = keys.replacement(request.coordinator_id)

        def decide(view: View) -> Decided:
            held = replacements_of(view).get(request.coordinator_id)
            before = (Precondition(key, held.mod_revision if held else 0),)
            if request.cancel:
                if held is None:
                    raise NotFound(f"{request.coordinator_id} was not given up", hint="see cloudless cluster members")
                return Decided(Change(deletes=(key,), preconditions=before, reason="replacement withdrawn"), {})
            if held is not None and held.record.new_id == request.new_coordinator_id:
                return Decided(None, {})
            record = self._build_replacement(request, held.record if held else None)
            event = self._access.event(
                "CoordinatorGivenUp",
                f"coordinator/{record.id}",
                f"replaced by {record.new_id or 'the next that joins'}",
            )
            return Decided(Change(puts=(PutRecord(key, record), event), preconditions=before, reason="replace"), {})

        content = f"{request.coordinator_id} {request.new_coordinator_id} {request.cancel}".encode()
        written = await self._access.write(request.options, content, decide, context)
        given_up = replacements_of(self._access.view).get(request.coordinator_id)
        far = self.describe_replacement(given_up.record) if given_up else pb.Replacement(step="done", newcomer="voter")
        header = self._access.header(written.revision)
        return pb.ReplaceMemberResponse(header=header, step=far.step, newcomer=far.newcomer, cancelled=request.cancel)

    def _build_replacement(self, request: pb.ReplaceMemberRequest, held: ReplacementRecord | None) -> ReplacementRecord:
        """Return the record to write. Raises NotFound, Conflict for one that lives, Unavailable if that is unclear."""
        now_ms, voters = self._access.clock.wall_ms(), len(self._members.voters())
        if held is not None:  # its member may be removed already
            return ReplacementRecord(
                id=held.id,
                member_id=held.member_id,
                new_id=request.new_coordinator_id,
                voters=held.voters,
                asked_at_ms=now_ms,
            )
        member = self._members.find(request.coordinator_id)
        view = next(view for view in self._members.views() if view.id == member.id)
        if view.registered and not view.linked:
            raise Unavailable(
                f"{request.coordinator_id} does not answer, but its lease has not ended yet", hint="it is tried again"
            )
        if view.alive:
            raise Conflict(
                f"{request.coordinator_id} lives",
                hint=f"`cloudless cluster leave {request.coordinator_id}` lets it go in good order",
            )
        return ReplacementRecord(
            id=request.coordinator_id,
            member_id=member.id,
            new_id=request.new_coordinator_id,
            voters=voters,
            asked_at_ms=now_ms,
        )

    def describe_replacement(self, record: ReplacementRecord) -> pb.Replacement:
        """Return how far a replacement is."""
        joins = joins_of(self._access.view).values()
        seen = Observed(
            members=self._members.views(),
            joins=tuple(
                JoinView(j.record.id, j.record.raft_address, j.create_revision, True, j.record.api_address)
                for j in joins
            ),
        )
        view = ReplacementView(record.id, record.member_id, record.new_id, record.voters)
        return pb.Replacement(
            record=codec.to_message(record, objects_pb2.ReplacementRecord),
            step=next_step(seen, view).value,
            newcomer=find_newcomer(seen, view).value,
        )


def _linked(view: MemberView, linked: bool) -> MemberView:
    return replace(view, linked=linked)


def _check_given(coordinator_id: str) -> None:
    if not coordinator_id:
        raise InvalidSpec([Problem("coordinator_id", "must be given")])


def _check_replacement(request: pb.ReplaceMemberRequest) -> None:
    problems = []
    for field in ("coordinator_id", "new_coordinator_id"):
        value = getattr(request, field)
        optional = field == "new_coordinator_id"
        if not (optional and not value) and not keys.NAME_PATTERN.fullmatch(value):
            problems.append(Problem(field, "must be 1 to 63 of a-z, 0-9, '-' and '.'"))
    if request.cancel and request.new_coordinator_id:
        problems.append(Problem("new_coordinator_id", "has no meaning together with cancel"))
    if problems:
        raise InvalidSpec(problems)


def _check_address(field: str, address: str) -> str:
    try:
        return parse_address(address)
    except ValueError as error:
        raise InvalidSpec([Problem(field, str(error))]) from error


def _check_member(id_field: str, coordinator_id: str, raft_address: str) -> str:
    """Return the raft address in full. Raises InvalidSpec with every fault of the two."""
    problems = []
    if not keys.NAME_PATTERN.fullmatch(coordinator_id):
        problems.append(Problem(id_field, "must be 1 to 63 of a-z, 0-9, '-' and '.'"))
    address = raft_address
    try:
        address = parse_address(raft_address)
    except ValueError as error:
        problems.append(Problem("raft_address", str(error)))
    if problems:
        raise InvalidSpec(problems)
    return address
