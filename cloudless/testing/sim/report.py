"""A run's result in words: what was wrong, under which options, what happened last, and how to see it again."""

from __future__ import annotations

from dataclasses import asdict

from cloudless.testing.sim.options import Options, draw_options
from cloudless.testing.sim.run import Result


def explain(result: Result, *, whole: bool = False) -> list[str]:
    """Return the lines of a report; a good run has few, unless `whole`."""
    options = result.options
    lines = [
        f"seed {options.seed}: {f'{result.checker}: {result.problem}' if result.failed else 'all is well'}",
        f"  {result.virtual_s:.1f} s simulated in {result.real_s:.2f} s, {result.callbacks} callbacks, "
        f"{result.writes} revisions, converged {result.converged_s:.1f} s after healing, trace {result.trace_hash}",
    ]
    if result.failed or whole:
        lines += [f"  {name} = {value}" for name, value in asdict(options).items()]
        lines += ["  the last of what happened:" if not whole else "  what happened:"]
        lines += [f"    {line}" for line in result.trace_tail]
        lines += [f"  again: {rerun_command(options)}"]
    return lines


def rerun_command(options: Options) -> str:
    """Return the command that runs the same again."""
    words = ["scripts/sim", f"--seed {options.seed}"]
    drawn = draw_options(options.seed, size=options.size)
    if options.size != Options(seed=0).size:
        words.append(f"--size {options.size}")
    if options.membership is not None and drawn.membership is None:
        words.append("--members")
    if options.certificates is not None and drawn.certificates is None:
        words.append("--certificates")
    if options.placing is not None and drawn.placing is None:
        words.append("--placing")
    if options.rebalance_after_s and not drawn.rebalance_after_s:
        words.append("--rebalancing")
    if options.membership is None and options.coordinators != drawn.coordinators:
        words.append(f"--coordinators {options.coordinators}")
    return " ".join(words)
