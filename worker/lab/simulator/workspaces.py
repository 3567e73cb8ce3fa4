"""Workspace folders and the files in them (gateways.md 3, 7)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from worker.lab.simulator.refusal import JSON, Refusal
from worker.lab.simulator.release import Release
from worker.lab.simulator.seeds import USER_MD

_PROFILE = ("SOUL.md", "IDENTITY.md", "USER.md")
_SET_UP_BY_OTHERS = ("MEMORY.md",)
_DEFAULT_FILES = Path(__file__).with_name("default_files")
"""What 2026.2.12 (list) and 2026.9.6 (map) seed, as in the templates of `worker.lab.simulator.seeds`."""
_OLD_MEMORY = "memory.md"
_LARGEST_SHOWN = 262_144
_IMAGES = (".png", ".jpg", ".gif", ".webp")


def with_home(path: str, state_dir: Path) -> str:
    """The path with ``~`` resolved to the home folder, which is inside the state folder."""
    return f"{state_dir / 'home'}{path[1:]}" if path == "~" or path.startswith("~/") else path


class Workspaces:
    """The agents' workspaces, all of them inside the state folder.

    A workspace path outside of the state folder is mapped to a place inside it, and so is ``~``.
    """

    def __init__(self, state_dir: Path, release: Release, write_s: float = 0.0) -> None:
        self._state_dir = state_dir
        self._release = release
        self._write_s = write_s
        self._being_written: set[Path] = set()
        self._set_up_path = state_dir / "workspaces-set-up.json"

    def configured(self, agent_id: str, entry: JSON) -> str:
        """The workspace path as the gateway shows it, ``~`` resolved."""
        if workspace := entry.get("workspace"):
            return with_home(str(workspace), self._state_dir)
        return str(self._state_dir / ("workspace" if agent_id == "main" else f"workspace-{agent_id}"))

    def folder(self, agent_id: str, entry: JSON) -> Path:
        """The workspace's folder on this machine's disk."""
        path = Path(self.configured(agent_id, entry))
        if path.is_relative_to(self._state_dir):
            return path
        parts = [part for part in path.parts if part not in ("/", "..")]
        return self._state_dir.joinpath("root", *parts)

    def listing(self, agent_id: str, entry: JSON) -> JSON:
        """The answer to ``agents.files.list``."""
        names = [name for name in self._release.listed_files if not self._hides(name, agent_id)]
        old_memory = self.folder(agent_id, entry) / _OLD_MEMORY
        if _OLD_MEMORY in self._release.accepted_files and old_memory.exists():
            memory = self.folder(agent_id, entry) / "MEMORY.md"
            names = [_OLD_MEMORY if name == "MEMORY.md" and not memory.exists() else name for name in names]
        return self._answer(agent_id, entry) | {
            "files": [self._state(agent_id, entry, name) for name in names]
        }

    def read(self, agent_id: str, entry: JSON, name: str) -> JSON:
        """The answer to ``agents.files.get``; an absent file is ``missing``, not an error."""
        self._check_supported(name)
        self._check_plain(self.folder(agent_id, entry) / name)
        state = self._state(agent_id, entry, name)
        if not state["missing"]:
            state |= self._content(self.folder(agent_id, entry) / name)
        return self._answer(agent_id, entry) | {"file": state}

    async def write(
        self, agent_id: str, entry: JSON, name: str, content: str, expected_hash: str | None = None
    ) -> JSON:
        """The answer to ``agents.files.set``. It writes equal content too, so ``updatedAtMs`` changes."""
        self._check_supported(name)
        path = self.folder(agent_id, entry) / name
        self._check_plain(path)
        if self._release.plain_files_only and path.exists() and not path.stat().st_mode & 0o200:
            raise Refusal(f'unsafe workspace file "{name}"')
        if path.is_dir():
            raise Refusal(
                f"Error: EISDIR: illegal operation on a directory, open '{path}': code=EISDIR",
                code="UNAVAILABLE",
            )
        if self._release.refuses_concurrent_file_writes:
            await self._be_alone_with(path)
        current = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
        if expected_hash is not None and expected_hash.lower() != current:
            details = {"type": "agent_file_conflict", "name": name, "currentHash": current}
            raise Refusal(f'agent file "{name}" changed since it was read', details=details)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and path.stat().st_nlink > 1):
            path.write_bytes(content.encode())  # through the link, as 2026.2.12 does
        else:
            draft = path.with_name(f".{name}.draft")
            draft.write_bytes(content.encode())
            draft.replace(path)
        state = self._state(agent_id, entry, name) | self._content(path)
        return {"ok": True, **self._answer(agent_id, entry), "file": state}

    def _check_plain(self, path: Path) -> None:
        """2026.7.1 and 2026.9.6 follow no link, take no folder for a file, and none that has two names."""
        if not self._release.plain_files_only or not os.path.lexists(path):
            return
        if path.is_symlink() or not path.is_file() or path.stat().st_nlink > 1:
            raise Refusal(f'unsafe workspace file "{path.name}"')

    async def _be_alone_with(self, path: Path) -> None:
        if path in self._being_written:
            raise Refusal(f'unsafe workspace file "{path.name}"')
        self._being_written.add(path)
        try:
            await asyncio.sleep(self._write_s)
        finally:
            self._being_written.discard(path)

    def browse(self, agent_id: str, entry: JSON, path: str, offset: int, limit: int | None) -> JSON:
        """The answer to ``agents.workspace.list``: one folder of the workspace, by name."""
        root = self.folder(agent_id, entry)
        folder = root / path
        if not folder.is_dir() or not folder.resolve().is_relative_to(root.resolve()):
            details = {"type": "workspace_path_not_found", "path": path}
            raise Refusal("workspace directory not found", details=details)
        items = sorted(folder.iterdir(), key=lambda item: item.name)
        entries = [self._browsed(item, root) for item in items if not item.is_symlink()]
        shown = entries[offset : None if limit is None else offset + limit]
        return {
            "agentId": agent_id,
            "path": path,
            "entries": shown,
            "totalEntries": len(entries),
            "offset": offset,
        }

    def shown(self, agent_id: str, entry: JSON, path: str) -> JSON:
        """The answer to ``agents.workspace.get``: a text of at most 256 KB, or an image."""
        root = self.folder(agent_id, entry)
        if path.startswith("/") or ".." in path.split("/"):
            raise Refusal(
                "path escapes the agent workspace", details={"type": "workspace_path_invalid", "path": path}
            )
        file = root / path
        if file.is_symlink() or not file.is_file():
            raise Refusal(
                "workspace file not found", details={"type": "workspace_file_not_found", "path": path}
            )
        content = file.read_bytes()
        if len(content) > _LARGEST_SHOWN:
            details = {"type": "workspace_file_too_large", "maxBytes": _LARGEST_SHOWN, "path": path}
            raise Refusal("workspace file is too large to preview", details=details | {"size": len(content)})
        state = {"path": path, "name": file.name, "size": len(content)}
        state["updatedAtMs"] = int(file.stat().st_mtime * 1000)
        try:
            kind = {"mimeType": "text/plain", "encoding": "utf8", "content": content.decode()}
        except UnicodeDecodeError:
            if file.suffix not in _IMAGES:
                raise Refusal(
                    "workspace file is not UTF-8 text or a supported image",
                    details={"type": "workspace_file_unsupported", "path": path},
                ) from None
            encoded = base64.b64encode(content).decode()
            kind = {"mimeType": f"image/{file.suffix[1:]}", "encoding": "base64", "content": encoded}
        return {"agentId": agent_id, "file": state | kind}

    def furnish(self, agent_id: str, entry: JSON) -> None:
        """Write the default files that do not exist yet."""
        folder = self.folder(agent_id, entry)
        folder.mkdir(parents=True, exist_ok=True)
        for name in self._release.default_files:
            if name == "BOOTSTRAP.md" and agent_id in self._set_up():
                continue
            if not (folder / name).exists():
                (folder / name).write_text(self._default(name), encoding="utf-8")

    def begin_run(self, agent_id: str, entry: JSON) -> None:
        """Do to the workspace what a run does before the agent sees it.

        2026.9.6 takes a workspace whose profile is no longer the default one for set up, and deletes its
        BOOTSTRAP.md; every release writes default files where some are missing.
        """
        folder = self.folder(agent_id, entry)
        if self._release.heartbeat_scratch and agent_id not in self._set_up() and self._has_profile(folder):
            self._mark_set_up(agent_id)
            (folder / "BOOTSTRAP.md").unlink(missing_ok=True)
        self.furnish(agent_id, entry)

    def discard(self, agent_id: str, entry: JSON, *, files: bool) -> bool:
        """Forget an agent's workspace, and delete it if ``files``; return whether there was one."""
        left = [agent for agent in self._set_up() if agent != agent_id]
        self._set_up_path.write_text(json.dumps(left), encoding="utf-8")
        folder = self.folder(agent_id, entry)
        existed = folder.is_dir()
        if files and existed:
            shutil.rmtree(folder)
        return existed

    def is_shared(self, agent_id: str, entry: JSON, others: Mapping[str, JSON]) -> bool:
        """Whether another agent's folder is the same, inside it, or around it."""
        folder = self.folder(agent_id, entry)
        theirs = [self.folder(key, other) for key, other in others.items() if key != agent_id]
        return any(folder.is_relative_to(other) or other.is_relative_to(folder) for other in theirs)

    def _default(self, name: str) -> str:
        if name == "USER.md":
            return USER_MD[self._release.name]
        known = _DEFAULT_FILES / ("map" if self._release.roster_is_map else "list") / name
        if known.exists():
            return known.read_text(encoding="utf-8")
        return (
            f"# {name.removesuffix('.md')}\n\n"
            "A default of the simulated gateway; nobody has written here yet.\n"
        )

    def _hides(self, name: str, agent_id: str) -> bool:
        return name == "BOOTSTRAP.md" and agent_id in self._set_up()

    def _has_profile(self, folder: Path) -> bool:
        own = [name for name in _PROFILE if (folder / name).exists()]
        changed = [name for name in own if (folder / name).read_text(encoding="utf-8") != self._default(name)]
        return bool(changed) or any((folder / name).exists() for name in _SET_UP_BY_OTHERS)

    def _set_up(self) -> list[str]:
        if not self._set_up_path.exists():
            return []
        agents: list[str] = json.loads(self._set_up_path.read_text(encoding="utf-8"))
        return agents

    def _mark_set_up(self, agent_id: str) -> None:
        self._set_up_path.write_text(json.dumps([*self._set_up(), agent_id]), encoding="utf-8")

    def _check_supported(self, name: str) -> None:
        if name not in self._release.accepted_files:
            raise Refusal(f'unsupported file "{name}"')

    def _answer(self, agent_id: str, entry: JSON) -> JSON:
        return {"agentId": agent_id, "workspace": self.configured(agent_id, entry)}

    def _state(self, agent_id: str, entry: JSON, name: str) -> JSON:
        path = self.folder(agent_id, entry) / name
        shown: JSON = {"name": name, "path": f"{self.configured(agent_id, entry)}/{name}"}
        if path.is_file():
            stat = path.stat()
            return shown | {
                "missing": False,
                "size": stat.st_size,
                "updatedAtMs": stat.st_mtime_ns // 1_000_000,
            }
        shown["missing"] = True
        if self._release.hashes_files:
            shown["expectedAbsent"] = name not in ("AGENTS.md", "BOOTSTRAP.md")
        return shown

    def _content(self, path: Path) -> JSON:
        data = path.read_bytes()
        hashed = {"hash": hashlib.sha256(data).hexdigest()} if self._release.hashes_files else {}
        return {**hashed, "content": data.decode(errors="replace")}

    def _browsed(self, item: Path, root: Path) -> JSON:
        stat = item.stat()
        shown: JSON = {"path": str(item.relative_to(root)), "name": item.name}
        shown |= {"kind": "directory"} if item.is_dir() else {"kind": "file", "size": stat.st_size}
        return shown | {"updatedAtMs": stat.st_mtime_ns // 1_000_000}
