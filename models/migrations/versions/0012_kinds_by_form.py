"""A job's kind is checked by the worker that starts it, and no longer by a list in the table that each new kind
would have to migrate: the table accepts any name, and still refuses other text. The downgrade needs a table
whose rows are all of the first seven kinds."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_LISTED = "jobs_kind_check"
_BY_FORM = "jobs_kind_form_check"


def upgrade() -> None:
    op.drop_constraint(op.f(_LISTED), "jobs", schema="provisioner", type_="check")
    op.create_check_constraint(
        op.f(_BY_FORM), "jobs", "kind ~ '^[a-z][a-z0-9_]{0,62}$'", schema="provisioner"
    )


def downgrade() -> None:
    op.drop_constraint(op.f(_BY_FORM), "jobs", schema="provisioner", type_="check")
    op.create_check_constraint(
        op.f(_LISTED),
        "jobs",
        "kind IN ('provision_agent', 'update_agent', 'delete_agent', 'sync_gateway', 'sync_heartbeats',"
        " 'ensure_board_lead', 'provision_gateway_main')",
        schema="provisioner",
    )
