"""
What ``env.py`` calls: the connection, the lock and the rules under which Alembic runs.

It is the same for ``moorage db``, for the functions of :mod:`moorage.migrations` and for Alembic's
own command, which all come here through ``env.py``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateSchema

from moorage.abilities import SuspendsForeignKeys
from moorage.connector import DBConnector, TransactionLimits
from moorage.database import Database
from moorage.errors import (
    ForeignKeyViolationError,
    LockTimeoutError,
    MigrationError,
    MoorageError,
)
from moorage.migrations.journal import JOURNAL_TABLE, Journal
from moorage.migrations.lock import migration_lock
from moorage.migrations.rendering import RenderItem, render_item
from moorage.migrations.request import COMPARES, REQUEST, Declared, Request
from moorage.migrations.shaping import make_version_schema, shaped
from moorage.pool import takes_two
from moorage.registry import get_connector
from moorage.settings import DatabaseSettings

__all__ = ["run"]

logger: logging.Logger = logging.getLogger("moorage.migrations")

_LONGEST_PAUSE_SECONDS = 8.0


def run(
    metadata: MetaData | Sequence[MetaData],
    *,
    settings: DatabaseSettings | None = None,
    wait_seconds: float = 300.0,
    lock_timeout_seconds: float = 5.0,
    attempts: int = 5,
    include_name: Callable[[str | None, str, Any], bool] | None = None,
    **options: Any,
) -> None:
    """
    Do what Alembic was asked for; called in ``env.py``, and nowhere else.

    Args:
        metadata: The catalogue of the models, ``Base.metadata``; several are looked at together.
        settings: Where the database is. If left out they are read from the environment, under the
            prefix ``settings_prefix`` of Alembic's settings, or ``DB_``.
        wait_seconds: Longest wait for another process that migrates.
        lock_timeout_seconds: Longest wait for a lock on a table. What waits for one stops all that
            comes after it, so that it is better to give up and try again.
        attempts: How often a revision is tried that did not get its locks.
        include_name: Alembic's filter of what autogenerate looks at.
        **options: Further arguments of Alembic's ``context.configure``.

    Raises:
        MigrationError: It cannot be done; the subclass says why.
        DatabaseError: The database failed.
    """
    with _told_to_the_command_line():
        catalogues = (metadata,) if isinstance(metadata, MetaData) else tuple(metadata)
        request: Request = context.config.attributes.get(REQUEST) or Request(
            report=context.config.print_stdout  # Alembic's own command; its logger has no handler
        )
        request.metadata = catalogues
        if request.only_declares:
            request.declared = Declared(catalogues, settings or _settings_by_prefix())
            return
        environment = _Environment(
            request,
            settings,
            wait_seconds if request.wait_seconds is None else request.wait_seconds,
            lock_timeout_seconds,
            attempts,
            {
                "target_metadata": catalogues,
                "include_name": _including(include_name),
                "transaction_per_migration": True,
                **options,
                "render_item": _rendering(options.get("render_item")),
            },
        )
        _refuse_empty(catalogues)
        if context.is_offline_mode():
            environment.write_sql()
        else:
            _run_anywhere(request.cancellable(environment.migrate()))


@contextmanager
def _told_to_the_command_line() -> Iterator[None]:
    """Let Alembic's own command print an error of ours as it prints its own."""
    try:
        yield
    except MoorageError as error:
        if REQUEST in context.config.attributes or not hasattr(context.config.cmd_opts, "cmd"):
            raise
        raise CommandError(str(error)) from error


