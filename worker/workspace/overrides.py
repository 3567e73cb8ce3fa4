"""Renders templates that users and agents write, in a checked subset of Jinja with limits.

They are the overrides in an agent's row, and the templates of layers with the parts that they include.

Such a template is hostile text (rules.md 8): a language model may have written it, and a thread that renders
it cannot be killed. So the parsed template is checked against a list of allowed nodes before it is compiled,
each filter computes the length of its result before making it, and all filters of one rendering share one
budget of work. Size, memory and time are bounded.

Nothing in the subset assigns a name, so a part renders to the same text wherever it is included: each part is
rendered once, and takes the place of its includes as a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from inspect import signature
from traceback import walk_tb
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, nodes, pass_context
from jinja2.filters import do_title
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from worker.errors import PermanentError
from worker.workspace.display_text import clean

INPUT_LIMIT = 64 * 1024
"""The longest source, in bytes of UTF-8."""
OUTPUT_LIMIT = 256 * 1024
"""The longest rendering, in bytes of UTF-8, and the longest text of a filter, in characters."""
PARTS_LIMIT = 256 * 1024
"""The most that a template and all parts it includes may have, in bytes of UTF-8."""
PARTS_DEPTH = 5
"""How many includes may stand one inside the other."""

PARTS = "parts/"
"""What the names of parts begin with."""

_WORK_LIMIT = 16 * OUTPUT_LIMIT  # characters that all filters of one rendering may read and make
_DEPTH_LIMIT = 40
_NODE_LIMIT = 4_000
_TRIM_LIMIT = 100
_REASON_END = 500  # characters of a refusal at either end: what to do about it stands at its end
_LARGEST_NUMBER = 10**15
_AS_TEXT = (
    " (to have {{ or {% in the text itself, as in GitHub Actions, Handlebars or Prometheus, put {% raw %}"
    " before it and {% endraw %} after it, or "
)
_PART = "part_"  # names of the values that stand for includes; a template that names one itself is refused
_WORK = "\0work"  # a name that no template can contain
_COMPARISONS = frozenset({"eq", "ne", "lt", "lteq", "gt", "gteq", "in", "notin"})
_ALLOWED = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.If,
    nodes.Name,
    nodes.Const,
    nodes.Compare,
    nodes.Operand,
    nodes.Filter,
    nodes.Keyword,
    nodes.And,
    nodes.Or,
    nodes.Not,
)
_NAMED_REFUSALS: tuple[tuple[type[nodes.Node] | tuple[type[nodes.Node], ...], str], ...] = (
    (nodes.For, "a loop"),
    ((nodes.Getattr, nodes.Getitem), "access to an attribute or item"),
    (nodes.Call, "a call"),
    ((nodes.Macro, nodes.CallBlock), "a macro"),
    ((nodes.Assign, nodes.AssignBlock), "a set"),
    ((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends), "an include or import"),
    ((nodes.BinExpr, nodes.UnaryExpr, nodes.Concat), "arithmetic"),
    (nodes.Test, "a test (is ...)"),
    (nodes.CondExpr, "an inline if"),
    ((nodes.List, nodes.Tuple, nodes.Dict), "a list, tuple or dictionary"),
)


class TemplateError(PermanentError):
    """A template cannot be used. ``template``: its name; ``line``: the line at fault, from 1 (rules.md 9)."""

    def __init__(self, template: str, line: int, reason: str) -> None:
        reason = _bounded_reason(reason)
        super().__init__(f"{template}, line {line}: {reason}")
        self.template = template
        self.line = line
        self.reason = reason


def _bounded_reason(reason: str) -> str:
    """The reason without its middle, if it quotes a name of the template's that has no end."""
    if len(reason) <= 2 * _REASON_END:
        return reason
    return f"{reason[:_REASON_END]}[...]{reason[-_REASON_END:]}"


class _Refused(Exception):
    """Why a part of a template is refused. The code that catches it knows the line."""


