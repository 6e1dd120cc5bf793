"""What was found in the pixels and where the network looked. Both hands in one image are assessed:
no job waits for a person because of them."""

from alembic import op

revision = "0002"
down_revision = "0001"

_STATEMENTS = (
    "ALTER TABLE predictions ADD COLUMN findings JSON DEFAULT '[]' NOT NULL",
    "ALTER TABLE predictions ADD COLUMN saliency JSON",
    """
    UPDATE jobs
        SET detail = 'both hands in one image: retry the job to have the left one assessed'
        WHERE fault = 'laterality_both' AND state = 'parked'
    """,
    """
    UPDATE jobs SET fault = 'operator' WHERE fault = 'laterality_both'
    """,
)


def upgrade() -> None:
    """Old predictions have no findings and no saliency; jobs parked for both hands stay parked, as
    if by a person."""
    for statement in _STATEMENTS:
        op.execute(statement)
