"""What Alembic runs for every command: the migrations, in the transaction that the caller has begun."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table_schema="lifeboat")

with context.begin_transaction():
    context.run_migrations()
