"""Files that an agent keeps as they were, whatever its templates say now (rules.md 50). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from worker.workspace.tokens import PLACEHOLDER

HoldCause = Literal["rollback", "roll_out"]


@dataclass(frozen=True)
class HeldFile:
    """What one file is kept as.

    ``sha256``: of the rendering that the file keeps; None to leave the file as it is. ``text``: that
    rendering, None if it is no longer in the store. ``sources``: the hash of the shipped templates and
    TEMPLATES_DIR when the hold began, None if it does not end with them; ``open``: the job that made the hold
    has not ended.
    """

    name: str
    sha256: str | None
    cause: HoldCause
    job_id: UUID
    held_by: str | None
    since: datetime
    sources: str | None = None
    open: bool = False
    text: str | None = None

    @property
    def report(self) -> dict[str, str | None]:
        """The hold in a file's report in ``job_agents.files``."""
        since = self.since.isoformat(timespec="seconds")
        return {"by": self.held_by, "since": since, "job_id": str(self.job_id), "cause": self.cause}


@dataclass(frozen=True)
class KeptTexts:
    """What holds put in place of renderings, by file name; None: the file is left as it is, and not rendered.

    ``warnings``: sentences about holds that cannot be kept.
    """

    texts: Mapping[str, str | None]
    warnings: tuple[str, ...] = ()


def kept_texts(held: Mapping[str, HeldFile], carrier: str) -> KeptTexts:
    """What is delivered of held files. ``carrier``: the file that carries the token on this gateway.

    A held text without a place for the token cannot be kept there, as after an upgrade of the gateway that
    moves the credentials to another file: that file follows its template.
    """
    texts: dict[str, str | None] = {}
    warnings = []
    for name, hold in sorted(held.items()):
        has_token = hold.text is not None and PLACEHOLDER in hold.text
        if has_token == (name == carrier):
            texts[name] = hold.text
        elif name == carrier:
            warnings.append(
                f"{name} is held, but what it would keep does not carry the token: it follows its template."
            )
        else:
            texts[name] = None
            warnings.append(
                f"{name} is held, but what it would keep carries a token that belongs in {carrier} now: it is"
                " left as it is."
            )
    return KeptTexts(texts, tuple(warnings))


@dataclass(frozen=True)
class HeldEntry:
    """The fields of a roster entry that keep a value, the job that did so, and who asked for it.

    ``open``: that job is a roll-out and has not ended.
    """

    fields: tuple[str, ...]
    job_id: UUID
    held_by: str | None
    since: datetime
    cause: HoldCause = "rollback"
    open: bool = False

    @property
    def note(self) -> str:
        """A sentence about it, which names no agent."""
        whose = f" by {self.held_by}" if self.held_by else ""
        since = f"{self.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        fields = ", ".join(self.fields)
        if self.cause == "roll_out":
            return _of_roll_out(since, self.job_id, f"{fields} of its roster entry", open_=self.open)
        return (
            f"Held since {since}, when it was rolled back{whose}: {fields} of its roster entry."
            " `provisioner rollback AGENT --release` lets it follow its rows again."
        )


def hold_notes(held: Iterable[HeldFile]) -> Iterator[str]:
    """A sentence for each hold, which names all of its files. It names no agent, so that those of many can be
    told together."""
    names: dict[tuple[HoldCause, UUID, str | None, str, bool], list[str]] = {}
    for each in held:
        since = f"{each.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        names.setdefault((each.cause, each.job_id, each.held_by, since, each.open), []).append(each.name)
    for (cause, job_id, by, since, open_), files in names.items():
        listed = ", ".join(sorted(files))
        whose = f" by {by}" if by else ""
        if cause == "rollback":
            yield (
                f"Held since {since}, when it was rolled back{whose}: {listed}. `provisioner rollback AGENT"
                f" --release` lets it follow its templates again."
            )
        else:
            yield _of_roll_out(since, job_id, listed, open_=open_)


def _of_roll_out(since: str, job_id: UUID, what: str, *, open_: bool) -> str:
    if open_:
        return f"Held since {since}, for roll-out {job_id} has not reached it: {what}."
    return (
        f"Held since {since}, for roll-out {job_id} ended before it reached it: {what}. Another roll-out may"
        " reach it; `provisioner rollback AGENT --release` lets it follow its templates again."
    )
