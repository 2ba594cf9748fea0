"""Who takes part in a dev cluster with TLS: its founders, the person who starts it, its agents.

::

    founding file ─► coordinators start ─► a token for the admin, asked for as coordinator-1 ─► the admin, signed in
      (context `dev`, which commands go to from now on) ─► a token for each agent ─► agents enrol

What exists already stays: a cluster that is started again knows everybody.
"""

from __future__ import annotations

import ssl

from cloudless.adapters.pki.durable import make_private_directory, write_private
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.cli.client import Client
from cloudless.cli.commands.found import write_founding_file
from cloudless.cli.contexts import Context, ContextFile
from cloudless.cli.dev.layout import DEFAULT_STATE_DIR, Layout
from cloudless.cli.methods import CREATE_TOKEN
from cloudless.cli.signing_in import create_first_token, find_credentials, sign_in
from cloudless.errors import NotFound
from cloudless.ports import Credentials
from cloudless.rpc.v1 import identity_pb2, objects_pb2

ADMIN = "admin"
AGENT_TOKEN_TTL_S = 3600


def context_of(layout: Layout) -> Context:
    name = "dev" if layout.state_dir == DEFAULT_STATE_DIR.resolve() else f"dev-{layout.state_dir.name}"
    joining = layout.enrol_addresses if layout.tls else ()
    return Context(name=name, coordinators=layout.api_addresses, join_addresses=joining)


def credentials_of(layout: Layout) -> Credentials | None:
    """Return what the person's commands prove themselves by: as coordinator-1 before there is an admin."""
    if not layout.tls:
        return None
    return find_credentials(ContextFile(layout.admin_dir), context_of(layout)) or _first_coordinator(layout)


def metrics_context(layout: Layout) -> ssl.SSLContext | None:
    """Return the TLS context to read metrics with."""
    if not layout.tls:
        return None
    admin = IdentityDir(ContextFile(layout.admin_dir).identity_path(context_of(layout).name))
    context = ssl.create_default_context(cafile=str(admin.roots_file))
    context.load_cert_chain(admin.identity_file)
    return context


def prepare_founding(layout: Layout) -> None:
    """Make what the coordinators begin with, once."""
    if layout.tls and not layout.founding_file.exists():
        write_founding_file(layout.founding_file)


def make_admin(layout: Layout) -> None:
    """Make the person an admin, once. Raises Unavailable while the cluster has no authorities yet."""
    file, context = ContextFile(layout.admin_dir), context_of(layout)
    if IdentityDir(file.identity_path(context.name)).load() is not None:
        return
    coordinator = _first_coordinator(layout)
    if coordinator is None:
        raise NotFound("coordinator-1 has no identity", hint="look at its log")
    sign_in(file, context, create_first_token(context, coordinator, ADMIN), ADMIN)


def make_tokens(layout: Layout) -> None:
    """Write a token for every agent that has no identity yet."""
    waiting = [plan.name for plan in layout.agents if not (layout.data_dir(plan.name) / "identity").exists()]
    with Client(layout.api_addresses, credentials=credentials_of(layout)) as client:
        for name in waiting:
            request = identity_pb2.CreateTokenRequest(
                role=objects_pb2.Role.ROLE_AGENT, ttl_s=AGENT_TOKEN_TTL_S, names=[name], description="dev up"
            )
            file = layout.token_file(name)
            make_private_directory(file.parent)
            write_private(file, client.call(CREATE_TOKEN, request).token.encode())


def keep_context(layout: Layout) -> None:
    """Make the cluster the one that commands go to, as its admin if it has one."""
    file, context = ContextFile(), context_of(layout)
    if layout.tls:
        admin = ContextFile(layout.admin_dir)
        context = admin.load().get(context.name)
        file.share_identity(context.name, admin.identity_path(context.name))
    file.save(file.load().with_context(context, current=True))


def forget_context(layout: Layout) -> None:
    """Forget the context of a cluster that is deleted."""
    file, context = ContextFile(), context_of(layout)
    known = file.load().contexts.get(context.name)
    if known is not None and known.coordinators == layout.api_addresses:
        file.forget(context.name)


def _first_coordinator(layout: Layout) -> Credentials | None:
    return IdentityDir(layout.data_dir(layout.coordinators[0].name) / "identity").load()