class _Environment:
    def __init__(
        self,
        request: Request,
        settings: DatabaseSettings | None,
        wait_seconds: float,
        lock_timeout_seconds: float,
        attempts: int,
        options: dict[str, Any],
    ) -> None:
        self._request = request
        self._settings = settings
        self._wait_seconds = wait_seconds
        self._limits = TransactionLimits(0, lock_timeout_seconds)
        self._attempts = attempts
        self._options = options
        command = _command()
        self._fn: Callable[..., Any] = command["fn"]
        self._changes = "destination_rev" in command
        self._stamps = self._fn.__name__ == "do_stamp"

    def write_sql(self) -> None:
        """Write the statements that would be executed; no connection is opened."""
        database = self._request.database
        if database is None:
            connector = get_connector(self._settings or _settings_by_prefix())
        else:
            connector = database.connector
        context.configure(
            url=connector.get_url().set(password=None),
            literal_binds=True,
            transactional_ddl=connector.capabilities.transactional_ddl,
            # Some drivers want percent signs twice, and what runs the script wants them once.
            **{
                "dialect_opts": {"paramstyle": "named"},
                **shaped(self._options, connector, None),
            },
        )
        migration = context.get_context()
        schema = migration.version_table_schema
        with context.begin_transaction():
            if schema is not None and not migration.get_current_heads():
                context.execute(CreateSchema(schema, if_not_exists=True))
            context.run_migrations()

    async def migrate(self) -> None:
        """Do what was asked for on connections of the database."""
        takes_two.set(True)  # one that migrates, one that holds the lock
        async with AsyncExitStack() as stack:
            database = self._request.database
            if database is None or database.connector.capabilities.networked:
                database = await stack.enter_async_context(self._own_database(database))
            connection = await stack.enter_async_context(database.engine.connect())
            connector = database.connector
            if not self._changes:
                await connection.run_sync(self._look, connector)
                return
            can_undo = connector.capabilities.transactional_ddl

            async def nothing_to_do() -> bool:
                return await connection.run_sync(self._has_nothing_to_do, connector, can_undo)

            holder = await stack.enter_async_context(
                migration_lock(database, self._wait_seconds, self._request.report, nothing_to_do)
            )
            if holder is not None:
                journal = None if can_undo else Journal(_sync(holder))
                await self._try_often(connection, connector, journal)

    def _own_database(self, given: Database | None) -> Database:
        """Return a database like the application's, but with time for what migrations do."""
        settings = given.settings if given is not None else self._settings or _settings_by_prefix()
        # The lock belongs to a session of the server, which a pooler may not give.
        patient = settings.direct().replaced(
            "the migrations",
            statement_timeout_seconds=0.0,
            idle_in_transaction_timeout_seconds=0.0,
            lock_timeout_seconds=self._limits.lock_timeout_seconds,
            pool_size=2,
            max_overflow=0,
        )
        if given is not None:
            return Database(connector=type(given.connector)(patient))
        return Database(connector=get_connector(patient))

    def _configure(self, connection: Connection, connector: DBConnector, **more: Any) -> None:
        context.configure(
            connection=connection,
            transactional_ddl=connector.capabilities.transactional_ddl,
            **{
                "render_as_batch": not connection.dialect.supports_alter,
                **shaped(self._options, connector, connection),
                **more,
            },
        )

    def _look(self, connection: Connection, connector: DBConnector) -> None:
        self._configure(connection, connector, fn=self._fn)
        if not _command().get("dont_mutate"):
            make_version_schema(connection, context.get_context().version_table_schema)
        with context.begin_transaction():
            context.run_migrations()

    def _has_nothing_to_do(
        self, connection: Connection, connector: DBConnector, can_undo: bool
    ) -> bool:
        self._configure(connection, connector, fn=self._fn)
        heads = context.get_context().get_current_heads()
        connection.rollback()
        if not can_undo and (self._stamps or not Journal(connection).is_empty()):
            return False  # somebody is at it, or left it half done: the lock tells these apart
        return not list(self._fn(heads, context.get_context()))

    async def _try_often(
        self, connection: AsyncConnection, connector: DBConnector, journal: Journal | None
    ) -> None:
        writes = connector.get_execution_options("read write")
        if writes:
            await connection.execution_options(**writes)
        if journal is not None:
            journal.attach(_sync(connection))
        keys = connector if isinstance(connector, SuspendsForeignKeys) else None
        for attempt in range(1, self._attempts + 1):
            if keys is not None:
                await keys.suspend_foreign_keys(connection)
            try:
                await connection.run_sync(self._change, connector, journal)
                return
            except LockTimeoutError as error:
                await connection.rollback()
                stuck = journal is not None and await connection.run_sync(_failed, journal)
                if stuck or attempt == self._attempts:
                    raise
                pause = min(0.25 * 2**attempt, _LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)
                self._request.report(
                    f"{error.args[0]}; attempt {attempt + 1} of {self._attempts} in {pause:.1f} s"
                )
            except Exception:
                await connection.rollback()
                if journal is not None:
                    await connection.run_sync(_failed, journal)
                raise
            finally:
                if keys is not None:
                    await _restore(keys, connection)
            await asyncio.sleep(pause)

    def _change(
        self, connection: Connection, connector: DBConnector, journal: Journal | None
    ) -> None:
        self._configure(
            connection,
            connector,
            fn=self._steps(journal),
            on_version_apply=(_orphan_check(connector), *_callbacks(self._options)),
        )
        heads = context.get_context().get_current_heads()
        connection.rollback()
        if journal is not None and not self._stamps:
            journal.refuse_half_applied(heads)
        self._limit(connection, connector)
        make_version_schema(connection, context.get_context().version_table_schema)
        with context.begin_transaction():
            context.run_migrations()
        if journal is not None and self._stamps:
            journal.clear()

    def _steps(self, journal: Journal | None) -> Callable[..., Any]:
        def steps(heads: Any, migration: Any) -> Iterator[Any]:
            found = self._fn(heads, migration)
            noted = found if journal is None or self._stamps else journal.watched(found)
            for step in noted:
                yield step
                self._tell(step.info)  # Alembic asks for the next one behind the COMMIT of this

        return steps

    def _tell(self, step: Any) -> None:
        self._request.applied.append(step.up_revision_id)
        verb = "stamped" if step.is_stamp else "applied" if step.is_upgrade else "undid"
        self._request.report(f"{verb} {step.up_revision_id} {step.up_revision.doc}".rstrip())

    def _limit(self, connection: Connection, connector: DBConnector) -> None:
        """Let no revision wait long for a lock, also on a database that was handed over."""
        if connector.capabilities.networked or not connector.capabilities.transaction_limits:
            return
        connector.limit_transaction(connection, self._limits)
        connection.rollback()


