from __future__ import annotations

from uuid import UUID

from sqlalchemy import LargeBinary, Uuid, func
from sqlalchemy.orm import Mapped, mapped_column

from models.schemas import Moment, Provisioner


class FileText(Provisioner):
    """A rendering of a workspace file that was delivered on a gateway (rules.md 47).

    ``sha256``: in hex, of the text with a placeholder in place of the token, as ``agent_files.source_sha256``
    names it; ``body``: that text in UTF-8, compressed by zlib.
    """

    __tablename__ = "file_texts"

    gateway_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    sha256: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    stored_at: Mapped[Moment] = mapped_column(server_default=func.now())
