"""Bounds on a caller's JSON Schema, and an estimate of what it costs to compile it and to validate with it.

The schema is read once, and nothing is compiled. It becomes a graph of its subschemas: an edge *in place* leads to one
that looks at the same value (``anyOf``, ``$ref``), an edge *below* to one that looks at a part of it (``items``). How
often a value may be looked at is the number of ways through the graph, so a chain of doubled unions is seen to be
exponential without being unfolded.
"""

import re
from collections import deque
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from protocol.errors import FieldError, InvalidRequest
from protocol.json.pattern_cost import is_fancy, pattern_cost

_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf"})  # in place
_ONES: Final = frozenset({"not", "if", "then", "else"})  # in place
_BELOW: Final = frozenset(
    {"items", "prefixItems", "additionalItems", "contains", "additionalProperties", "propertyNames"}
)
_UNEVALUATED: Final = frozenset({"unevaluatedItems", "unevaluatedProperties"})
_DEFINITIONS: Final = frozenset({"$defs", "definitions"})
_MAPS: Final = frozenset({*_DEFINITIONS, "patternProperties", "dependentSchemas", "dependencies"})
_DYNAMIC: Final = frozenset({"$dynamicRef", "$recursiveRef"})
_NAMES: Final = frozenset({"$id", "id"})  # of a document within the document, which changes what references mean

_KINDS: Final = 7  # the types that there are
_PASSES: Final = 4  # over a graph with cycles
_PLAIN_OPTIONS: Final = 16  # of an enum that take as long as one step
_OBJECT_OPTION: Final = 8  # steps for each value of an enum that has arrays or objects
_UNIQUE: Final = 16  # steps for an item that has to be unique
_FORMAT: Final = 8  # as large as a pattern of this size
_COMPILE_SUBSCHEMA: Final = 5.0  # microseconds
_COMPILE_VALUE: Final = 0.6  # microseconds
_COMPILE_PATTERN: Final = 80.0  # microseconds
_COMPILE_UNIT: Final = 0.5  # microseconds for each unit of a pattern's size


class SchemaLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds on the schemas of one request, all of them together.

    Attributes:
        bytes: of their JSON.
        depth: levels of JSON within each other.
        subschemas: schemas within the schemas.
        values: JSON values, such as those of an ``enum``.
        references: uses of ``$ref``.
        breadth: the members of one ``anyOf``, ``oneOf`` or ``allOf``.
        patterns: regular expressions.
        pattern_size: what ``pattern_cost`` says for all patterns together.
        steps: subschemas and members of them that may look at one value.
    """

    bytes: int = 512 * 1024
    depth: int = 64
    subschemas: int = 10_000
    values: int = 60_000
    references: int = 5_000
    breadth: int = 1_000
    patterns: int = 1_000
    pattern_size: int = 1_000_000
    steps: int = 100_000


class SchemaCost(msgspec.Struct, frozen=True, kw_only=True):
    """What a schema costs.

    Attributes:
        bytes: of its JSON.
        subschemas: that it consists of.
        compile_us: about how many microseconds it takes to compile.
        steps: the most subschemas, and members of them, that look at one value of an answer.
        scan: the size of all patterns and formats that look at one text of an answer.
        growing: whether ``steps`` is no bound, as it may grow with the depth of the answer, or a reference is unknown.
        fancy: whether a pattern looks around or back, which is not linear in the text.
    """

    bytes: int
    subschemas: int
    compile_us: int
    steps: int
    scan: int
    growing: bool
    fancy: bool


class _Node:
    """A subschema: what it costs by itself, and where its edges lead."""

    __slots__ = ("below", "here", "inner", "named", "own", "placed", "scan")

    def __init__(self) -> None:
        self.own = 1  # steps
        self.scan = 0  # size of patterns
        self.placed: list[int] = []  # nodes that look at the same value
        self.inner: list[int] = []  # at any part of it
        self.named: list[int] = []  # at one part each
        self.here = 0  # all that looks at the value
        self.below = 0  # the most that looks at one value within it

    @property
    def most(self) -> int:
        return max(self.here, self.below)


class SchemaMeter:
    """Measures the schemas of one request, and refuses what is beyond the bounds.

    Args:
        limits: the bounds.

    Attributes:
        visited: JSON values that were read so far.
    """

    __slots__ = ("_bytes", "_limits", "_pattern_size", "_patterns", "_references", "_subschemas", "visited")

    def __init__(self, limits: SchemaLimits | None = None) -> None:
        self._limits = limits or DEFAULT_LIMITS
        self._bytes = 0
        self._patterns = 0
        self._pattern_size = 0
        self._references = 0
        self._subschemas = 0
        self.visited = 0

    def measure(self, schema: Any, size: int, path: str = "$.schema") -> SchemaCost:  # noqa: ANN401 - any JSON
        """Return what ``schema`` costs; it counts towards the bounds.

        Args:
            schema: the schema.
            size: the bytes of its JSON.
            path: the field's, for the error.

        Raises:
            InvalidRequest: ``schema_too_complex``: a bound is passed, and the detail names it; ``invalid_schema`` for a
                ``type`` that names one kind twice.
        """
        self._add_bytes(path, size)
        self.visit(path, schema)
        return _Reading(self, self._limits, schema, path).cost(size)

    def add(self, cost: SchemaCost, path: str) -> None:
        """Count a schema that has been measured before."""
        self._add_bytes(path, cost.bytes)
        self.count(path, subschemas=cost.subschemas)

    def _add_bytes(self, path: str, size: int) -> None:
        self._bytes += size
        if self._bytes > self._limits.bytes:
            raise _too_complex(path, f"the schemas have more than {self._limits.bytes} bytes")

    def count(self, path: str, *, subschemas: int = 0, references: int = 0, pattern_size: int = 0) -> None:
        """Count some of what is bounded; a pattern has a size above 0."""
        limits = self._limits
        self._subschemas += subschemas
        self._references += references
        self._pattern_size += pattern_size
        self._patterns += pattern_size > 0
        if self._subschemas > limits.subschemas:
            raise _too_complex(path, f"there are more than {limits.subschemas} subschemas")
        if self._references > limits.references:
            raise _too_complex(path, f"there are more than {limits.references} references")
        if self._patterns > limits.patterns:
            raise _too_complex(path, f"there are more than {limits.patterns} patterns")
        if self._pattern_size > limits.pattern_size:
            raise _too_complex(path, "the patterns are too large: use smaller counts of repetition, or fewer of them")

    def check_breadth(self, path: str, members: int) -> None:
        """Check the number of members of one union."""
        if members > self._limits.breadth:
            raise _too_complex(path, f"a union has more than {self._limits.breadth} members")

    def check_steps(self, path: str, steps: int) -> None:
        """Check how many subschemas look at one value."""
        if steps > self._limits.steps:
            raise _too_complex(path, "its unions and references multiply: one value has too many ways to match")

    def visit(self, path: str, schema: Any) -> None:  # noqa: ANN401 - any JSON
        """Count the JSON values of a schema, level by level, and check their number and depth."""
        limits, level, depth = self._limits, [schema], 0
        while level:
            depth += 1
            self.visited += len(level)
            if self.visited > limits.values:
                raise _too_complex(path, f"the schemas have more than {limits.values} values")
            if depth > limits.depth:
                raise _too_complex(path, f"it is nested deeper than {limits.depth} levels")
            below: list[Any] = []
            for item in level:
                if isinstance(item, dict):
                    below += item.values()
                elif isinstance(item, list):
                    below += item
            level = below


DEFAULT_LIMITS: Final = SchemaLimits()


class _Reading:
    """The reading of one schema, whose values have been counted."""

    __slots__ = (
        "_compile",
        "_fancy",
        "_limits",
        "_meter",
        "_nodes",
        "_numbers",
        "_path",
        "_root",
        "_unknown",
        "_unread",
    )

    def __init__(self, meter: SchemaMeter, limits: SchemaLimits, schema: Any, path: str) -> None:  # noqa: ANN401
        self._meter = meter
        self._limits = limits
        self._path = path
        self._root = schema
        self._nodes: list[_Node] = []
        self._numbers: dict[int, int] = {}  # of nodes, by the identity of the dict
        self._unread: list[tuple[_Node, dict[str, Any]]] = []
        self._compile = 0.0  # microseconds
        self._fancy = False
        self._unknown = False

    def cost(self, size: int) -> SchemaCost:
        """Read the schema and return its cost."""
        self._node(self._root)
        while self._unread:
            self._read(*self._unread.pop())
        order, recursive = self._order()
        steps, settled = self._most(order, [node.own for node in self._nodes], recursive=recursive)
        if settled:
            self._meter.check_steps(self._path, steps)
        scans = [node.scan for node in self._nodes]
        return SchemaCost(
            bytes=size,
            subschemas=len(self._nodes),
            compile_us=round(self._compile),
            steps=steps,
            scan=self._most(order, scans, recursive=recursive)[0] if any(scans) else 0,
            growing=self._unknown or not settled,
            fancy=self._fancy,
        )

    def _node(self, schema: Any) -> int:  # noqa: ANN401 - any JSON
        """Return the number of a subschema's node."""
        number = self._numbers.get(id(schema))
        if number is not None:
            return number
        node = _Node()
        self._nodes.append(node)
        self._meter.count(self._path, subschemas=1)
        self._compile += _COMPILE_SUBSCHEMA
        if isinstance(schema, dict):
            self._numbers[id(schema)] = len(self._nodes) - 1
            self._unread.append((node, schema))
        return len(self._nodes) - 1

    def _read(self, node: _Node, schema: dict[str, Any]) -> None:
        """Read the members of a subschema."""
        node.own += len(schema)
        for key, part in schema.items():
            if key in _LISTS and isinstance(part, list):
                self._meter.check_breadth(self._path, len(part))
                node.placed += map(self._node, part)
            elif key in _ONES:
                node.placed.append(self._node(part))
            elif key == "$ref":
                self._refer(node, part)
            elif key == "properties" and isinstance(part, dict):
                node.named += map(self._node, part.values())
            elif key in _BELOW:
                if isinstance(part, list):
                    node.named += map(self._node, part)
                else:
                    node.inner.append(self._node(part))
            else:
                self._read_other(node, key, part, root=schema is self._root)

    def _read_other(self, node: _Node, key: str, part: Any, *, root: bool) -> None:  # noqa: ANN401 - any JSON
        """Read a less frequent member."""
        if key in _DYNAMIC or (key in _NAMES and not root):
            self._unknown = True
        elif key in _UNEVALUATED:
            self._unknown = True
            node.inner.append(self._node(part))
        elif key == "pattern" and isinstance(part, str):
            node.scan += self._pattern(part)
        elif key == "format":
            node.scan += _FORMAT
        elif key == "uniqueItems":
            node.own += _UNIQUE
        elif key == "type" and isinstance(part, list):
            self._check_kinds(part)
        elif key in _MAPS:
            self._map(node, key, part)
        elif isinstance(part, list | dict):
            self._count_values(node, key, part)

    def _map(self, node: _Node, key: str, part: Any) -> None:  # noqa: ANN401 - any JSON
        """Read a map of names to subschemas."""
        if not isinstance(part, dict):
            return
        members = map(self._node, part.values())
        if key == "patternProperties":
            node.scan += sum(map(self._pattern, part))
            node.own += len(part)
            node.inner += members
        elif key in _DEFINITIONS:
            deque(members, maxlen=0)
        else:
            node.placed += members

    def _count_values(self, node: _Node, key: str, part: list[Any] | dict[str, Any]) -> None:
        """Count what a member of plain values costs, such as ``enum`` and ``required``."""
        plain = nested = 0
        left: list[Any] = [part]
        while left:
            item = left.pop()
            if isinstance(item, dict | list):
                nested += 1
                left += item.values() if isinstance(item, dict) else item
            else:
                plain += 1
        self._compile += plain * _COMPILE_VALUE + nested * _COMPILE_SUBSCHEMA
        if key == "enum" and nested == 1:
            node.own += plain // _PLAIN_OPTIONS
        elif key in ("enum", "const"):
            node.own += (plain + nested) * _OBJECT_OPTION
        else:
            node.own += plain

    def _check_kinds(self, kinds: list[Any]) -> None:
        if len(kinds) > _KINDS or len(kinds) != len({kind for kind in kinds if isinstance(kind, str)}):
            fault = FieldError(f"{self._path}", "a list of types must name different ones")
            raise InvalidRequest(code="invalid_schema", errors=(fault,))

    def _pattern(self, pattern: str) -> int:
        size = pattern_cost(pattern)
        self._meter.count(self._path, pattern_size=size + 1)
        self._compile += _COMPILE_PATTERN + size * _COMPILE_UNIT
        self._fancy = self._fancy or is_fancy(pattern)
        return size + 1

    def _refer(self, node: _Node, reference: Any) -> None:  # noqa: ANN401 - any JSON
        self._meter.count(self._path, references=1)
        found, target = _resolve(self._root, reference)
        if found:
            node.placed.append(self._node(target))
        else:
            self._unknown = True

    def _most(self, order: list[int], own: list[int], *, recursive: bool) -> tuple[int, bool]:
        """Return the most that looks at one value, and whether that is settled: no answer can have more.

        The nodes come after those that their edges lead to, so one pass is enough. Where the graph has a cycle, the
        passes go on until nothing changes; what still grows then may grow with the depth of the answer.
        """
        nodes, cap = self._nodes, max(self._limits.steps, self._limits.pattern_size) + 1
        for node in nodes:
            node.here = node.below = 0
        for _ in range(_PASSES if recursive else 1):
            changed = False
            for number in order:
                node = nodes[number]
                here, below = own[number], max((nodes[other].most for other in node.named), default=0)
                for other in node.placed:
                    here += nodes[other].here
                    below += nodes[other].below
                for other in node.inner:
                    below += nodes[other].most
                here, below = min(here, cap), min(below, cap)
                changed = changed or here != node.here or below != node.below
                node.here, node.below = here, below
            if not changed:
                break
        return nodes[0].most, not (recursive and changed)

    def _order(self) -> tuple[list[int], bool]:
        """Return the nodes that the root reaches, each after those its edges lead to; and whether there is a cycle."""
        order: list[int] = []
        state = bytearray(len(self._nodes))  # 1: on the way, 2: done
        state[0] = 1
        stack = [(0, self._edges(0))]
        recursive = False
        while stack:
            number, edges = stack[-1]
            for other in edges:
                recursive = recursive or state[other] == 1
                if state[other] == 0:
                    state[other] = 1
                    stack.append((other, self._edges(other)))
                    break
            else:
                state[number] = 2
                order.append(number)
                stack.pop()
        return order, recursive

    def _edges(self, number: int) -> Iterator[int]:
        node = self._nodes[number]
        return iter((*node.placed, *node.inner, *node.named))


def _resolve(root: Any, reference: Any) -> tuple[bool, Any]:  # noqa: ANN401 - any JSON
    """Return whether a reference names a place of this document, and what is there."""
    if reference == "#":
        return True, root
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return False, None
    target = root
    for step in reference[2:].split("/"):
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(target, dict) and name in target:
            target = target[name]
        elif isinstance(target, list) and re.fullmatch(r"\d{1,9}", name, re.ASCII) and int(name) < len(target):
            target = target[int(name)]
        else:
            return False, None
    return True, target


def _too_complex(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"`{path}`: {reason}", code="schema_too_complex", errors=(FieldError(path, reason),))