def _settings_by_prefix() -> DatabaseSettings:
    return DatabaseSettings.from_env(context.config.get_main_option("settings_prefix", "DB_"))


def _command() -> dict[str, Any]:
    """Return what the running command of Alembic was given; there is no public way to it."""
    options: dict[str, Any] = context._proxy.context_opts  # type: ignore[attr-defined]
    return options


def _run_anywhere(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, also where a loop is running in this thread already."""
    if not _is_in_loop():
        asyncio.run(work)
        return
    failures: list[BaseException] = []

    def in_thread() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:  # noqa: BLE001 (raised below)
            failures.append(error)

    thread = threading.Thread(target=in_thread, name="moorage-migrations")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _sync(connection: AsyncConnection) -> Connection:
    below = connection.sync_connection
    assert below is not None
    return below


def _failed(connection: Connection, journal: Journal) -> bool:
    return journal.failed()


def _callbacks(options: dict[str, Any]) -> tuple[Any, ...]:
    given = options.get("on_version_apply") or ()
    return (given,) if callable(given) else tuple(given)


def _including(theirs: Callable[..., bool] | None) -> Callable[..., bool]:
    def include(name: str | None, kind: str, parents: Any) -> bool:
        if kind == "table" and name == JOURNAL_TABLE:
            return False
        return theirs is None or theirs(name, kind, parents)

    return include


def _rendering(theirs: RenderItem | None) -> RenderItem:
    def render(kind: str, item: Any, autogenerate: Any) -> Any:
        written = theirs(kind, item, autogenerate) if theirs is not None else False
        return render_item(kind, item, autogenerate) if written is False else written

    return render


def _refuse_empty(catalogues: Sequence[MetaData]) -> None:
    compares = {"revision_context", COMPARES} & _command().keys()
    if compares and not any(catalogue.tables for catalogue in catalogues):
        raise MigrationError(
            "env.py hands over a catalogue without any table: all tables of the database would"
            " seem to be superfluous",
            hint="import the modules of your models in env.py before run(Base.metadata)",
        )


async def _restore(keys: SuspendsForeignKeys, connection: AsyncConnection) -> None:
    try:
        await connection.rollback()
        await keys.restore_foreign_keys(connection)
    except Exception as error:  # noqa: BLE001 (it must not hide why the migration ended)
        logger.warning("foreign keys could not be switched on again: %s", error)
        await connection.invalidate()  # nobody gets a connection that does not enforce them


def _orphan_check(connector: DBConnector) -> Callable[..., None]:
    def check(ctx: Any, step: Any, **_: Any) -> None:
        if isinstance(connector, SuspendsForeignKeys) and not step.is_stamp:
            _refuse_orphans(connector.find_orphans(ctx.connection), step.up_revision_id)

    return check


def _refuse_orphans(orphans: Sequence[str], revision: str) -> None:
    if orphans:
        raise ForeignKeyViolationError(
            f"revision {revision} would leave rows that refer to nothing: {'; '.join(orphans[:5])}",
            hint="remove or correct them in the revision, before the table is altered",
        )
