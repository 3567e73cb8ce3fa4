"""A bundle: what is kept of an agent before it is deleted, as one tar that an operator can open (rules.md
52).

The tar holds ``manifest.json``, the agent's files below ``files/``, and below ``delivered/`` the renderings
that were last delivered into them. Tokens stand in none of them. Whoever hands us a tar may have made it by
hand, so reading one believes nothing. Pure.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from worker.errors import PermanentError
from worker.escaped import escaped

FORMAT = "openclaw-provisioner bundle 1"
MANIFEST, FILES, DELIVERED = "manifest.json", "files/", "delivered/"
MOST_BYTES = 8 * 1024 * 1024
"""Limit on the files of one bundle together; what does not fit is listed."""
MOST_FILES = 500
MOST_TAR_BYTES = 24 * 1024 * 1024
"""Limit on a tar that is read: the files, what was delivered into them, a manifest, and tar's own blocks."""
_MOST_MEMBERS = 2 * MOST_FILES + 1
_LONGEST_PATH = 400
TOO_MANY = f"a bundle holds {MOST_FILES} files at most"
NO_TEXT = "it is no text, and is only kept where BUNDLE_KEY is set"
_MOST_MANIFEST = 4 * 1024 * 1024
_DEEPEST = 100
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")


class BundleError(PermanentError):
    """A bundle cannot be used; the sentence says why, and nothing was done with it."""


@dataclass(frozen=True)
class LeftOut:
    """Something of the agent that is not in its bundle: ``what`` it is, and ``why``."""

    what: str
    why: str


@dataclass(frozen=True)
class Bundle:
    """What is kept of one agent.

    ``agent``: who it is and where it lived; ``row``: its row without hashes of tokens; ``settings``: its own
    rows of ``agent_settings``; ``entry``: its roster entry as its gateway showed it; ``files``: by path in
    its workspace; ``delivered``: by file name, the rendering that was delivered last; ``masked``: paths of
    files, and names of columns, in which a secret was replaced by a mark; ``left_out``: what could not be
    taken along;
    ``whole``: its gateway was asked for its files and showed them.
    """

    agent: Mapping[str, Any]
    row: Mapping[str, Any]
    settings: Sequence[Mapping[str, Any]] = ()
    entry: Mapping[str, Any] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    delivered: Mapping[str, str] = field(default_factory=dict)
    masked: frozenset[str] = frozenset()
    left_out: Sequence[LeftOut] = ()
    whole: bool = False

    @property
    def size(self) -> int:
        """The bytes of its files together."""
        return sum(map(len, self.files.values()))

    def summary(self) -> dict[str, Any]:
        """What may be shown of the bundle without opening it: names, sizes and reasons, and no content."""
        return {
            "agent": dict(self.agent),
            "files": {path: len(content) for path, content in sorted(self.files.items())},
            "masked": sorted(self.masked),
            "left_out": [{"what": one.what, "why": one.why} for one in self.left_out],
            "whole": self.whole,
        }

    def text(self, path: str) -> str | None:
        """A file's text; None if there is none of that path, or it is not text."""
        content = self.files.get(path)
        if content is None:
            return None
        try:
            return content.decode()
        except UnicodeDecodeError:
            return None


@dataclass(frozen=True)
class OwnFiles:
    """What a bundle holds for a workspace. ``texts``: by file name; ``delivered``: the renderings that were
    delivered into them; ``carrier``: the file that held the token; ``left``: what is not restored, and why;
    ``bundle_id``: the bundle's."""

    texts: Mapping[str, str] = field(default_factory=dict)
    delivered: Mapping[str, str] = field(default_factory=dict)
    carrier: str | None = None
    left: list[LeftOut] = field(default_factory=list)
    bundle_id: UUID | None = None

    def report(self) -> dict[str, Any]:
        """For a job's result: the bundle, and what of it is not restored."""
        left = [{"what": one.what, "why": one.why} for one in self.left]
        return {"bundle": str(self.bundle_id), "not_restored": left}

    def leave(self, name: str, why: str) -> None:
        """Note that a file is not restored, once."""
        if all(one.what != name for one in self.left):
            self.left.append(LeftOut(name, why))


def own_files(bundle: Bundle, *, allow_masked: bool) -> OwnFiles:
    """What of the bundle can be put into a workspace."""
    own = OwnFiles({}, bundle.delivered, bundle.agent.get("carrier"))
    texts: dict[str, str] = {}
    for path in sorted(bundle.files):
        text = bundle.text(path)
        if path in bundle.masked and not allow_masked:
            own.leave(path, "a secret in it was masked: --allow-masked restores it with the mark")
        elif "/" in path or text is None:
            own.leave(path, "gateways take only the text files that they know by name")
        else:
            texts[path] = text
    return replace(own, texts=texts)