class _Fault(Exception):
    """Why a source cannot be compiled, with the line. The code that catches it knows the template's name."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


@dataclass(frozen=True)
class Kind:
    """A kind of such template. ``called``: what sentences call one; ``as_text``: how to have one taken as
    plain text; ``has_parts``: it may include parts."""

    called: str
    as_text: str
    has_parts: bool

    @property
    def way_out(self) -> str:
        """What a refusal adds: how to write what looks like a template but is meant as text."""
        return f"{_AS_TEXT}{self.as_text})"


OVERRIDE = Kind(
    "an override",
    "have the agent's overrides taken as plain text: `provisioner template overrides plain --agent AGENT`",
    has_parts=False,
)
LAYERED = Kind("a layer's template", "set it again with --plain, as plain text", has_parts=True)


@dataclass(frozen=True)
class Source:
    """A text that users or agents wrote. ``name``: what errors call it; ``plain``: it is no template."""

    name: str
    text: str
    plain: bool = False


def render_override(name: str, source: str, context: Mapping[str, str]) -> str:
    """Render an override; the result is not stripped.

    ``name``: what errors call the template. ``context``: the names that it may use, and ``auth_token``, which
    it may not. Raises only TemplateError: for what is not in the subset of rules.md 8, an unknown name, an
    exceeded limit, and anything else that Jinja or Python raise.
    """
    return _Rendering(OVERRIDE, context, lambda _: None).of(Source(name, source))


def render_layered(source: Source, context: Mapping[str, str], part: Callable[[str], Source | None]) -> str:
    """Render the template of a layer, with the parts that it includes; the result is not stripped.

    ``part``: finds a part of the same layer by its name. Raises only TemplateError, as `render_override`,
    and for parts that are missing, include themselves, or exceed PARTS_LIMIT or PARTS_DEPTH; it names the
    template or part at fault.
    """
    return _Rendering(LAYERED, context, part).of(source)


def plain_text(name: str, text: str) -> str:
    """A text that is no template, cleaned like a rendering. Raises TemplateError if it is too long."""
    return _Rendering(LAYERED, {}, lambda _: None).of(Source(name, text, plain=True))


def check_source(source: Source) -> None:
    """Raise TemplateError for a layer's template that no agent could use, whatever its parts and names."""
    _compiled_or_refused(LAYERED, source)


def parts_of(source: Source) -> tuple[str, ...]:
    """The parts that a layer's template includes itself; none of a text that cannot be used."""
    try:
        compiled = _compiled_or_refused(LAYERED, source)
    except TemplateError:
        return ()
    return tuple(name for name, _ in compiled.parts) if compiled else ()


@dataclass
class _Rendering:
    """One rendering of a template with its parts. ``size``: bytes of all sources so far; ``parts``: the
    rendered parts and how deep each one's own includes go; ``open``: the parts being rendered."""

    kind: Kind
    context: Mapping[str, str]
    part: Callable[[str], Source | None]
    work: _WorkBudget = field(default_factory=lambda: _WorkBudget())
    size: int = 0
    parts: dict[str, tuple[str, int]] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)

    def of(self, source: Source) -> str:
        try:
            return self._text(source)[0]
        except TemplateError:
            raise
        except Exception as error:
            line, what = _line_at_fault(error), type(error).__name__
            raise TemplateError(source.name, line, f"it cannot be rendered ({what}): simplify it") from None

    def _text(self, source: Source) -> tuple[str, int]:
        """The rendering, and how many includes stand one inside the other in it."""
        compiled = _compiled_or_refused(self.kind, source)
        self.size += len(source.text.encode("utf-8", "surrogatepass"))
        if self.size > PARTS_LIMIT:
            raise TemplateError(source.name, 1, f"with its parts it is longer than {PARTS_LIMIT // 1024} KB")
        if compiled is None:
            return clean(source.text), 0
        known = {key: value for key, value in self.context.items() if key != "auth_token"}
        self._check_names(source.name, compiled, known)
        depth = 0
        for number, (name, line) in enumerate(compiled.parts):
            known[f"{_PART}{number}"], below = self._included(source.name, name, line)
            depth = max(depth, below + 1)
        return clean("".join(self._bounded(source.name, compiled.template, known))), depth

    def _check_names(self, name: str, compiled: _Compiled, known: Mapping[str, str]) -> None:
        for used_name, line in compiled.names:
            if used_name == "auth_token":
                raise TemplateError(name, line, "auth_token may be used by the Tools template only")
            if used_name not in known:
                raise TemplateError(name, line, f"unknown name {used_name!r}{self.kind.way_out}")
            if len(known[used_name]) > OUTPUT_LIMIT:
                raise TemplateError(name, line, f"{used_name} is longer than {OUTPUT_LIMIT // 1024} KB")

    def _included(self, where: str, name: str, line: int) -> tuple[str, int]:
        if name in self.open:
            raise TemplateError(
                where, line, f"it includes {name}, in which it stands itself: break the circle"
            )
        if name not in self.parts:
            source = self.part(name)
            if source is None:
                lacks = f"it includes {name}, which its layer does not have: set and promote that first"
                raise TemplateError(where, line, lacks)
            self.open.append(name)
            if len(self.open) <= PARTS_DEPTH:
                text, depth = self._text(source)
                self.parts[name] = text.removesuffix("\n"), depth
            self.open.pop()
        if name not in self.parts or len(self.open) + 1 + self.parts[name][1] > PARTS_DEPTH:
            raise TemplateError(where, line, f"includes stand more than {PARTS_DEPTH} deep in each other")
        return self.parts[name]

    def _bounded(self, name: str, template: Template, known: Mapping[str, str]) -> Iterator[str]:
        return _bounded(name, template, {**known, _WORK: self.work})


