"""Renders template overrides that users and agents write, in a checked subset of Jinja with limits.

An override is hostile text (rules.md 8): a language model may have written it, and a thread that renders it
cannot be killed. So the parsed template is checked against a list of allowed nodes before it is compiled,
each filter computes the length of its result before making it, and all filters of one rendering share one
budget of work. Size, memory and time are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from inspect import signature
from traceback import walk_tb
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, nodes, pass_context
from jinja2.filters import do_title
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from worker.errors import PermanentError
from worker.workspace.display_text import clean

INPUT_LIMIT = 64 * 1024
"""The longest source, in bytes of UTF-8."""
OUTPUT_LIMIT = 256 * 1024
"""The longest rendering, in bytes of UTF-8, and the longest text of a filter, in characters."""

_WORK_LIMIT = 16 * OUTPUT_LIMIT  # characters that all filters of one rendering may read and make
_DEPTH_LIMIT = 40
_NODE_LIMIT = 4_000
_TRIM_LIMIT = 100
_LARGEST_NUMBER = 10**15
_AS_TEXT = (
    " (to have {{ or {% in the text itself, as in GitHub Actions, Handlebars or Prometheus, put {% raw %}"
    " before it and {% endraw %} after it)"
)
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
        super().__init__(f"{template}, line {line}: {reason}")
        self.template = template
        self.line = line
        self.reason = reason


class _Refused(Exception):
    """Why a part of a template is refused. The code that catches it knows the line."""


def render_override(name: str, source: str, context: Mapping[str, str]) -> str:
    """Render a user's template; the result is not stripped.

    ``name``: what errors call the template. ``context``: the names that it may use, and ``auth_token``, which
    it may not. Raises only TemplateError: for what is not in the subset of rules.md 8, an unknown name, an
    exceeded limit, and anything else that Jinja or Python raise.
    """
    try:
        return _render(name, source, context)
    except TemplateError:
        raise
    except Exception as error:
        line, what = _line_at_fault(error), type(error).__name__
        raise TemplateError(name, line, f"it cannot be rendered ({what}): simplify it") from None


def _render(name: str, source: str, context: Mapping[str, str]) -> str:
    if len(source.encode("utf-8", "surrogatepass")) > INPUT_LIMIT:
        raise TemplateError(name, 1, f"longer than {INPUT_LIMIT // 1024} KB")
    template, used = _compiled(name, source)
    known = {key: value for key, value in context.items() if key != "auth_token"}
    for used_name, line in used:
        if used_name == "auth_token":
            raise TemplateError(name, line, "auth_token may be used by the Tools template only")
        if used_name not in known:
            raise TemplateError(name, line, f"unknown name {used_name!r}{_AS_TEXT}")
        if len(known[used_name]) > OUTPUT_LIMIT:
            raise TemplateError(name, line, f"{used_name} is longer than {OUTPUT_LIMIT // 1024} KB")
    return clean("".join(_bounded(name, template, known)))


def _bounded(name: str, template: Template, known: Mapping[str, str]) -> Iterator[str]:
    size = 0
    try:
        for chunk in template.generate({**known, _WORK: _WorkBudget()}):
            size += len(chunk.encode("utf-8", "surrogatepass"))
            if size > OUTPUT_LIMIT:
                raise TemplateError(name, 1, f"its rendering is longer than {OUTPUT_LIMIT // 1024} KB")
            yield chunk
    except (_Refused, TypeError, ValueError, ArithmeticError) as error:
        raise TemplateError(name, _line_at_fault(error), str(error).lstrip("_")) from None


@lru_cache(maxsize=64)
def _compiled(name: str, source: str) -> tuple[Template, tuple[tuple[str, int], ...]]:
    """The compiled template, and the names that it uses, each with the line of its first use."""
    try:
        tree = _ENVIRONMENT.parse(source)
    except TemplateSyntaxError as error:
        raise TemplateError(name, error.lineno, f"{error.message or 'syntax error'}{_AS_TEXT}") from None
    except RecursionError:
        raise TemplateError(name, 1, "nested too deep") from None
    except ValueError as error:  # a number with thousands of digits
        raise TemplateError(name, 1, str(error)) from None
    used = _checked(name, tree)
    return _ENVIRONMENT.from_string(tree), tuple(used.items())


def _checked(name: str, tree: nodes.Template) -> dict[str, int]:
    used: dict[str, int] = {}
    pending: list[tuple[nodes.Node, int, int]] = [(tree, 0, 1)]
    count = 0
    while pending:
        node, depth, line = pending.pop()
        line = _line_of(node) or line
        count += 1
        reason = "too many parts" if count > _NODE_LIMIT else _objection(node, depth)
        if reason:
            raise TemplateError(name, line, f"{reason}{_AS_TEXT}")
        if isinstance(node, nodes.Name):
            used[node.name] = min(line, used.get(node.name, line))
        # Compiled, the tenth elif stands ten levels deep.
        branches = node.elif_ if isinstance(node, nodes.If) else []
        pending += [(branch, depth + place, line) for place, branch in enumerate(branches, 1)]
        pending += [(child, depth + 1, line) for child in node.iter_child_nodes(exclude=("elif_",))]
    return used


def _line_of(node: nodes.Node) -> int | None:
    # The parser gives a scope no line of its own.
    return node.lineno or next((child.lineno for child in node.iter_child_nodes() if child.lineno), None)


def _objection(node: nodes.Node, depth: int) -> str | None:
    if depth > _DEPTH_LIMIT:
        return "nested too deep"
    if not isinstance(node, _ALLOWED):
        what = next(
            (what for kinds, what in _NAMED_REFUSALS if isinstance(node, kinds)), type(node).__name__.lower()
        )
        return f"{what} is not allowed in an override"
    if isinstance(node, nodes.Name) and node.ctx != "load":
        return "a set is not allowed in an override"
    if isinstance(node, nodes.Operand) and node.op not in _COMPARISONS:
        return f"the comparison {node.op} is not allowed in an override"
    if isinstance(node, nodes.Const):
        return _constant_objection(node.value)
    if isinstance(node, nodes.Filter):
        return _filter_objection(node)
    return None


def _constant_objection(value: object) -> str | None:
    """Why a constant may not be compiled: written into a program, it must mean the same (1e999 does not)."""
    if value is None or isinstance(value, str | bool):
        return None
    if isinstance(value, int | float) and abs(value) <= _LARGEST_NUMBER:
        return None
    return "a number of that size is not allowed in an override"


def _filter_objection(node: nodes.Filter) -> str | None:
    if node.name not in _FILTERS:
        return f"the filter {node.name} is not allowed in an override (allowed: {', '.join(_FILTERS)})"
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        return "unpacked arguments are not allowed in an override"
    keywords = [keyword for keyword in node.kwargs if isinstance(keyword, nodes.Keyword)]
    given = [*node.args, *(keyword.value for keyword in keywords)]
    if not all(isinstance(argument, nodes.Const | nodes.Name) for argument in given):
        return f"the filter {node.name} takes only names and constants in an override"
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
