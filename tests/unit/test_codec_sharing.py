"""Specs that many records share are translated once; what is not shared costs no memory."""

from dataclasses import replace

from cloudless.core import keys
from cloudless.core.model import TaskDesired
from cloudless.rpc.codec import decode_record, encode_record
from cloudless.testing.builders import build_task_template

KEY = keys.parse(keys.task_desired("t1"))
DESIRED = TaskDesired(
    id="t1", namespace="default", workload="web", workload_uid="u", task_generation=1, slot=0, node_id="n1",
    spec=build_task_template(),
)  # fmt: skip


def test_equal_specs_of_two_records_are_one_value_in_memory() -> None:
    assert KEY is not None
    first, second = (decode_record(KEY, encode_record(replace(DESIRED, node_id=node))) for node in ("n1", "n2"))
    assert isinstance(first, TaskDesired)
    assert isinstance(second, TaskDesired)
    assert first.spec is second.spec
    assert first.spec == DESIRED.spec


def test_a_changed_spec_is_never_taken_for_the_one_before() -> None:
    assert KEY is not None
    for count in range(3_000):  # more than are remembered
        changed = replace(DESIRED, spec=build_task_template(command=("run", str(count))))
        assert decode_record(KEY, encode_record(changed)) == changed


def test_a_large_spec_is_translated_each_time() -> None:
    assert KEY is not None
    large = replace(DESIRED, spec=build_task_template(command=("x" * 10_000,)))
    first, second = decode_record(KEY, encode_record(large)), decode_record(KEY, encode_record(large))
    assert isinstance(first, TaskDesired)
    assert isinstance(second, TaskDesired)
    assert first == second == large
    assert first.spec is not second.spec
