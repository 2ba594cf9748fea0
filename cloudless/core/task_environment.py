"""What every task finds in its environment, whatever runs it: its own variables, who it is, and its ports by name.

`$(CLOUDLESS_PORT_<NAME>)` in a command, an argument or a variable is replaced by the port's number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cloudless.errors import Permanent

TASK_ID_VARIABLE = "CLOUDLESS_TASK_ID"

_REFERENCE = re.compile(r"\$\((CLOUDLESS_PORT_[A-Za-z0-9_]+)\)")


def port_variable(name: str) -> str:
    """Return the variable that carries the port called `name`."""
    return "CLOUDLESS_PORT_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def port_variables(ports: Mapping[str, int]) -> dict[str, str]:
    """Return the variables that carry `ports`, as text."""
    return {port_variable(name): str(number) for name, number in ports.items()}


def fill_ports(text: str, variables: Mapping[str, str]) -> str:
    """Return `text` with references to ports replaced. Raises Permanent for one that names no port."""

    def port_of(match: re.Match[str]) -> str:
        number = variables.get(match[1].upper())
        if number is None:
            known = ", ".join(sorted(variables)) or "none"
            raise Permanent(f"$({match[1]}) names no port of the task", hint=f"its ports: {known}")
        return number

    return _REFERENCE.sub(port_of, text)


def build_variables(
    task_id: str, own: Mapping[str, str], node: Mapping[str, str], ports: Mapping[str, int]
) -> dict[str, str]:
    """Return the variables of a task: its `own`, and over them what the `node` says of it, its ports and its id.

    The task's own come first, so that they cannot pretend another identity. Raises Permanent for what no process
    can be given.
    """
    variables = port_variables(ports)
    filled = {name: fill_ports(value, variables) for name, value in own.items()}
    environment = {**filled, **node, **variables, TASK_ID_VARIABLE: task_id}
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise Permanent(f"the environment variable {name!r} cannot be passed to a process")
    return environment
