"""
Contract 1 stays what it is: what a connector was written against is there, and means the same.

When a test here fails, either the change can be made so that it does not break connectors of
others, or CONTRACT_VERSION grows; `docs/writing-a-connector.md` says which changes need that.
"""

import inspect
from dataclasses import fields

import pytest

from moorage import CONTRACT_VERSION, Capabilities, DBConnector, LocksMigrations, ManagesStorage

# What connectors may call and override, since contract 1 was published.
METHODS = {
    "build_url": "(self, drivername, **overrides)",
    "classify_error": "(self, error, *, statement=None)",
    "create_engine": "(self)",
    "diagnose": "(self, kind, reason, code='', *, constraint=None, table=None, columns=())",
    "get_engine_args": "(self)",
    "get_execution_options": "(self, access)",
    "get_url": "(self)",
    "insecure": "(self, reason)",
    "limit_transaction": "(self, connection, limits)",
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
    methods = {name for name, value in vars(ability).items() if inspect.iscoroutinefunction(value)}
    assert {name: signature(ability, name) for name in methods} == ABILITIES[ability]


def test_a_name_and_a_url_are_enough() -> None:
    """Nothing but `get_url` has to be defined, and attributes keep their defaults."""
    assert DBConnector.__abstractmethods__ == {"get_url"}
    assert {name: getattr(DBConnector, name) for name in ATTRIBUTES} == ATTRIBUTES


def test_what_is_not_declared_is_not_promised() -> None:
    """Every capability is absent by default, but for what every server has always had."""
    promised = {field.name for field in fields(Capabilities) if field.default}
    assert promised == {"networked", "savepoints"}
