"""`python -m etcd`: print the etcd binary that a coordinator here would run, and why not the others.

Exit code 0 when one is found, 8 (a start that is refused) when none is fit.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from cloudless.errors import outcome_of
from etcd.find import EtcdNotFound, Found, Refusal, Search, find


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    search = Search(
        explicit=options.binary,
        allow_degraded=options.allow_degraded,
        sandbox=options.sandbox,
        may_fetch=not options.offline,
        force_fetch=options.fetch,
    )
    try:
        found = find(search)
    except EtcdNotFound as error:
        sys.stdout.write(_as_json(None, error.refused) + "\n" if options.json else _as_text(error.refused))
        print(f"error: no fit etcd binary\ncure:  {error.hint}", file=sys.stderr)
        return outcome_of(EtcdNotFound).exit_code
    if options.json:
        print(_as_json(found, found.refused))
    else:
        print(_as_text(found.refused) + _chosen(found))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m etcd", description="Find or fetch a fit etcd binary.")
    parser.add_argument("--binary", metavar="PATH", help="judge this binary and no other")
    parser.add_argument("--fetch", action="store_true", help="fetch one even if PATH or the cache has one")
    parser.add_argument("--offline", action="store_true", help="never fetch")
    parser.add_argument("--allow-degraded", action="store_true", help="admit builds with known serious faults")
    parser.add_argument("--sandbox", action="store_true", help="admit anything: for a single node that may lose data")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _as_text(refused: tuple[Refusal, ...]) -> str:
    return "".join(f"passed   {refusal}\n" for refusal in refused)


def _chosen(found: Found) -> str:
    judgement = found.judgement
    return f"chosen   {found.path}\nversion  {found.version}\nverdict  {judgement.verdict.value}: {judgement.reason}"


def _as_json(found: Found | None, refused: tuple[Refusal, ...]) -> str:
    document: dict[str, Any] = {
        "chosen": found
        and {
            "path": str(found.path),
            "version": str(found.version),
            "verdict": found.judgement.verdict.value,
            "reason": found.judgement.reason,
            "source": found.source,
        },
        "refused": [{"source": r.source, "version": r.version and str(r.version), "reason": r.reason} for r in refused],
    }
    return json.dumps(document, indent=2)


if __name__ == "__main__":
    sys.exit(main())