def masked_copy(bundle: Bundle, mask_all: Callable[[Any], Any], *, keep_binaries: bool = False) -> Bundle:
    """The bundle with every text masked by ``mask_all``, and what that changed noted in ``masked``. What is
    no text cannot be masked, and is left out unless ``keep_binaries``."""
    masked, left = set(bundle.masked), list(bundle.left_out)
    files: dict[str, bytes] = {}
    for path in bundle.files:
        text = bundle.text(path)
        if text is None and keep_binaries:
            files[path] = bundle.files[path]
        if text is None:
            left += [] if keep_binaries else [LeftOut(path, NO_TEXT)]
            continue
        shown = mask_all(text)
        masked |= {path} if shown != text else set()
        files[path] = shown.encode()
    row = {name: mask_all(value) for name, value in bundle.row.items()}
    masked |= {f"column {name}" for name, value in bundle.row.items() if row[name] != value}
    settings = [{**one, "value": mask_all(one["value"])} for one in bundle.settings]
    masked |= {
        f"setting {one['field']}"
        for one, before in zip(settings, bundle.settings, strict=True)
        if one["value"] != before["value"]
    }
    return replace(
        bundle,
        row=row,
        settings=settings,
        entry=mask_all(bundle.entry),
        files=files,
        delivered={name: text for name, text in bundle.delivered.items() if mask_all(text) == text},
        masked=frozenset(masked),
        left_out=tuple(left),
    )