def _bounded(name: str, template: Template, known: Mapping[str, Any]) -> Iterator[str]:
    size = 0
    try:
        for chunk in template.generate(known):
            size += len(chunk.encode("utf-8", "surrogatepass"))
            if size > OUTPUT_LIMIT:
                raise TemplateError(name, 1, f"its rendering is longer than {OUTPUT_LIMIT // 1024} KB")
            yield chunk
    except (_Refused, TypeError, ValueError, ArithmeticError) as error:
        raise TemplateError(name, _line_at_fault(error), str(error).lstrip("_")) from None


@dataclass(frozen=True)
class _Compiled:
    """A compiled source: the names that it uses, and the parts that it includes, each with the line of its
    first use."""

    template: Template
    names: tuple[tuple[str, int], ...]
    parts: tuple[tuple[str, int], ...]


def _compiled_or_refused(kind: Kind, source: Source) -> _Compiled | None:
    """The compiled template; None for a plain text. Raises TemplateError."""
    if len(source.text.encode("utf-8", "surrogatepass")) > INPUT_LIMIT:
        raise TemplateError(source.name, 1, f"longer than {INPUT_LIMIT // 1024} KB")
    if source.plain:
        return None
    try:
        return _compiled(kind, source.text)
    except _Fault as fault:
        raise TemplateError(source.name, fault.line, fault.reason) from None


@lru_cache(maxsize=128)
def _compiled(kind: Kind, source: str) -> _Compiled:
    """Compile a source, once per process. Raises _Fault."""
    try:
        tree = _ENVIRONMENT.parse(source)
    except TemplateSyntaxError as error:
        raise _Fault(error.lineno, f"{error.message or 'syntax error'}{kind.way_out}") from None
    except RecursionError:
        raise _Fault(1, "nested too deep") from None
    except ValueError as error:  # a number with thousands of digits
        raise _Fault(1, str(error)) from None
    used, parts = _checked(kind, tree)
    if parts:
        tree = _Includes(parts).visit(tree)
    return _Compiled(_ENVIRONMENT.from_string(tree), tuple(used.items()), tuple(parts.items()))


class _Includes(NodeTransformer):
    """Puts the value that stands for a part in the place of each include of it."""

    def __init__(self, parts: Mapping[str, int]) -> None:
        self._numbers = {name: number for number, name in enumerate(parts)}

    def visit_Include(self, node: nodes.Include) -> nodes.Output:
        assert isinstance(node.template, nodes.Const)
        value = nodes.Name(f"{_PART}{self._numbers[node.template.value]}", "load", lineno=node.lineno)
        return nodes.Output([value], lineno=node.lineno)


def _checked(kind: Kind, tree: nodes.Template) -> tuple[dict[str, int], dict[str, int]]:
    """The names that a template uses and the parts that it includes, each with its first line. Raises
    _Fault for what is not in the subset."""
    used: dict[str, int] = {}
    parts: dict[str, int] = {}
    pending: list[tuple[nodes.Node, int, int]] = [(tree, 0, 1)]
    count = 0
    while pending:
        node, depth, line = pending.pop()
        line = _line_of(node) or line
        count += 1
        reason = "too many parts" if count > _NODE_LIMIT else _objection(kind, node, depth)
        if reason:
            raise _Fault(line, f"{reason}{kind.way_out}")
        if isinstance(node, nodes.Name):
            used[node.name] = min(line, used.get(node.name, line))
        if isinstance(node, nodes.Include):
            assert isinstance(node.template, nodes.Const)
            parts[node.template.value] = min(line, parts.get(node.template.value, line))
        # Compiled, the tenth elif stands ten levels deep.
        branches = node.elif_ if isinstance(node, nodes.If) else []
        pending += [(branch, depth + place, line) for place, branch in enumerate(branches, 1)]
        pending += [(child, depth + 1, line) for child in node.iter_child_nodes(exclude=("elif_",))]
    return used, parts


def _line_of(node: nodes.Node) -> int | None:
    # The parser gives a scope no line of its own.
    return node.lineno or next((child.lineno for child in node.iter_child_nodes() if child.lineno), None)


def _objection(kind: Kind, node: nodes.Node, depth: int) -> str | None:
    if depth > _DEPTH_LIMIT:
        return "nested too deep"
    if kind.has_parts and isinstance(node, nodes.Include):
        return _include_objection(node)
    if not isinstance(node, _ALLOWED):
        what = next(
            (what for kinds, what in _NAMED_REFUSALS if isinstance(node, kinds)), type(node).__name__.lower()
        )
        return f"{what} is not allowed in {kind.called}"
    if isinstance(node, nodes.Name) and node.ctx != "load":
        return f"a set is not allowed in {kind.called}"
    if isinstance(node, nodes.Operand) and node.op not in _COMPARISONS:
        return f"the comparison {node.op} is not allowed in {kind.called}"
    if isinstance(node, nodes.Const):
        return _constant_objection(kind, node.value)
    if isinstance(node, nodes.Filter):
        return _filter_objection(kind, node)
    return None


