"""The options every command takes, before or after its name, and the values they give.

They are kept in one `Options` per invocation (`ctx.obj`): the program's own options fill it first, a
command's overwrite what was given again. Environment variables count only where no option was given.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cloudless.cli.client import Client
    from cloudless.cli.contexts import Context
    from cloudless.ports import Credentials
    from cloudless.rpc.v1.common_pb2 import ReadOptions

DEFAULT_COORDINATORS = ("127.0.0.1:8080", "127.0.0.1:8082", "127.0.0.1:8084")
DEFAULT_TIMEOUT_S = 10.0
FORMATS = ("table", "wide", "json", "yaml", "name")


@dataclass
class Options:
    """What the person asked for. `namespace` "" means: `default` for one object, all for a list."""

    coordinators: tuple[str, ...] = ()
    context: str = ""
    timeout_s: float = DEFAULT_TIMEOUT_S
    output: str = "table"
    consistency: str = ""
    max_staleness_s: float = 0.0
    namespace: str = ""
    color: bool = True

    def client(self) -> Client:
        """Return a client of the coordinators named; the caller closes it (`with`)."""
        from cloudless.cli.client import Client

        return Client(self.addresses(), self.timeout_s, self.credentials())

    def addresses(self) -> tuple[str, ...]:
        """Return the coordinators to ask: those named, else the context's, else those of a cluster on this machine.

        Raises Unavailable if DNS knows none of them.
        """
        from cloudless.cli.seeds import find_addresses

        chosen = self.chosen_context()
        named = self.coordinators or (chosen.coordinators if chosen else DEFAULT_COORDINATORS)
        return find_addresses(named, os.environ)

    def credentials(self) -> Credentials | None:
        """Return what the person proves to be by, None for plain connections. Raises BadCredentials."""
        chosen = self.chosen_context()
        if chosen is None or chosen.identity is None:
            return None
        from cloudless.cli.identity import load_fresh

        return load_fresh(chosen, chosen.identity)

    def chosen_context(self) -> Context | None:
        """Return the context named, else the current one, if there is one. Raises NotFound, BadSettings."""
        from cloudless.cli.contexts import contexts_file, read_contexts

        contexts = read_contexts(contexts_file(os.environ))
        name = self.context or contexts.current
        return contexts.get(name) if name else None

    def read(self) -> ReadOptions:
        """Return how fresh answers must be; unset leaves it to the coordinator (linearizable)."""
        from cloudless.rpc.v1 import common_pb2 as pb

        chosen = {"linearizable": pb.CONSISTENCY_LINEARIZABLE, "stale": pb.CONSISTENCY_STALE}
        if self.consistency == "bounded":
            return pb.ReadOptions(consistency=pb.CONSISTENCY_BOUNDED, max_staleness_s=self.max_staleness_s)
        return pb.ReadOptions(consistency=chosen.get(self.consistency, pb.CONSISTENCY_UNSPECIFIED))

    def target(self, name: str) -> tuple[str, str]:
        """Return (namespace, name) of one object named `name` or `namespace/name`."""
        head, slash, tail = name.rpartition("/")
        return (head, tail) if slash else (self.namespace or "default", name)


def current() -> Options:
    """Return the options of the running command."""
    return click.get_current_context().ensure_object(Options)


def _set(field: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value not in (None, (), False):
            setattr(ctx.ensure_object(Options), field, value)

    return callback


def _set_coordinators(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    if not value:
        return
    from cloudless.core.discovery.seeds import parse_seeds

    try:
        seeds = parse_seeds(",".join(value))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from error
    if seeds:
        ctx.ensure_object(Options).coordinators = tuple(str(seed) for seed in seeds)


def _set_consistency(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    kind, _, seconds = value.partition(":")
    options = ctx.ensure_object(Options)
    if kind == "bounded":
        try:
            options.max_staleness_s = float(seconds or "1")
        except ValueError as error:
            raise click.BadParameter(f"{seconds!r} is no number of seconds", ctx, parameter) from error
    elif kind not in ("linearizable", "stale") or seconds:
        raise click.BadParameter("use linearizable, stale or bounded:SECONDS", ctx, parameter)
    options.consistency = kind


def _set_no_color(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Options).color = False


def build_options(*, on_program: bool) -> list[click.Parameter]:
    """Return the common options. On a command only `-o` is shown, and no environment variable is read again."""
    hidden = not on_program
    envvar = "CLOUDLESS_COORDINATORS" if on_program else None
    return [
        click.Option(
            ["--coordinator", "-c"], multiple=True, envvar=envvar, expose_value=False, callback=_set_coordinators,
            metavar="HOST:PORT,…", hidden=hidden, show_envvar=True,
            help="Coordinators to ask, any of them answers; dns+NAME:PORT and srv+NAME are looked up in DNS. "
            f"Default: the context's, else {','.join(DEFAULT_COORDINATORS)}",
        ),
        click.Option(
            ["--context"], expose_value=False, callback=_set("context"), metavar="NAME", hidden=hidden,
            envvar="CLOUDLESS_CONTEXT" if on_program else None, show_envvar=True,
            help="The cluster meant, see `cloudless context list`. Default: the current one",
        ),
        click.Option(
            ["--timeout"], type=click.FloatRange(min=0.1), expose_value=False, callback=_set("timeout_s"),
            metavar="SECONDS", hidden=hidden,
            help=f"Give up after so long, all attempts together. Default: {DEFAULT_TIMEOUT_S:g}",
        ),
        click.Option(
            ["--output", "-o"], type=click.Choice(FORMATS), expose_value=False, callback=_set("output"),
            help="Form of the answer. Default: table",
        ),
        click.Option(
            ["--consistency"], expose_value=False, callback=_set_consistency, hidden=hidden,
            metavar="linearizable|stale|bounded:SECONDS", help="How fresh reads must be. Default: linearizable",
        ),
        click.Option(
            ["--namespace", "-n"], expose_value=False, callback=_set("namespace"), metavar="NAME", hidden=hidden,
            envvar="CLOUDLESS_NAMESPACE" if on_program else None, show_envvar=True,
            help="Namespace. Default: `default` for one object, all for lists",
        ),
        click.Option(
            ["--no-color"], is_flag=True, expose_value=False, callback=_set_no_color, hidden=hidden,
            help="No colours (also: NO_COLOR)",
        ),
    ]  # fmt: skip


class Command(click.Command):
    """A command that takes the common options after its name too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        taken = {word for parameter in self.params for word in parameter.opts}
        # A command's own option wins over a common one of the same letter.
        self.params += [option for option in build_options(on_program=False) if not taken & set(option.opts)]
