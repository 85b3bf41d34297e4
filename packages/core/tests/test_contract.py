"""
Contract 1 stays what it is: what a connector was written against is there, and means the same.

When a test here fails, either the change can be made so that it does not break connectors of
others, or CONTRACT_VERSION grows; `docs/writing-a-connector.md` says which changes need that.
"""

import inspect
from dataclasses import fields

import pytest

from moorage import CONTRACT_VERSION, Capabilities, DBConnector, abilities
from moorage.abilities import (
    BindsIdentities,
    ExaminesServer,
    LintsMigrations,
    LocksMigrations,
    ManagesStorage,
    ShapesMigrations,
    SuspendsForeignKeys,
    TellsWrites,
)

# What connectors may call and override, since contract 1 was published.
METHODS = {
    "abandon": "(self, driver_connection)",
    "build_url": "(self, drivername, **overrides)",
    "can_load": "(self, connection, load)",
    "classify_error": "(self, error, *, statement=None)",
    "create_engine": "(self)",
    "diagnose": "(self, kind, reason, code='', *, constraint=None, table=None, columns=())",
    "get_engine_args": "(self)",
    "get_execution_options": "(self, access)",
    "get_read_connect_args": "(self)",
    "get_url": "(self)",
    "get_uuid7_function": "(self, dialect)",
    "in_transaction": "(self, driver_connection)",
    "insecure": "(self, reason)",
    "insert_on_conflict": "(self, load, key, on_conflict)",
    "is_closed": "(self, driver_connection)",
    "limit_transaction": "(self, connection, limits)",
    "load_rows": "(self, connection, load, rows)",
    "make_read_only": "(self, driver_connection)",
    "option_variable": "(self, option)",
    "ping": "(self, driver_connection)",
    "prepare_connection": "(self, driver_connection)",
    "unreachable": "(self, error)",
}
ABILITIES = {
    ManagesStorage: {
        "database_exists": "(self)",
        "create_database": "(self, *, template=None)",
        "drop_database": "(self)",
    },
    LocksMigrations: {
        "try_lock_migrations": "(self, connection)",
        "unlock_migrations": "(self, connection)",
    },
    LintsMigrations: {"lint_migrations": "(self, scripts)"},
    ShapesMigrations: {"get_migration_options": "(self, given, connection)"},
    BindsIdentities: {
        "requires_identity": "(self)",
        "check_identity": "(self, identity)",
        "bind_identity": "(self, connection, identity)",
    },
    SuspendsForeignKeys: {
        "suspend_foreign_keys": "(self, connection)",
        "restore_foreign_keys": "(self, connection)",
        "find_orphans": "(self, connection)",
    },
    TellsWrites: {"has_written": "(self, connection)"},
    ExaminesServer: {"examine_server": "(self, engine)"},
}
ATTRIBUTES = {
    "contract": 1,
    "default_port": None,
    "url_schemes": frozenset(),
    "capabilities": Capabilities(),
    "url_parameters": {},
}


def signature(cls: type, name: str) -> str:
    """Return a method's parameters and their defaults, without types."""
    found = inspect.signature(getattr(cls, name))
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    return str(inspect.Signature(plain))


def public_methods(cls: type) -> set[str]:
    """Return the names of the methods that a class defines for others."""
    names = {name for name, value in vars(cls).items() if inspect.isfunction(value)}
    return {name for name in names if not name.startswith("_")}


def is_protocol(cls: type) -> bool:
    """Return whether a class is an ability, and not what one of them speaks of."""
    return bool(getattr(cls, "_is_protocol", False))


def test_the_number_is_one() -> None:
    """The lists in this file are those of the contract with this number."""
    assert CONTRACT_VERSION == 1


@pytest.mark.parametrize("name", METHODS)
def test_methods_keep_their_shape(name: str) -> None:
    """A method of the contract takes what it took."""
    assert signature(DBConnector, name) == METHODS[name]


@pytest.mark.parametrize("ability", ABILITIES)
def test_abilities_keep_their_shape(ability: type) -> None:
    """An ability has the methods it had; one more would take it from those who have it."""
    assert {name: signature(ability, name) for name in public_methods(ability)} == ABILITIES[
        ability
    ]


def test_the_lists_are_complete() -> None:
    """Whatever can be called or overridden is in the lists of this file."""
    assert public_methods(DBConnector) == METHODS.keys()
    protocols = (getattr(abilities, name) for name in abilities.__all__)
    assert {kind for kind in protocols if is_protocol(kind)} == ABILITIES.keys()


def test_a_name_and_a_url_are_enough() -> None:
    """Nothing but `get_url` has to be defined, and attributes keep their defaults."""
    assert DBConnector.__abstractmethods__ == {"get_url"}
    assert {name: getattr(DBConnector, name) for name in ATTRIBUTES} == ATTRIBUTES


def test_what_is_not_declared_is_not_promised() -> None:
    """Every capability is absent by default, but for what every server has always had."""
    promised = {field.name for field in fields(Capabilities) if field.default}
    assert promised == {"networked", "savepoints"}
