"""Random sequences of operations on units and sessions behave like a model of transactions."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

from moorage import (
    Database,
    DatabaseSettings,
    UnitOfWork,
    UnitOfWorkError,
    on_commit,
    on_rollback,
)
from tests.fix_scale import Scale
from tests.matrix.schema import Account, Base

NAMES = st.sampled_from(["ada", "bob", "eve", "kim", "zoe"])


class TransactionRules(RuleBasedStateMachine):
    """
    One unit at a time, and what is known of it.

    The model is a set of names that are stored, and a stack of sets: the unit's own and one per
    open savepoint.
    """

    database_settings: dict[str, Any]

    @initialize()
    def open(self) -> None:
        """Begin with empty tables."""
        self.runner = asyncio.Runner()
        self.database = Database(DatabaseSettings(**self.database_settings, _env_file=None))
        self.unit: UnitOfWork | None = None
        self.ended: AsyncSession | None = None
        self.savepoints: list[AsyncSessionTransaction] = []
        self.stored: set[str] = set()
        self.stack: list[set[str]] = []
        self.hooks: list[str] = []
        self.expected_hooks: list[str] = []
        self.registered: list[list[str]] = []
        self.count = 0

        async def empty() -> None:
            async with self.database.engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
                await connection.execute(delete(Account))

        self.runner.run(empty())

    @precondition(lambda self: self.unit is None)
    @rule()
    def begin(self) -> None:
        """Begin a unit."""
        self.unit = self.database.unit_of_work()
        self.runner.run(self.unit.begin())
        self.stack = [set(self.stored)]
        self.registered = [[]]
        self.register_hooks()

    @precondition(lambda self: self.unit is not None)
    @rule(name=NAMES)
    def add_or_remove(self, name: str) -> None:
        """Add a row, or remove it if it is there."""
        assert self.unit is not None
        session = self.unit.session
        if name in self.stack[-1]:
            self.runner.run(session.execute(delete(Account).where(Account.owner == name)))
            self.stack[-1].discard(name)
        else:
            session.add(Account(owner=name))
            self.runner.run(session.flush())
            self.stack[-1].add(name)

    @precondition(lambda self: self.unit is not None and len(self.savepoints) < 3)
    @rule()
    def open_savepoint(self) -> None:
        """Open a savepoint inside whatever is open."""
        assert self.unit is not None
        savepoint = self.unit.savepoint()

        async def start() -> None:
            await savepoint.start()

        self.runner.run(start())
        self.savepoints.append(savepoint)
        self.stack.append(set(self.stack[-1]))
        self.registered.append([])
        self.register_hooks()

    @precondition(lambda self: self.savepoints)
    @rule(keep=st.booleans())
    def end_savepoint(self, keep: bool) -> None:
        """Release the innermost savepoint, or go back to it."""
        savepoint = self.savepoints.pop()
        state, hooks = self.stack.pop(), self.registered.pop()
        if keep:
            self.runner.run(savepoint.commit())
            self.stack[-1] = state
            self.registered[-1] += hooks
        else:
            self.runner.run(savepoint.rollback())
            self.registered[-1] += [f"-{hook.lstrip('-')}" for hook in hooks]

    def register_hooks(self) -> None:
        """Register a hook for each ending."""
        assert self.unit is not None
        self.count += 1
        name = str(self.count)
        on_commit(self.unit.session, self._hook(name))
        on_rollback(self.unit.session, self._hook(f"-{name}"))
        self.registered[-1].append(name)

    @precondition(lambda self: self.unit is not None)
    @rule(method=st.sampled_from(["commit", "rollback", "close", "reset", "invalidate"]))
    def misuse(self, method: str) -> None:
        """End the transaction behind the unit's back, which is refused and changes nothing."""
        assert self.unit is not None
        with pytest.raises(UnitOfWorkError):
            self.runner.run(getattr(self.unit.session, method)())

    @precondition(lambda self: self.ended is not None)
    @rule(name=NAMES)
    def use_after_the_end(self, name: str) -> None:
        """Use the session of a unit that has ended, which is refused and changes nothing."""
        assert self.ended is not None
        with pytest.raises(UnitOfWorkError):
            self.ended.add(Account(owner=name))
        with pytest.raises(UnitOfWorkError):
            self.runner.run(self.ended.execute(select(Account)))

    @precondition(lambda self: self.unit is not None)
    @rule(
        failure=st.sampled_from([None, None, None, LookupError("no"), asyncio.CancelledError()]),
        rollback_only=st.sampled_from([False, False, False, True]),
    )
    def end(self, failure: BaseException | None, rollback_only: bool) -> None:
        """End the unit, with all savepoints that are still open."""
        assert self.unit is not None
        session = self.unit.session
        if rollback_only:
            self.unit.rollback_only()
        self.runner.run(self.unit.end(failure))
        committed = failure is None and not rollback_only
        hooks = [hook for level in self.registered for hook in level]
        if committed:
            self.stored = self.stack[-1]
            self.expected_hooks += hooks
        else:
            self.expected_hooks += [f"-{hook.lstrip('-')}" for hook in hooks]
        assert self.unit.outcome == ("committed" if committed else "rolled_back")
        self.unit, self.ended = None, session
        self.savepoints, self.stack, self.registered = [], [], []

    @invariant()
    def database_agrees(self) -> None:
        """What a session of its own sees is what the model says; hooks ran as it says."""
        if not hasattr(self, "runner"):
            return
        self.runner.run(self._compare())

    async def _compare(self) -> None:
        async with self.database.read_session() as session:
            assert set(await session.scalars(select(Account.owner))) == self.stored
        if self.unit is not None:
            seen = set(await self.unit.session.scalars(select(Account.owner)))
            assert seen == self.stack[-1]
        assert sorted(self.hooks) == sorted(self.expected_hooks)
        assert self.database.pool_statistics().in_use == (self.unit is not None)

    def _hook(self, name: str) -> Callable[[], Awaitable[None]]:
        async def hook() -> None:
            self.hooks.append(name)

        return hook

    def teardown(self) -> None:
        """Close everything."""
        if not hasattr(self, "runner"):
            return
        if self.unit is not None:
            self.runner.run(self.unit.end(LookupError("over")))
        self.runner.run(self.database.dispose())
        self.runner.close()


@pytest.mark.scaled
@pytest.mark.timeout(150)
def test_transactions_follow_the_model(fresh_database: dict[str, Any], scale: Scale) -> None:
    """No sequence of operations leaves the database, the hooks or the pool in another state."""

    class Rules(TransactionRules):
        database_settings = fresh_database

    run_state_machine_as_test(
        Rules,
        settings=settings(
            max_examples=scale(small=10, full=150),
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
