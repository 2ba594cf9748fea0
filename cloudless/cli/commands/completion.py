"""`completion SHELL`: the script that makes a shell complete our commands."""

from __future__ import annotations

import click

_USE = {
    "bash": "source <(cloudless completion bash)      # in ~/.bashrc",
    "zsh": "source <(cloudless completion zsh)       # in ~/.zshrc",
    "fish": "cloudless completion fish | source       # in ~/.config/fish/config.fish",
}


@click.command(epilog="\b\n" + "\n".join(_USE.values()))
@click.argument("shell", type=click.Choice(list(_USE)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL."""
    from click.shell_completion import get_completion_class

    program = ctx.find_root().command
    completer = get_completion_class(shell)
    assert completer is not None
    for name in ("cloudless", "cloudlessctl"):
        variable = f"_{name.upper()}_COMPLETE"
        script = completer(program, {}, name, variable)
        click.echo(script.source_template % script.source_vars())
