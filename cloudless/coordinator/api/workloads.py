"""WorkloadService: apply, list, get, scale, delete, explain; logs are in `logs`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cloudless.adapters.yaml_documents import dump_yaml, load_documents
from cloudless.coordinator.api.access import (
    Access,
    Decided,
    check_revision,
    deadline_s,
    not_found,
    paginate,
    read_selector,
    with_puts,
)
from cloudless.coordinator.api.planning import Wanted, plan_manifests, to_diagnosis
from cloudless.coordinator.api.workload_messages import WorkloadMessages
from cloudless.core import keys
from cloudless.core.manifest import WorkloadManifest, diff_fields, parse_manifests, to_manifest
from cloudless.core.model import WorkloadMode, WorkloadRecord
from cloudless.core.orchestration import SpecChange, change_spec, explain_workload
from cloudless.core.plan import Change, Precondition, PutRecord
from cloudless.core.state import View, Workload
from cloudless.errors import Conflict, InvalidSpec, NotFound, Problem
from cloudless.rpc.packed import Packed
from cloudless.rpc.v1 import workload_pb2 as pb

REPLICAS_MAX = 10_000


class Workloads:
    """Everything WorkloadService does but logs."""

    def __init__(self, access: Access) -> None:
        self._access, self._messages = access, WorkloadMessages(access.replica)

    # --- reads ---

    async def ListWorkloads(self, request: pb.ListWorkloadsRequest, context: Any) -> Packed:
        wanted, selector = request.namespace, read_selector(request.selector)  # once: a message's field is slow to read
        view = await self._access.settle(request.read, context)
        found = {
            f"{namespace}/{name}": workload
            for (namespace, name), workload in view.workloads.items()
            if wanted in ("", namespace) and (not selector or selector.items() <= workload.record.labels.items())
        }
        page, token = paginate(list(found), request.page_token, request.limit)
        rest = pb.ListWorkloadsResponse(header=self._access.header(), next_token=token)
        return Packed(rest, self._messages.entries_of(found[name] for name in page))

    async def GetWorkload(self, request: pb.GetWorkloadRequest, context: Any) -> pb.GetWorkloadResponse:
        view = await self._access.settle(request.read, context)
        workload = find_workload(view, request.namespace, request.name)
        return pb.GetWorkloadResponse(
            header=self._access.header(),
            workload=self._messages.of(workload),
            manifest=dump_yaml(to_manifest(workload.record)) if request.with_manifest else "",
        )

    async def ExplainWorkload(self, request: pb.ExplainWorkloadRequest, context: Any) -> pb.ExplainWorkloadResponse:
        view = await self._access.settle(request.read, context)
        workload = find_workload(view, request.namespace, request.name)
        namespace, name = workload.record.namespace, workload.record.name
        explained = explain_workload(view, namespace, name, self._access.clock.wall_ms())
        return pb.ExplainWorkloadResponse(
            header=self._access.header(),
            workload=self._messages.of(workload),
            verdict="\n".join(explained.lines),
            unplaced=[to_diagnosis(slot, diagnosis) for diagnosis, slots in explained.unplaced for slot in slots],
            waiting=list(explained.waiting),
        )

    async def PlanWorkload(self, request: pb.PlanWorkloadRequest, context: Any) -> pb.PlanWorkloadResponse:
        manifests = parse_manifests(load_documents(request.manifest))
        view = await self._access.settle(request.read, context)
        wanted = []
        for manifest in manifests:
            _refuse_unreadable(view, manifest)
            held = view.workloads.get((manifest.namespace, manifest.name))
            changed, result = self._apply_one(view, held, manifest)
            wanted.append(Wanted(manifest, held, changed or _unchanged(held), result["action"]))
        planned = plan_manifests(view, wanted, self._access.clock.wall_ms())
        return pb.PlanWorkloadResponse(header=self._access.header(), workloads=planned)

    # --- writes ---

    async def ApplyWorkload(self, request: pb.ApplyWorkloadRequest, context: Any) -> pb.ApplyWorkloadResponse:
        manifests = parse_manifests(load_documents(request.manifest))
        if request.options.if_revision and len(manifests) > 1:
            raise InvalidSpec([Problem("options.if_revision", "goes with a manifest of one document only")])

        def decide(view: View) -> Decided:
            return self._decide_apply(view, manifests, request)

        if request.dry_run:
            await self._access.replica.linearize(timeout_s=deadline_s(context))
            answer, revision = decide(self._access.view).answer, 0
        else:
            content = b"apply\0" + request.manifest.encode() + str(request.options.if_revision).encode()
            written = await self._access.write(request.options, content, decide, context)
            answer, revision = written.answer, written.revision
        results = [
            pb.ApplyResult(**{**result, "revision": result["revision"] or revision}) for result in answer["results"]
        ]
        return pb.ApplyWorkloadResponse(header=self._access.header(revision), results=results)

    def _decide_apply(
        self, view: View, manifests: tuple[WorkloadManifest, ...], request: pb.ApplyWorkloadRequest
    ) -> Decided:
        puts, preconditions, results = [], [], []
        deletes: list[str] = []
        for manifest in manifests:
            _refuse_unreadable(view, manifest)
            held = view.workloads.get((manifest.namespace, manifest.name))
            check_revision(held.mod_revision if held else 0, request.options, f"workload {manifest.name}")
            changed, result = self._apply_one(view, held, manifest)
            results.append(result)
            if changed is None:
                continue
            record = changed.record
            key = keys.workload(manifest.namespace, manifest.name)
            puts += [PutRecord(key, record), *changed.puts]
            deletes += changed.deletes
            preconditions.append(Precondition(key, held.mod_revision if held else 0))
            subject = f"workload/{manifest.namespace}/{manifest.name}"
            what = f"{result['action']} as generation {record.generation}"
            puts.append(self._access.event("WorkloadApplied", subject, what))
        if not preconditions:
            return Decided(None, {"results": results})
        change = Change(puts=tuple(puts), deletes=tuple(deletes), preconditions=tuple(preconditions), reason="apply")
        return Decided(change, {"results": results})

    def _apply_one(
        self, view: View, held: Workload | None, manifest: WorkloadManifest
    ) -> tuple[SpecChange | None, dict[str, Any]]:
        now_ms = self._access.clock.wall_ms()
        before = held.record if held else None
        if before is not None and before.deleted_at_ms:
            raise Conflict(f"workload {manifest.name} is being deleted", hint="wait until it is gone, then apply again")
        if before is None:
            record = WorkloadRecord(
                namespace=manifest.namespace,
                name=manifest.name,
                uid=self._access.ids.new(),
                spec=manifest.spec,
                labels=dict(manifest.labels),
                annotations=dict(manifest.annotations),
                created_at_ms=now_ms,
                updated_at_ms=now_ms,
            )
            return SpecChange(record), _apply_result(record, "created", 0, ())
        fields = diff_fields(before.spec, manifest.spec)
        same_meta = dict(before.labels) == dict(manifest.labels) and dict(before.annotations) == dict(
            manifest.annotations
        )
        if not fields and same_meta:
            assert held is not None
            return None, _apply_result(before, "unchanged", held.mod_revision, ())
        changed = change_spec(view, before, manifest.spec, now_ms) if fields else SpecChange(before)
        labels, annotations = dict(manifest.labels), dict(manifest.annotations)
        record = replace(changed.record, labels=labels, annotations=annotations, updated_at_ms=now_ms)
        return replace(changed, record=record), _apply_result(record, "changed", 0, fields)

    async def ScaleWorkload(self, request: pb.ScaleWorkloadRequest, context: Any) -> pb.ScaleWorkloadResponse:
        if not 0 <= request.replicas <= REPLICAS_MAX:
            raise InvalidSpec([Problem("replicas", f"must be a whole number from 0 to {REPLICAS_MAX}")])

        def change_spec(record: WorkloadRecord) -> WorkloadRecord | None:
            if record.spec.mode is WorkloadMode.PER_NODE:
                what = f"workload {record.name} runs one task on each node that fits: it has no replicas to set"
                raise Conflict(what, hint="placement.nodeSelector says which nodes fit")
            if record.spec.replicas == request.replicas:
                return None
            spec = replace(record.spec, replicas=request.replicas)
            return replace(record, spec=spec, generation=record.generation + 1)

        what = f"scaled to {request.replicas}"
        revision = await self._update(request, context, "WorkloadScaled", what, change_spec)
        workload = find_workload(self._access.view, request.namespace, request.name)
        return pb.ScaleWorkloadResponse(header=self._access.header(revision), workload=self._messages.of(workload))

    async def DeleteWorkload(self, request: pb.DeleteWorkloadRequest, context: Any) -> pb.DeleteWorkloadResponse:
        def mark_deleted(record: WorkloadRecord) -> WorkloadRecord | None:
            return None if record.deleted_at_ms else replace(record, deleted_at_ms=self._access.clock.wall_ms())

        revision = await self._update(request, context, "WorkloadDeleted", "deletion asked for", mark_deleted)
        return pb.DeleteWorkloadResponse(header=self._access.header(revision))

    async def _update(
        self,
        request: pb.ScaleWorkloadRequest | pb.DeleteWorkloadRequest,
        context: Any,
        event_kind: str,
        what: str,
        change_record: Callable[[WorkloadRecord], WorkloadRecord | None],
    ) -> int:
        """Change one workload's record; None from `change_record` means it is so already."""

        def decide(view: View) -> Decided:
            held = find_workload(view, request.namespace, request.name)
            check_revision(held.mod_revision, request.options, f"workload {request.name}")
            record = change_record(held.record)
            if record is None:
                return Decided(None, {})
            record = replace(record, updated_at_ms=self._access.clock.wall_ms())
            key = keys.workload(record.namespace, record.name)
            subject = f"workload/{record.namespace}/{record.name}"
            change = Change(
                puts=(PutRecord(key, record),), preconditions=(Precondition(key, held.mod_revision),), reason=what
            )
            return Decided(with_puts(change, self._access.event(event_kind, subject, what)), {})

        content = json.dumps([event_kind, request.namespace, request.name, what, request.options.if_revision]).encode()
        makes_room = isinstance(request, pb.DeleteWorkloadRequest)
        written = await self._access.write(request.options, content, decide, context, makes_room=makes_room)
        return written.revision