def to_tar(bundle: Bundle) -> bytes:
    """The bundle as a tar, the same for the same bundle."""
    files = {FILES + path: content for path, content in sorted(bundle.files.items())}
    files |= {DELIVERED + name: body.encode() for name, body in sorted(bundle.delivered.items())}
    manifest = {
        "format": FORMAT,
        "agent": dict(bundle.agent),
        "row": dict(bundle.row),
        "settings": [dict(one) for one in bundle.settings],
        "entry": bundle.entry,
        "files": {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
        "masked": sorted(bundle.masked),
        "left_out": [{"what": one.what, "why": one.why} for one in bundle.left_out],
        "whole": bundle.whole,
    }
    written = json.dumps(manifest, indent=2, sort_keys=True, default=str).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in {MANIFEST: written, **files}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o600
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def read_tar(data: bytes) -> Bundle:
    """Read a bundle from a tar. Raises BundleError for one that is damaged, too large, or has names that
    lead out of its folder."""
    if len(data) > MOST_TAR_BYTES:
        raise BundleError(f"The file is no bundle: it has more than {MOST_TAR_BYTES // 1024 // 1024} MB.")
    members = _members(data)
    manifest = _manifest(members.pop(MANIFEST, None))
    _require_agreement(manifest.get("files"), members)
    texts = {}
    for name in [name for name in members if name.startswith(DELIVERED)]:
        try:
            texts[name.removeprefix(DELIVERED)] = members.pop(name).decode()
        except UnicodeDecodeError:
            raise BundleError(f"The bundle is damaged: {escaped(name, 100)} is not text.") from None
    try:
        left_out = tuple(LeftOut(str(one["what"]), str(one["why"])) for one in manifest["left_out"])
        return Bundle(
            agent=_plain_values(manifest["agent"]),
            row=_object(manifest["row"]),
            settings=tuple(_setting(one) for one in manifest["settings"]),
            entry=None if manifest["entry"] is None else _object(manifest["entry"]),
            files={name.removeprefix(FILES): content for name, content in members.items()},
            delivered=texts,
            masked=frozenset(map(str, manifest["masked"])),
            left_out=left_out,
            whole=manifest["whole"] is True,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"The bundle is damaged: its manifest.json lacks something or holds something of another kind"
            f" ({type(error).__name__})."
        ) from None


def _members(data: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                _require_plain(member, found)
                reader = tar.extractfile(member)
                content = reader.read() if reader is not None else b""
                if len(content) != member.size:
                    raise BundleError("The bundle is damaged: it ends in the middle of a file.")
                found[member.name] = content
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise BundleError(
            f"The file is no tar that could be read ({type(error).__name__}): give one that"
            " `provisioner agent export` wrote, not compressed."
        ) from None
    return found


def _require_plain(member: tarfile.TarInfo, found: Mapping[str, bytes]) -> None:
    name = escaped(member.name, 100)
    if len(found) >= _MOST_MEMBERS:
        raise BundleError(f"The file is no bundle: it holds more than {_MOST_MEMBERS} files.")
    if not member.isreg() or member.issparse():
        raise BundleError(f"The file is no bundle: {name} in it is a link, a folder or no plain file.")
    if member.name in found:
        raise BundleError(f"The file is no bundle: it holds {name} twice.")
    if member.name != MANIFEST and not (_path_in(member.name, FILES) or _path_in(member.name, DELIVERED)):
        raise BundleError(
            f"The file is no bundle: {name} in it is neither manifest.json nor a plain path below files/ or"
            " delivered/."
        )
    if member.size > (_MOST_MANIFEST if member.name == MANIFEST else MOST_BYTES):
        raise BundleError(f"The file is no bundle: {name} in it is too large.")


def _path_in(name: str, folder: str) -> bool:
    return name.startswith(folder) and is_plain_path(name.removeprefix(folder))


def is_plain_path(path: str) -> bool:
    """Whether a path stays in its folder, on every system, and can be stored."""
    parts = path.split("/")
    return (
        0 < len(path) <= _LONGEST_PATH
        and path.isprintable()
        and "\\" not in path
        and not path.startswith("~")
        and all(part not in ("", ".", "..") for part in parts)
    )


def _manifest(written: bytes | None) -> Mapping[str, Any]:
    if written is None:
        raise BundleError("The file is no bundle: it has no manifest.json.")
    try:
        manifest = json.loads(written, parse_constant=_no_number)
        _require_storable(manifest, texts=False)
        if isinstance(manifest, Mapping):
            _require_storable([manifest.get(part) for part in ("agent", "row", "settings")])
    except (ValueError, RecursionError):
        raise BundleError("The bundle is damaged: its manifest.json is not JSON.") from None
    if not isinstance(manifest, Mapping) or manifest.get("format") != FORMAT:
        raise BundleError(
            f"The file is no bundle of this version, whose manifest.json says {FORMAT!r}: upgrade what"
            " reads it."
        )
    return manifest


def _require_agreement(listed: object, members: Mapping[str, bytes]) -> None:
    if not isinstance(listed, Mapping) or set(listed) != set(members):
        raise BundleError("The bundle is damaged: its manifest.json lists other files than it holds.")
    for name, content in members.items():
        said = listed[name]
        digest = hashlib.sha256(content).hexdigest()
        if not isinstance(said, Mapping) or (said.get("size"), said.get("sha256")) != (len(content), digest):
            raise BundleError(
                f"The bundle is damaged: {escaped(name, 100)} is not what its manifest.json says."
            )
    if sum(map(len, members.values())) > 2 * MOST_BYTES:
        raise BundleError(f"The file is no bundle: its files have more than {MOST_BYTES // 1024 // 1024} MB.")


def _no_number(name: str) -> Any:
    raise BundleError(f"The bundle is damaged: its manifest.json holds {name}, which is no number.")


def _require_storable(value: Any, *, texts: bool = True, depth: int = 0) -> None:
    """Raise BundleError for what is nested too deeply and, with ``texts``, for text that Postgres
    refuses."""
    if depth > _DEEPEST:
        raise BundleError(
            f"The bundle is damaged: its manifest.json holds objects more than {_DEEPEST} levels deep."
        )
    if isinstance(value, str) and texts and _UNSTORABLE.search(value):
        raise BundleError(
            "The bundle is damaged: its manifest.json holds text with NUL or with half of a character."
        )
    if isinstance(value, Mapping):
        for name, each in value.items():
            _require_storable(name, texts=texts, depth=depth)
            _require_storable(each, texts=texts, depth=depth + 1)
    elif isinstance(value, list):
        for each in value:
            _require_storable(each, texts=texts, depth=depth + 1)


def _plain_values(value: Any) -> Mapping[str, Any]:
    """An object of texts and the like. Raises TypeError."""
    found = _object(value)
    if not all(isinstance(each, str | bool | None) for each in found.values()):
        raise TypeError("not plain")
    return found


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError("not an object")
    return value


def _setting(value: Any) -> Mapping[str, Any]:
    setting = _object(value)
    if not isinstance(setting["field"], str) or "value" not in setting:
        raise TypeError("no setting")
    return setting


def too_large(size: int) -> str:
    """Why a file of ``size`` bytes is not in a bundle that has no room for them."""
    return f"its {size} bytes do not fit: a bundle holds {MOST_BYTES // 1024 // 1024} MB at most"
