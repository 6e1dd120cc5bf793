"""Run by Alembic: revisions on the connection, and in the transaction, that ``migrate`` holds."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