def _unchanged(held: Workload | None) -> SpecChange:
    assert held is not None, "what does not exist is made anew"
    return SpecChange(held.record)


def _refuse_unreadable(view: View, manifest: WorkloadManifest) -> None:
    quarantined = view.quarantined.get(keys.workload(manifest.namespace, manifest.name))
    if quarantined is not None:
        raise Conflict(
            f"the stored record of workload {manifest.name} cannot be read: {quarantined.reason}",
            hint="a newer version may have written it; see cloudless cluster status",
        )


def _apply_result(record: WorkloadRecord, action: str, revision: int, fields: tuple[str, ...]) -> dict[str, Any]:
    return {
        "namespace": record.namespace,
        "name": record.name,
        "action": action,
        "generation": record.generation,
        "revision": revision,
        "changed_fields": list(fields),
    }


def find_workload(view: View, namespace: str, name: str) -> Workload:
    """Return a workload. Raises NotFound, InvalidSpec for a missing name."""
    if not name:
        raise InvalidSpec([Problem("name", "must be given")])
    workload = view.workloads.get((namespace or "default", name))
    if workload is None:
        raise _unreadable(view, namespace or "default", name) or not_found(
            "workload", f"{namespace or 'default'}/{name}"
        )
    return workload


def _unreadable(view: View, namespace: str, name: str) -> NotFound | None:
    key = keys.workload(namespace, name) if keys.NAME_PATTERN.fullmatch(name) else ""
    quarantined = view.quarantined.get(key)
    return NotFound(f"workload {name} cannot be read: {quarantined.reason}") if quarantined else None
