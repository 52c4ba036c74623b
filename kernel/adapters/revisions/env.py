"""What Alembic runs: the revisions of one room, on the connection it was given, in the transaction that is open."""

from alembic import context

_config = context.config
context.configure(connection=_config.attributes["connection"], version_table=_config.attributes["table"])
with context.begin_transaction():
    context.run_migrations()
