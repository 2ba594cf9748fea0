"""Find impure Python: what reads the world, what waits, and what depends on the order of a set.

`offences(tree)` walks one module's syntax tree and returns what breaks law 1, with line numbers. It judges what
can be decided from the text of the one module; import-linter sees to imports through other modules.

A set's order differs from process to process, so two coordinators that iterate one may decide differently. An
expression counts as a set when it is written as one (literal, comprehension, `set()`, `frozenset()`, set algebra on
one), or is a name or attribute that this module annotates or assigns as one. Iterating it is fine where order cannot
show: inside `sorted`, `any`, `all`, `len`, `min`/`max` without key, or while building another set.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

BANNED_MODULES = frozenset(
    "asyncio concurrent ctypes fcntl glob http importlib io logging loguru multiprocessing os pathlib queue random"
    " sched secrets select selectors shutil signal socket sqlite3 ssl subprocess sys tempfile threading time urllib"
    " aiohttp click docker cryptography etcd etcd3gw google grpc prometheus_client requests rich yaml".split()
)
BANNED_BUILTINS = frozenset("open print input exec eval compile breakpoint __import__ globals hash id".split())
"""`hash` of a string and `id` of anything differ between processes."""

BANNED_METHODS = {
    "datetime": frozenset("now utcnow today".split()),
    "date": frozenset(["today"]),
    "uuid": frozenset("uuid1 uuid4 getnode".split()),
}
_BANNED_FROM = {("uuid", "uuid1"), ("uuid", "uuid4"), ("uuid", "getnode")}
_SET_BUILTINS = ("set", "frozenset")
_SET_METHODS = frozenset("union intersection difference symmetric_difference".split())
_ORDER_FREE = frozenset("sorted any all len min max set frozenset".split())
_ORDER_BOUND = frozenset("list tuple enumerate iter next map filter zip reversed dict sum".split())
_SET_TYPES = frozenset("set frozenset Set FrozenSet AbstractSet MutableSet".split())


@dataclass(frozen=True, slots=True, order=True)
class Offence:
    line: int
    what: str


def offences(tree: ast.Module) -> list[Offence]:
    """Return everything in `tree` that a pure module must not do, in order of lines."""
    return sorted({*_impure_calls(tree), *_waits(tree), *_SetOrder(tree).find()})


def _impure_calls(tree: ast.Module) -> Iterator[Offence]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for name in names:
                    if name.name.split(".")[0] in BANNED_MODULES:
                        yield Offence(node.lineno, f"imports {name.name}")
            case ast.ImportFrom(module=str(module), names=names, level=0):
                if module.split(".")[0] in BANNED_MODULES:
                    yield Offence(node.lineno, f"imports from {module}")
                for name in names:
                    if (module, name.name) in _BANNED_FROM:
                        yield Offence(node.lineno, f"imports {module}.{name.name}")
            case ast.Call(func=ast.Name(id=name)) if name in BANNED_BUILTINS:
                yield Offence(node.lineno, f"calls {name}()")
            case ast.Attribute(value=ast.Name(id=base) | ast.Attribute(attr=base), attr=attribute):
                if attribute in BANNED_METHODS.get(base, ()):
                    yield Offence(node.lineno, f"uses {base}.{attribute}")


def _waits(tree: ast.Module) -> Iterator[Offence]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield Offence(node.lineno, "is asynchronous")
        if isinstance(node, ast.comprehension) and node.is_async:
            yield Offence(node.iter.lineno, "is asynchronous")


@dataclass
class _SetOrder:
    """Looks for iteration over sets. Names are taken per function, attributes and functions per module."""

    tree: ast.Module
    attributes: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)

    def find(self) -> Iterator[Offence]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef) and _is_set_type(node.returns):
                self.functions.add(node.name)
            if isinstance(node, ast.ClassDef):
                self.attributes |= {
                    s.target.id
                    for s in node.body
                    if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name) and _is_set_type(s.annotation)
                }
        module_names = self._names_in(self.tree, frozenset())
        yield from self._find_in(self.tree, module_names)

    def _find_in(self, scope: ast.AST, names: frozenset[str]) -> Iterator[Offence]:
        order_free: set[ast.AST] = set()
        for node in _walk_scope(scope):
            if isinstance(node, ast.FunctionDef | ast.Lambda) and node is not scope:
                yield from self._find_in(node, self._names_in(node, names))
                continue
            if isinstance(node, ast.Call) and _forgets_order(node):
                order_free.update(argument for argument in node.args if isinstance(argument, ast.GeneratorExp))
            if isinstance(node, ast.SetComp):
                order_free.add(node)
            for iterated in _iterated(node, order_free):
                if self._is_set(iterated, names):
                    yield Offence(iterated.lineno, f"iterates a set in no order: {ast.unparse(iterated)}")

    def _names_in(self, scope: ast.AST, outer: frozenset[str]) -> frozenset[str]:
        """Return the names that hold sets in `scope`; a name of the outer scope assigned anew is judged anew."""
        sets: set[str] = set()
        others: set[str] = set()
        if isinstance(scope, ast.FunctionDef | ast.Lambda):
            arguments = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
            for argument in arguments:
                (sets if _is_set_type(argument.annotation) else others).add(argument.arg)
        known = outer - others | sets
        for node in _walk_scope(scope):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    (sets if self._is_set(value, known | sets) else others).add(name)
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                    (sets if _is_set_type(annotation) else others).add(name)
        return frozenset((outer - others) | (sets - others))

    def _is_set(self, node: ast.AST, names: frozenset[str] | set[str]) -> bool:
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Name(id=name):
                return name in names
            case ast.Attribute(attr=attribute):
                return attribute in self.attributes
            case ast.Call(func=ast.Name(id=name)):
                return name in _SET_BUILTINS or name in self.functions
            case ast.Call(func=ast.Attribute(value=value, attr=method)):
                return method in _SET_METHODS and self._is_set(value, names)
            case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
                return any(self._is_set(side, names) or _is_keys(side) for side in (left, right))
            case ast.IfExp(body=body, orelse=orelse):
                return self._is_set(body, names) or self._is_set(orelse, names)
        return False


def _walk_scope(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of `scope`, parents first; functions inside it are yielded, their bodies are not."""
    queue = list(ast.iter_child_nodes(scope))
    while queue:
        node = queue.pop(0)
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            queue.extend(ast.iter_child_nodes(node))


