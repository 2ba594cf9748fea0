"""The published document is valid, fresh, and says of every path what the table says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openapi_spec_validator import validate

from cloudless.coordinator.httpapi.openapi import build_document
from cloudless.coordinator.httpapi.table import CONDITIONAL, TABLE, Route, Router, build_routes
from cloudless.coordinator.runtime import SERVICES
from cloudless.core.identity.rules import RULES
from cloudless.rpc.json_request import find_field
from tests.architecture.tree import ROOT
from tests.unit.http.serving import serving

ROUTES = build_routes(SERVICES)
DOCUMENT: dict[str, Any] = json.loads(build_document(ROUTES))
OPERATIONS = [one for operations in DOCUMENT["paths"].values() for one in operations.values()]


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)  # type: ignore[arg-type]


def test_the_document_in_docs_is_that_of_today() -> None:
    kept = (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")
    assert kept == build_document(ROUTES), "python -m cloudless.coordinator.httpapi.openapi > docs/openapi.json"


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [one["operationId"] for one in OPERATIONS]
    assert sorted(names) == sorted(set(names))


def test_every_unary_method_that_people_may_call_is_served_and_no_other() -> None:
    served = {route.name for route in ROUTES}
    joining = "cloudless.rpc.v1.ClusterService/JoinRaftCluster"  # for machines, which may have HTTP only
    for name, rule in RULES.items():
        if not name.startswith("cloudless."):
            continue
        method = next(
            (m for s in SERVICES.values() for m in s.methods if f"{s.full_name}/{m.name}" == name), None
        )  # fmt: skip
        if method is None or method.client_streaming or method.server_streaming:
            continue
        assert (name in served) == (rule.people is not None or rule.anyone or name == joining), name


def test_every_read_of_the_command_line_has_a_path_of_its_own() -> None:
    named = {line.method for line in TABLE}
    reads = [route for route in ROUTES if route.method.name.startswith(("Get", "List", "Watch"))]
    assert {route.line.method for route in reads} <= named


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.verb} {route.path}")
def test_a_line_of_the_table_names_fields_that_there_are(route: Route) -> None:
    names = {*route.variables, *route.line.fixed, route.line.raw, route.line.resume[0]} - {""}
    fields = route.method.input_type.fields_by_name
    assert names <= set(fields)
    answer: Any = route.method.output_type
    for name in route.line.revision.split(".") if route.line.revision else ():
        field = find_field(answer, name)
        assert field is not None
        answer = field.message_type
    for name in route.variables:
        assert not fields[name].is_repeated


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.verb} {route.path}")
def test_a_path_leads_to_its_own_line(route: Route) -> None:
    segments = tuple("x" if segment.startswith("{") else segment for segment in route.segments)
    assert Router(ROUTES).find(route.verb, segments)[0] is route


def test_if_match_is_taken_only_where_a_request_has_options() -> None:
    taking = {route.method.name for route in ROUTES if route.conditional}
    assert taking == CONDITIONAL
    assert all(route.takes_id for route in ROUTES if route.conditional)


def test_what_a_person_needs_is_told_for_the_pages_that_offer_it() -> None:
    roles = {one["operationId"]: one["x-role"] for one in OPERATIONS if "x-role" in one}
    assert (roles["listNodes"], roles["scaleWorkload"], roles["createToken"]) == ("viewer", "operator", "admin")
    assert (roles["getCa"], roles["joinRaftCluster"]) == ("anyone", "coordinator")


def test_what_the_protos_say_is_told() -> None:
    assert DOCUMENT["paths"]["/v1/cluster/status"]["get"]["description"].startswith("One look at the whole cluster")
    node = DOCUMENT["components"]["schemas"]["Node"]["properties"]
    assert node["lastHeardS"]["description"].startswith("Seconds since any coordinator heard of it")


async def test_a_coordinator_publishes_it() -> None:
    async with serving() as served:
        status, document, headers = await served.ask("GET", "/openapi.json")
        assert (status, document, headers["Content-Type"]) == (200, DOCUMENT, "application/json; charset=utf-8")
