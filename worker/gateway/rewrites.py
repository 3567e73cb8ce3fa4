"""Finds what a config write would change in the owner's own text of openclaw.json. Pure.

Up to 2026.3 any config write, including the gateway's own, copies the content of every included file into
openclaw.json. 2026.2.12 also replaces each ``${NAME}`` with its value and undoes the escape of each
``$${NAME}``; the gateway may not start with the result (gateways.md 4, 12).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from worker.gateway.agent_ids import canonical_id
from worker.gateway.documents import mapping
from worker.gateway.roster_reading import LiveRoster
from worker.gateway.variables import REDACTED, escapes_in, id_or_number, strings_of, variables_in

_SHOWN = 4
_OWN_SECRETS = frozenset({"gateway.auth.token", "gateway.auth.password", "gateway.remote.token"})
"""Paths that may hold the gateway's own credential, which we know."""

COMMENTS_LOST = "openclaw.json has comments, and OpenClaw drops the comments of a file when it writes it."

Kind = Literal["include", "secret", "variable", "escape", "hidden"]
KIND_DESCRIPTIONS: Mapping[Kind, str] = {
    "include": "replaces each $include with the content of its file ({})",
    "secret": "copies secrets out of included files into openclaw.json ({})",
    "variable": "replaces variables with their values ({})",
    "escape": "undoes escapes, which turns them into variables ({})",
    "hidden": "writes out the values of hidden secrets that are given as variables ({})",
}


@dataclass(frozen=True, order=True)
class Rewrite:
    """One thing in openclaw.json that a config write loses.

    ``path``: its place in the config. ``what``: the files of an include, the name of a variable, or "".
    ``kept``: our own writes preserve it by sending it again, so that only the gateway's own writes lose it.
    """

    kind: Kind
    path: str
    what: str = ""
    kept: bool = False

    @property
    def key(self) -> str:
        """Identifies the rewrite in a stored permission."""
        return " ".join(part for part in (self.kind, self.path, self.what) if part)

    @property
    def shown(self) -> str:
        """What is lost and where, for messages."""
        if self.kind == "include":
            return f"{self.path} from {self.what}"
        reference = {"variable": f"${{{self.what}}}", "escape": f"$${{{self.what}}}"}.get(self.kind)
        return f"{reference} at {self.path}" if reference else self.path


def rewrites_of(live: LiveRoster, credential: str | None = None) -> tuple[Rewrite, ...]:
    """Everything that any config write would rewrite.

    ``credential``: the gateway's own token, with which we connect.
    """
    if live.preserves_includes:
        return ()
    return tuple(sorted({*_from_includes(live), *_from_variables(live, credential)}))


def removal_rewrites(live: LiveRoster, leaving: Collection[str]) -> tuple[Rewrite, ...]:
    """What agents.delete for the ids in ``leaving`` would rewrite in addition.

    Some releases restore a variable or an escape by its entry's index in the list, which changes for all
    entries after the removed one (measured on 2026.3.13).
    """
    if live.preserves_includes or live.dialect.roster != "list" or live.dialect.writes_variables:
        return ()
    listed = mapping(live.document.get("agents")).get("list")
    found: set[Rewrite] = set()
    moves = False
    for number, entry in enumerate(listed if isinstance(listed, list) else []):
        if isinstance(entry, Mapping) and canonical_id(entry.get("id", "")) in leaving:
            moves = True
        elif moves:
            root = f"agents.list[{id_or_number(entry, number)}]"
            found.update(_references(entry, root))
            hidden = (path for path, value in strings_of(entry, root) if value == REDACTED)
            found.update(Rewrite("hidden", path) for path in hidden)
    return tuple(sorted(found))


def delete_breaks_variables(live: LiveRoster) -> bool:
    """Whether agents.delete would lose variables in the list or escapes anywhere, which a patch keeps.

    That is so on 2026.2.12, which may then not start again.
    """
    listed = mapping(live.document.get("agents")).get("list")
    return live.dialect.writes_variables and (
        _has_escapes(live.document) or any(variables_in(text) for _, text in strings_of(listed))
    )


def has_comments(live: LiveRoster) -> bool:
    """Whether openclaw.json has comments, which every release loses when it first writes the file."""
    raw = live.answer.get("raw")
    return isinstance(raw, str) and _has_comment(raw)


def included_comments(live: LiveRoster) -> str | None:
    """The warning that the first write drops comments from included files; None if it writes into none.

    Whether there are comments is unknown, because no answer shows the text of an included file.
    """
    ours = [one for one in live.includes if one.touches("agents", live.dialect.roster)]
    files = [one.named for one in ours if live.writes_into(one)]
    if not files:
        return None
    return (
        f"OpenClaw drops the comments of a file when it writes it: those in {' and '.join(files)}, if there"
        " are any, go with the first write."
    )