def _iterated(node: ast.AST, order_free: set[ast.AST]) -> list[ast.expr]:
    match node:
        case ast.For(iter=iterated) | ast.YieldFrom(value=iterated) | ast.Starred(value=iterated):
            return [iterated]
        case ast.ListComp() | ast.DictComp() | ast.GeneratorExp() if node not in order_free:
            return [generator.iter for generator in node.generators]
        case ast.Call(func=ast.Name(id=name), args=args) if name in _ORDER_BOUND:
            return [argument for argument in args if not isinstance(argument, ast.Starred)]
        case ast.Call(func=ast.Name(id="min" | "max"), args=args) if not _forgets_order(node):
            return list(args)
        case ast.Call(func=ast.Attribute(attr="join" | "extend"), args=args):
            return list(args)
    return []


def _forgets_order(call: ast.Call) -> bool:
    """Whether the call's result does not tell in what order it took its arguments.

    `sorted`, `min` and `max` with a key keep the first of equals, so only `sorted` by the values themselves is free.
    """
    if not isinstance(call.func, ast.Name) or call.func.id not in _ORDER_FREE:
        return False
    return not any(keyword.arg == "key" for keyword in call.keywords) or call.func.id == "sorted"


def _is_keys(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("keys", "items")


def _is_set_type(annotation: ast.expr | None) -> bool:
    match annotation:
        case ast.Subscript(value=value):
            return _is_set_type(value)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in _SET_TYPES
    return False
