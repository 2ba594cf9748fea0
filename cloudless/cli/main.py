"""The program `cloudless` (also installed as `cloudlessctl`): its commands, and how it ends.

Every failure leaves here as a typed error: printed as `error: …`, its problems, `hint: …`, and turned into the
exit code that the one table in `cloudless.errors` gives its class.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, NoReturn

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import build_options
from cloudless.errors import CloudlessError, outcome_of

INTERRUPTED = 130
_EXIT_CODES = """\b
Exit codes:
  0   done
  1   a check failed: digests differ, the drill found a fault, a question was answered with no
  2   the request is wrong: usage, manifest, argument, too large
  3   the cluster cannot answer now: unreachable, no quorum, no space, timed out
  4   not found
  5   conflict: exists already, changed meanwhile, history gone
  6   denied
  7   a node could not run a task
  8   a process cannot start as configured
  9   a backup or a recovery cannot be done: corrupt file, wrong key, directory in use
  10  a rollout failed, was rolled back, or another change took its place
  70  a bug in cloudless or an error this version does not know
  130 interrupted
"""

_COMMANDS = {
    "cluster": ("cloudless.cli.commands.cluster:cluster", "The coordinators: status, members, leader, join, remove."),
    "node": ("cloudless.cli.commands.node:node", "The machines that run tasks: list, cordon, drain, label."),
    "workload": ("cloudless.cli.commands.workload:workload", "What runs: apply, list, scale, explain, logs, delete."),
    "task": ("cloudless.cli.commands.task:task", "Single instances of workloads: list, get, logs, exec."),
    "events": ("cloudless.cli.commands.events:events", "What happened, newest last; --follow goes on."),
    "console": ("cloudless.cli.commands.console:console", "The cluster in a browser: look and act, as yourself."),
    "token": ("cloudless.cli.commands.token:token", "What lets coordinators, agents and people in: create, list."),
    "identity": ("cloudless.cli.commands.identity:identity", "Who was let in: list, revoke."),
    "ca": ("cloudless.cli.commands.ca:ca", "The certificate authorities: status, rotate, rotate-key."),
    "login": ("cloudless.cli.commands.login:login", "Sign in to a cluster with a token, as a person."),
    "logout": ("cloudless.cli.commands.login:logout", "Forget a cluster and your key there."),
    "whoami": ("cloudless.cli.commands.login:whoami", "Who the cluster takes you for."),
    "context": ("cloudless.cli.commands.login:context", "The clusters you work with: list, use, delete."),
    "dev": ("cloudless.cli.dev.commands:dev", "A whole cluster on this machine, to try and to break."),
    "coordinator": ("cloudless.cli.commands.run:coordinator", "Run a coordinator (settings: CLOUDLESS_* variables)."),
    "agent": ("cloudless.cli.commands.run:agent", "Run an agent (settings: CLOUDLESS_* variables)."),
    "version": ("cloudless.cli.commands.version:version", "Print the version."),
    "completion": ("cloudless.cli.commands.completion:completion", "Print shell completion: bash, zsh or fish."),
}
_ALIASES = {
    "nodes": "node", "workloads": "workload", "wl": "workload", "tasks": "task", "event": "events",
    "coordinators": "cluster", "contexts": "context", "tokens": "token", "identities": "identity",
}  # fmt: skip


_VERBS = {
    **dict.fromkeys(
        ("get", "list", "ls", "describe", "apply", "create", "delete", "scale", "explain", "logs"), "workload"
    ),
    "exec": "task",
    **dict.fromkeys(("cordon", "uncordon", "drain", "label"), "node"),
    **dict.fromkeys(("status", "members", "leader"), "cluster"),
    **dict.fromkeys(("up", "down", "start", "kill", "drill"), "dev"),
}
"""What people type first who come from tools where the verb does; and a kind that has it."""


_TRACING = "cloudless.cli.tracing"
"""Imported only by who asks for traces."""


class Program(LazyGroup):
    """The root group: turns failures into messages and exit codes."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        kwargs["standalone_mode"] = False
        code = _run(lambda: super(Program, self).main(*args, **kwargs))
        if _traces():
            importlib.import_module(_TRACING).end_trace()
        sys.exit(code)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if _traces() and not ctx.resilient_parsing:
            begin_trace = importlib.import_module(_TRACING).begin_trace
            inner = command.get_command(ctx, rest[0]) if isinstance(command, click.Group) and rest else None
            ctx.with_resource(begin_trace(" ".join(str(part.name) for part in (command, inner) if part is not None)))
        return name, command, rest

    def _suggestion(self, name: str) -> str:
        if name in _VERBS:
            return f"; the kind comes first, such as `cloudless {_VERBS[name]} {name}`"
        return super()._suggestion(name)


def _traces() -> bool:
    return bool(os.environ.get("CLOUDLESS_OTLP_ENDPOINT"))


def _run(program: Any) -> int:
    try:
        code = program()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("", err=True)
        return INTERRUPTED
    except CloudlessError as error:
        show(error)
        return outcome_of(type(error)).exit_code
    except BrokenPipeError:
        # The reader (`head`, `less`) has gone; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def show(error: CloudlessError) -> None:
    """Print an error for a person: what, each problem on a line of its own, the cure."""
    problems = getattr(error, "problems", ())
    message = error.message
    if problems:
        message = f"refused: {len(problems)} problem{'s' * (len(problems) > 1)}"
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True)
    for problem in problems:
        click.echo(f"  {problem}", err=True)
    if error.hint:
        click.echo(click.style("hint: ", fg="cyan") + error.hint, err=True)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from cloudless import __version__

        click.echo(f"cloudless {__version__}")
        ctx.exit()


def _color(ctx: click.Context) -> bool | None:
    plain = "NO_COLOR" in os.environ or "--no-color" in sys.argv
    return False if plain else None


@click.group(
    cls=Program,
    lazy=_COMMANDS,
    aliases=_ALIASES,
    params=build_options(on_program=True),
    epilog=_EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "auto_envvar_prefix": None},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """A small cluster that keeps running: coordinators that agree, agents that run what they are given.

    Options may also stand after the command. Any coordinator answers any command; if one is away, the next is asked.
    """
    ctx.color = _color(ctx)


def main() -> NoReturn:
    """Run the program with the process's arguments and exit."""
    # Before grpc is imported: no handlers for fork, which we never use, and no chatter of its own on stderr.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    cli.main(prog_name=os.path.basename(sys.argv[0]).removesuffix(".py").replace("main", "cloudless") or "cloudless")


if __name__ == "__main__":
    main()
