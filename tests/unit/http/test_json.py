"""Messages as JSON and back: nothing is lost on the way, and an answer in pieces is the answer in one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from cloudless.core.model import NodeInfo, NodeSpec, Taint, TaintEffect, WorkloadRecord
from cloudless.errors import InvalidSpec
from cloudless.rpc import codec, json_answer
from cloudless.rpc.comments import find_comments, load_comments
from cloudless.rpc.json_answer import to_values, write_answer
from cloudless.rpc.json_request import DEPTH_MAX, PROBLEMS_MAX, fill, load_object, read_texts
from cloudless.rpc.packed import Packed
from cloudless.rpc.v1 import cluster_pb2, event_pb2, identity_pb2, node_pb2, objects_pb2, workload_pb2
from cloudless.testing.builders import build_node, build_workload

NODE = build_node("n1")
WORKLOAD = build_workload("web")


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (WORKLOAD, objects_pb2.WorkloadRecord),
        (NODE, objects_pb2.NodeInfo),
        (NodeSpec(taints=(Taint(key="a", effect=TaintEffect.NO_EXECUTE),), labels={"x": "ü\n"}), objects_pb2.NodeSpec),
    ],
)
def test_a_record_comes_back_as_it_went(record: WorkloadRecord | NodeInfo | NodeSpec, kind: Any) -> None:
    message = codec.to_message(record, kind)
    for names_as_in_proto in (False, True):
        values = json_format.MessageToDict(message, preserving_proto_field_name=names_as_in_proto)
        back = kind()
        fill(back, json.loads(json.dumps(values)))
        assert back == message


async def test_an_answer_written_entry_by_entry_is_the_whole_answer() -> None:
    nodes = [node_pb2.Node(id=f"n{number}", tasks_live=number) for number in range(3)]
    rest = node_pb2.ListNodesResponse(next_token='"\\')
    rest.header.revision = 1 << 60
    packed = Packed(rest, [node_pb2.ListNodesResponse(nodes=[node]).SerializeToString() for node in nodes])
    assert json.loads(await write_answer(packed)) == to_values(packed.whole())
    assert json.loads(await write_answer(packed))["header"]["revision"] == str(1 << 60)
    empty = node_pb2.ListNodesResponse()
    assert json.loads(await write_answer(empty)) == {"nodes": [], "nextToken": ""}
    status = cluster_pb2.GetStatusResponse(problems=["a", "b"], quarantine={"k": "v"}, quota_hours_left=float("nan"))
    assert json.loads(await write_answer(status)) == to_values(status)


async def test_others_have_their_turn_between_the_entries_of_a_long_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_answer, "TURN_S", -1.0)
    answer = node_pb2.ListNodesResponse(nodes=[node_pb2.Node(id="n")] * 100)
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(take_turns())
    assert len(json.loads(await write_answer(answer))["nodes"]) == 100
    other.cancel()
    assert turns == 100


def test_null_says_nothing_and_an_unset_field_stays_unset() -> None:
    request = node_pb2.UpdateNodeRequest()
    fill(request, {"cordoned": None, "draining": False, "setTaints": None, "options": None})
    assert not request.HasField("cordoned")
    assert request.HasField("draining")
    assert not request.HasField("options")


def test_problems_have_an_end_and_so_has_depth() -> None:
    with pytest.raises(InvalidSpec) as refused:
        fill(node_pb2.UpdateNodeRequest(), {f"field{number}": 1 for number in range(1_000)})
    assert len(refused.value.problems) == PROBLEMS_MAX
    nested: dict[str, Any] = {}
    for _ in range(DEPTH_MAX + 5):
        nested = {"read": nested}
    with pytest.raises(InvalidSpec, match=r"read\.read"):
        fill(workload_pb2.GetWorkloadRequest(), nested)
    with pytest.raises(InvalidSpec, match="is not JSON"):
        load_object(b'{"a":' * 50_000)


@pytest.mark.parametrize(
    ("message", "field", "texts", "value"),
    [
        (event_pb2.WatchRequest, "kinds", ["event", "task-observed"], ["event", "task-observed"]),
        (node_pb2.ListNodesRequest, "selector", ["a=b=c", "d="], {"a": "b=c", "d": ""}),
        (workload_pb2.ListTasksRequest, "all", ["TRUE"], True),
        (identity_pb2.CreateTokenRequest, "role", ["viewer"], "ROLE_VIEWER"),
        (identity_pb2.CreateTokenRequest, "role", ["ROLE_VIEWER"], "ROLE_VIEWER"),
        (identity_pb2.RotateCaRequest, "purposes", ["etcd-peers"], ["AUTHORITY_PURPOSE_ETCD_PEERS"]),
    ],
)
def test_texts_of_a_query_stand_for_values(message: Any, field: str, texts: list[str], value: Any) -> None:
    assert read_texts(message.DESCRIPTOR.fields_by_name[field], texts) == value


def test_comments_are_kept_by_full_name() -> None:
    file = FileDescriptorProto(package="p")
    file.message_type.add(name="M").field.add(name="f")
    file.source_code_info.location.add(path=[4, 0], leading_comments=" A\n message. \n")
    file.source_code_info.location.add(path=[4, 0, 2, 0], trailing_comments=" Its field.")
    file.source_code_info.location.add(path=[12], leading_comments="the syntax")
    assert find_comments(FileDescriptorSet(file=[file])) == {"p.M": "A message.", "p.M.f": "Its field."}
    assert load_comments()["cloudless.rpc.v1.WriteOptions.if_revision"].startswith("Only if the object is still")
