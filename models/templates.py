from __future__ import annotations

from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, Integer, Uuid, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.jobs import one_of
from models.schemas import Moment, Provisioner

LAYER_SCOPES = ("organization", "gateway", "board", "role", "agent")


class TemplateVersion(Provisioner):
    """One version of the template of a workspace file, or of a part that templates include, in a layer.

    ``scope`` and ``target_id`` say which layer: that of an organization, a gateway, a board or an agent, by
    its id; that of a role, by its organization's id and its name, as ``<id>/lead``. ``name``: the file's, or
    ``parts/<name>``. ``plain``: the text is delivered as it is. ``sha256``: of ``body`` in UTF-8, in hex. A
    row never changes.
    """

    __tablename__ = "template_versions"
    __table_args__ = (
        CheckConstraint(one_of("scope", LAYER_SCOPES), name="scope"),
        CheckConstraint("version > 0", name="version"),
        CheckConstraint("octet_length(body) <= 65536", name="body"),
        Index("template_versions_sha256_idx", "sha256"),
    )

    scope: Mapped[str] = mapped_column(primary_key=True)
    target_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    plain: Mapped[bool] = mapped_column(server_default=text("false"))
    sha256: Mapped[str]
    body: Mapped[str]
    note: Mapped[str | None]
    set_by: Mapped[str | None]
    set_at: Mapped[Moment] = mapped_column(server_default=func.now())


class TemplatePromotion(Provisioner):
    """Which version of a layer's template its agents get, or got before: ``until`` is null for today's.

    ``version``: null if none is delivered; ``before``: the promotion to which a revert goes back.
    """

    __tablename__ = "template_promotions"
    __table_args__ = (
        CheckConstraint(one_of("scope", LAYER_SCOPES), name="scope"),
        Index(
            "template_promotions_current_idx",
            "scope",
            "target_id",
            "name",
            unique=True,
            postgresql_where=text("until IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    scope: Mapped[str]
    target_id: Mapped[str]
    name: Mapped[str]
    version: Mapped[int | None] = mapped_column(Integer)
    before: Mapped[int | None] = mapped_column(BigInteger)
    promoted_by: Mapped[str | None]
    since: Mapped[Moment] = mapped_column(server_default=func.now())
    until: Mapped[Moment | None]


class TemplatePin(Provisioner):
    """The version of a layer's template that one agent gets, whichever is promoted; null: none."""

    __tablename__ = "template_pins"
    __table_args__ = (CheckConstraint(one_of("scope", LAYER_SCOPES), name="scope"),)

    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    scope: Mapped[str] = mapped_column(primary_key=True)
    target_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int | None] = mapped_column(Integer)
    pinned_by: Mapped[str | None]
    pinned_at: Mapped[Moment] = mapped_column(server_default=func.now())


class OverrideForm(Provisioner):
    """How the overrides in agents' own columns are read: as templates, or, if ``plain``, as they are. The
    nearest row of an agent counts."""

    __tablename__ = "override_forms"
    __table_args__ = (CheckConstraint(one_of("scope", LAYER_SCOPES), name="scope"),)

    scope: Mapped[str] = mapped_column(primary_key=True)
    target_id: Mapped[str] = mapped_column(primary_key=True)
    plain: Mapped[bool]
    set_by: Mapped[str | None]
    set_at: Mapped[Moment] = mapped_column(server_default=func.now())
