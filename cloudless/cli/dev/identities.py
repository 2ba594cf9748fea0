"""Who takes part in a dev cluster with TLS: its founders, the person who starts it, its agents.

::

    founding file ─► coordinators start ─► a token for the admin, asked for as coordinator-1 ─► the admin
      ─► a token for each agent ─► agents enrol ─► the context `dev`, which commands are for from now on

What exists already stays: a cluster that is started again knows everybody.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.cli.client import Client
from cloudless.cli.commands.found import write_founding_file
from cloudless.cli.contexts import Context, contexts_file, read_contexts, write_contexts
from cloudless.cli.dev.layout import DEFAULT_STATE_DIR, Layout
from cloudless.cli.identity import create_first_token, load_fresh, log_in
from cloudless.cli.methods import CREATE_TOKEN
from cloudless.errors import NotFound
from cloudless.ports import Credentials
from cloudless.rpc.v1 import identity_pb2, objects_pb2

ADMIN = "admin"
AGENT_TOKEN_TTL_S = 3600


def context_of(layout: Layout) -> Context:
    return Context(layout.api_addresses, layout.admin_dir if layout.tls else None, layout.enrol_addresses)


def credentials_of(layout: Layout) -> Credentials | None:
    """Return what the person's commands prove themselves by: as coordinator-1 before there is an admin."""
    if not layout.tls:
        return None
    if IdentityDir(layout.admin_dir).load() is not None:
        return load_fresh(context_of(layout), layout.admin_dir)
    return _first_coordinator(layout)


def metrics_context(layout: Layout) -> ssl.SSLContext | None:
    """Return the TLS context to read metrics with."""
    if not layout.tls:
        return None
    admin = IdentityDir(layout.admin_dir)
    context = ssl.create_default_context(cafile=str(admin.roots_file))
    context.load_cert_chain(admin.identity_file)
    return context


def prepare_founding(layout: Layout) -> None:
    """Make what the coordinators begin with, once."""
    if layout.tls and not layout.founding_file.exists():
        write_founding_file(layout.founding_file)


def make_admin(layout: Layout) -> None:
    """Make the person an admin, once. Raises Unavailable while the cluster has no authorities yet."""
    if IdentityDir(layout.admin_dir).load() is None:
        coordinator = _first_coordinator(layout)
        if coordinator is None:
            raise NotFound("coordinator-1 has no identity", hint="look at its log")
        context = context_of(layout)
        log_in(context, layout.admin_dir, create_first_token(context, coordinator, ADMIN), ADMIN)


def make_tokens(layout: Layout) -> None:
    """Write a token for every agent that has no identity yet."""
    waiting = [plan.name for plan in layout.agents if not (layout.data_dir(plan.name) / "identity").exists()]
    with Client(layout.api_addresses, credentials=credentials_of(layout)) as client:
        for name in waiting:
            request = identity_pb2.CreateTokenRequest(
                role=objects_pb2.Role.ROLE_AGENT, ttl_s=AGENT_TOKEN_TTL_S, names=[name], description="dev up"
            )
            _write_private(layout.token_file(name), client.call(CREATE_TOKEN, request).token)


def keep_context(layout: Layout) -> str:
    """Make the cluster the one that commands are for; return the context's name."""
    file, name = contexts_file(os.environ), _context_name(layout)
    write_contexts(file, read_contexts(file).with_context(name, context_of(layout), use=True))
    return name


def forget_context(layout: Layout) -> None:
    """Forget the context of a cluster that is deleted."""
    file, name = contexts_file(os.environ), _context_name(layout)
    contexts = read_contexts(file)
    known = contexts.known.get(name)
    if known is not None and known.coordinators == layout.api_addresses:
        write_contexts(file, contexts.without(name))


def _context_name(layout: Layout) -> str:
    return "dev" if layout.state_dir == DEFAULT_STATE_DIR.resolve() else f"dev-{layout.state_dir.name}"


def _first_coordinator(layout: Layout) -> Credentials | None:
    return IdentityDir(layout.data_dir(layout.coordinators[0].name) / "identity").load()


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(text + "\n")
