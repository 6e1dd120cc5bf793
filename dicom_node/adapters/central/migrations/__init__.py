"""Revisions of the central schema, run by Alembic."""