def with_escapes(live: LiveRoster, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The patch ``document``, with escapes added that the release would otherwise undo.

    Without them it may not start. Those in the agents' list need no addition: it is always sent as a whole.
    """
    config = live.answer.get("config")
    if not live.dialect.writes_variables or not isinstance(config, Mapping):
        return document
    kept = _escapes_again(
        {**config, "agents": _without_list(config.get("agents"))},
        {**live.document, "agents": _without_list(live.document.get("agents"))},
    )
    return _merge(kept or {}, document)


def describe_rewrites(rewrites: Sequence[Rewrite], *, comments: bool = False) -> str:
    """The rewrites by kind, as in ``replaces variables with their values (${A} at models.x and 2 more)``.

    ``comments``: whether comments are dropped too.
    """
    parts = []
    for kind, words in KIND_DESCRIPTIONS.items():
        shown = [one.shown for one in rewrites if one.kind == kind]
        if shown:
            parts.append(words.format(_named(shown)))
    if comments:
        parts.append("drops its comments")
    return "; ".join(parts)


def _named(shown: Sequence[str]) -> str:
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more


def _from_includes(live: LiveRoster) -> Iterator[Rewrite]:
    in_root = {path for path, _ in strings_of(live.answer.get("parsed"))}
    for include in live.includes:
        yield Rewrite("include", include.path, include.named)
        included: Any = live.answer.get("config")
        for key in include.keys:
            included = _child(included, key)
        root = include.path if include.keys else ""
        for path, value in strings_of(included, root):
            if value == REDACTED and path not in in_root:
                yield Rewrite("secret", path)


def _from_variables(live: LiveRoster, credential: str | None) -> Iterator[Rewrite]:
    if not live.dialect.writes_variables:
        return
    # The escapes of included files count too: the write that takes their content over undoes them.
    for one in _references(live.document, ""):
        yield replace(one, kept=one.path.startswith("agents.list["))
    for path in _hidden(live, credential):
        yield Rewrite("hidden", path)


def _references(value: Any, root: str) -> Iterator[Rewrite]:
    for path, text in strings_of(value, root):
        for name in variables_in(text):
            yield Rewrite("variable", path, name)
        for name in escapes_in(text):
            yield Rewrite("escape", path, name)


def _hidden(live: LiveRoster, credential: str | None) -> list[str]:
    """Paths of hidden secrets that may be variables.

    If only the gateway's own credential is hidden, the file's hash decides: it matches the text with the
    credential filled in unless a variable stands there.
    """
    hidden = [path for path, value in strings_of(live.answer.get("parsed")) if value == REDACTED]
    others = [path for path in hidden if path not in _OWN_SECRETS]
    if others:
        return others
    raw, known = live.answer.get("raw"), live.answer.get("hash")
    if not hidden or credential is None or not isinstance(raw, str) or not isinstance(known, str):
        return []
    whole = raw.replace(REDACTED, credential)
    return [] if hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest() == known else hidden


def _escapes_again(config: Any, document: Any) -> Any:
    """The merge patch that writes the escapes in ``config`` again; None if it has none.

    Values are taken from ``document`` at the same path, as they are written there.
    """
    if isinstance(config, str):
        return document if isinstance(document, str) and escapes_in(document) else None
    if isinstance(config, list):
        return document if isinstance(document, list) and _has_escapes(document) else None
    if isinstance(config, Mapping):
        below = mapping(document)
        patch = {key: _escapes_again(value, below.get(key)) for key, value in config.items()}
        return {key: value for key, value in patch.items() if value is not None} or None
    return None


def _has_escapes(value: Any) -> bool:
    return any(escapes_in(text) for _, text in strings_of(value))


def _without_list(agents: Any) -> Any:
    return {name: inner for name, inner in mapping(agents).items() if name != "list"}


def _merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in patch.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _child(value: Any, key: str | int) -> Any:
    if isinstance(value, Mapping):
        return value.get(str(key))
    if isinstance(value, list) and isinstance(key, int) and key < len(value):
        return value[key]
    return None


def _has_comment(raw: str) -> bool:
    quote, place = "", 0
    while place < len(raw):
        here = raw[place]
        if quote:
            if here == "\\":
                place += 1
            elif here == quote:
                quote = ""
        elif here in "\"'":
            quote = here
        elif here == "/" and raw[place + 1 : place + 2] in ("/", "*"):
            return True
        place += 1
    return False
