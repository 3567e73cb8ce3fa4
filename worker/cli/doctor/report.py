"""The report on a gateway: its findings, each one sentence that names the cure where something is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

Status = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """One thing that was checked. ``says``: the result and, if it is not right, the cure. ``about``: all
    agents or keys concerned; ``says`` may name only a few of them."""

    check: str
    status: Status
    says: str
    about: Sequence[str] = ()


@dataclass
class Report:
    """All findings about a gateway; the fields after them stay None if it refused the connection.

    ``writes_refused``: config writes are refused until `provisioner gateway allow-rewrite` allows them.
    """

    gateway_id: UUID
    gateway: str
    url: str
    findings: list[Finding] = field(default_factory=list)
    device_id: str | None = None
    version: str | None = None
    protocol: int | None = None
    scopes: list[str] | None = None
    dialect: str | None = None
    agents: int | None = None
    paired: bool | None = None
    writes_refused: bool | None = None

    @property
    def ok(self) -> bool:
        """Whether no finding is a fault."""
        return all(finding.status != "fault" for finding in self.findings)

    def note(self, check: str, says: str, status: Status = "ok") -> None:
        """Add a finding."""
        self.findings.append(Finding(check, status, says))

    def extend(self, findings: Iterable[Finding]) -> None:
        """Add findings."""
        self.findings.extend(findings)
