"""Put the HTTP API of a coordinator together from its settings, its services and its door."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from google.protobuf.descriptor import ServiceDescriptor

from cloudless.adapters.grpc.server import Door, Observe
from cloudless.coordinator.health import PAGES
from cloudless.coordinator.httpapi.api import HttpApi, Resolve
from cloudless.coordinator.httpapi.openapi import build_document
from cloudless.coordinator.httpapi.origins import Origins, host_of
from cloudless.coordinator.httpapi.table import Router, build_routes
from cloudless.core.discovery.addresses import split_address
from cloudless.settings import CoordinatorSettings


def build_api(
    settings: CoordinatorSettings,
    services: Mapping[str, ServiceDescriptor],
    resolve: Resolve,
    door: Door,
    observe: Observe,
    find_revision: Callable[[], int],
) -> HttpApi:
    """Return the API; `resolve` finds a method by its service's key in `services`."""
    routes = build_routes(services)
    addresses = (settings.bind_address, settings.advertise_address, settings.http_address)
    own_hosts = [split_address(address)[0] for address in addresses if address]
    own_hosts += [host_of(origin) for origin in settings.http_cors_origins]
    return HttpApi(
        settings.node_id,
        Router(routes),
        resolve,
        door,
        partial(build_document, routes),
        observe=observe,
        origins=Origins(settings.http_cors_origins, own_hosts),
        pages=PAGES,
        find_revision=find_revision,
    )
