"""Run by Alembic: revisions on the connection, and in the transaction, that ``migrate`` holds."""

from alembic import context

from dicom_node.adapters.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
context.run_migrations()