def _include_objection(node: nodes.Include) -> str | None:
    """Why an include is refused, if it is not of the one form that is allowed."""
    of_a_part = isinstance(node.template, nodes.Const) and str(node.template.value).startswith(PARTS)
    if of_a_part and node.with_context and not node.ignore_missing:
        return None
    return f'an include must be of the form {{% include "{PARTS}NAME" %}}'


def _constant_objection(kind: Kind, value: object) -> str | None:
    """Why a constant may not be compiled: written into a program, it must mean the same (1e999 does not)."""
    if value is None or isinstance(value, str | bool):
        return None
    if isinstance(value, int | float) and abs(value) <= _LARGEST_NUMBER:
        return None
    return f"a number of that size is not allowed in {kind.called}"


def _filter_objection(kind: Kind, node: nodes.Filter) -> str | None:
    if node.name not in _FILTERS:
        return f"the filter {node.name} is not allowed in {kind.called} (allowed: {', '.join(_FILTERS)})"
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        return f"unpacked arguments are not allowed in {kind.called}"
    keywords = [keyword for keyword in node.kwargs if isinstance(keyword, nodes.Keyword)]
    given = [*node.args, *(keyword.value for keyword in keywords)]
    if not all(isinstance(argument, nodes.Const | nodes.Name) for argument in given):
        return f"the filter {node.name} takes only names and constants in {kind.called}"
    names = [str(keyword.key) for keyword in keywords]
    if len(set(names)) < len(names):
        return f"the filter {node.name} is given an argument twice"
    try:
        signature(_FILTERS[node.name]).bind(None, None, *node.args, **dict.fromkeys(names))
    except TypeError as error:
        return f"the filter {node.name} cannot be used like this: {error}"
    return None


def _line_at_fault(error: BaseException) -> int:
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == "<template>"]
    return lines[-1] if lines else 1


class _WorkBudget:
    """How much the filters of one rendering have read and made so far, in characters."""

    def __init__(self) -> None:
        self.done = 0

    def charge(self, characters: int) -> None:
        self.done += characters
        if characters > OUTPUT_LIMIT:
            raise _Refused(f"a filter's text is longer than {OUTPUT_LIMIT // 1024} KB")
        if self.done > _WORK_LIMIT:
            raise _Refused("its filters have too much to do")


def _read(context: Context, value: object) -> str:
    text = str(value)
    _charge(context, len(text))
    return text


def _charge(context: Context, characters: int) -> None:
    work = context[_WORK]
    assert isinstance(work, _WorkBudget)
    work.charge(characters)


@pass_context
def _default(context: Context, value: object, default_value: object = "", boolean: bool = False) -> object:
    return default_value if boolean and not value else value


@pass_context
def _upper(context: Context, value: object) -> str:
    return _read(context, value).upper()


@pass_context
def _lower(context: Context, value: object) -> str:
    return _read(context, value).lower()


@pass_context
def _title(context: Context, value: object) -> str:
    return do_title(_read(context, value))


@pass_context
def _trim(context: Context, value: object, chars: object = None) -> str:
    unwanted = None if chars is None else str(chars)
    if unwanted is not None and len(unwanted) > _TRIM_LIMIT:  # its time grows with their product
        raise _Refused(f"trim takes at most {_TRIM_LIMIT} characters")
    return _read(context, value).strip(unwanted)


@pass_context
def _replace(context: Context, value: object, old: object, new: object, count: int | None = None) -> str:
    text, before, after = _read(context, value), str(old), str(new)
    found = text.count(before)
    times = found if count is None or count < 0 else min(found, count)
    _charge(context, len(text) + times * (len(after) - len(before)))
    return text.replace(before, after, times)


@pass_context
def _length(context: Context, value: object) -> int:
    return len(_read(context, value))


@pass_context
def _join(context: Context, value: object, d: object = "") -> str:
    text, between = _read(context, value), str(d)
    _charge(context, len(text) + max(len(text) - 1, 0) * len(between))
    return between.join(text)


_FILTERS: Mapping[str, Any] = {
    "default": _default,
    "upper": _upper,
    "lower": _lower,
    "title": _title,
    "trim": _trim,
    "replace": _replace,
    "length": _length,
    "join": _join,
}


_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, optimized=False
)
_ENVIRONMENT.globals.clear()
_ENVIRONMENT.filters.clear()
_ENVIRONMENT.filters.update(_FILTERS)
_ENVIRONMENT.tests.clear()
