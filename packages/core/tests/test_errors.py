"""The tree of errors is the one that is drawn, and its errors travel."""

import builtins
import copy
import inspect
import pickle
import re
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import exc as sa_exc

import moorage
from moorage import errors
from moorage.errors import DatabaseError, MoorageError, SettingsError, blend

OUR_ERRORS = {
    name: cls
    for name, cls in vars(errors).items()
    if inspect.isclass(cls) and issubclass(cls, MoorageError)
}
DATABASE_ERRORS = [cls for cls in OUR_ERRORS.values() if issubclass(cls, DatabaseError)]
THEIR_ERRORS = [
    cls
    for cls in vars(sa_exc).values()
    if inspect.isclass(cls) and issubclass(cls, sa_exc.SQLAlchemyError)
]
COPIES = [
    pytest.param(
        lambda error: pickle.loads(pickle.dumps(error)),  # noqa: S301  # our own bytes
        id="pickle",
    ),
    pytest.param(copy.copy, id="copy"),
    pytest.param(copy.deepcopy, id="deepcopy"),
]
Clone = Callable[[MoorageError], MoorageError]


def drawn_tree() -> Iterator[tuple[str, str, set[str]]]:
    """Yield what the docstring draws: each class, its parent, and what it also is."""
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.fullmatch(
            r"    (?P<lines>[│ ├└─]*)(?P<name>\w+Error)\b *(\(also (?P<also>.*?)\))?.*", line
        )
        if match is None:
            continue
        depth = len(match["lines"]) // 4
        parents[depth:] = [match["name"]]
        also = set(match["also"].split(", ")) if match["also"] else set()
        yield match["name"], parents[depth - 1] if depth else "", also


def test_tree_is_the_drawn_one() -> None:
    """The tree in the docstring has each class, under its true parent, with its other bases."""
    drawn = {name: (parent, also) for name, parent, also in drawn_tree()}
    real = {}
    for name, cls in OUR_ERRORS.items():
        ours = [base.__name__ for base in cls.__bases__ if issubclass(base, MoorageError)]
        also = {base.__name__ for base in cls.__bases__ if not issubclass(base, MoorageError)}
        real[name] = (ours[0] if ours else "", also - {"Exception"})
    assert drawn == real
    assert {a for _, others in drawn.values() for a in others} <= set(vars(builtins))


@pytest.mark.parametrize("name", OUR_ERRORS)
def test_every_error_is_public(name: str) -> None:
    """Every error is exported by moorage, and tracebacks call it by that name."""
    cls = OUR_ERRORS[name]
    assert getattr(moorage, name) is cls
    assert name in moorage.__all__
    assert name in errors.__all__
    assert cls.__module__ == "moorage"
    assert cls.__doc__


def test_every_error_has_an_anchor_of_its_own() -> None:
    """No two errors share their section of the documentation."""
    anchors = [cls.__dict__.get("anchor") for cls in OUR_ERRORS.values()]
    assert None not in anchors
    assert len(set(anchors)) == len(anchors)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", anchor) for anchor in anchors)


def test_error_of_another_package_keeps_its_module() -> None:
    """A class derived elsewhere is shown where it lives."""

    class DuckError(MoorageError):
        pass

    assert DuckError.__module__ == __name__


@pytest.mark.parametrize("cls", OUR_ERRORS.values())
def test_hint_is_shown(cls: type[MoorageError]) -> None:
    """An error shows its message and, if it has one, the next step."""
    assert str(cls("It broke.")) == "It broke."
    error = cls("It broke.", hint="Mend it.")
    assert str(error) == "It broke.\n  Next step: Mend it."
    assert error.args == ("It broke.",)
    assert error.hint == "Mend it."


@pytest.mark.parametrize("clone", COPIES)
@pytest.mark.parametrize("cls", OUR_ERRORS.values())
def test_errors_can_be_copied(cls: type[MoorageError], clone: Clone) -> None:
    """Every error survives pickle and copy with its class, text and hint."""
    error = cls("It broke.", hint="Mend it.")
    error.add_note("seen on Monday")
    copied = clone(error)
    assert type(copied) is cls
    assert (str(copied), copied.hint) == (str(error), "Mend it.")
    assert copied.__notes__ == ["seen on Monday"]


@pytest.mark.parametrize("clone", COPIES)
def test_settings_error_keeps_its_problems(clone: Clone) -> None:
    """The single problems survive pickle and copy."""
    error = SettingsError(["DB_A is wrong", "DB_B is wrong"], hint="x")
    copied = clone(error)
    assert isinstance(copied, SettingsError)
    assert copied.problems == ("DB_A is wrong", "DB_B is wrong")
    assert [item["variable"] for item in copied.errors()] == ["DB_A", "DB_B"]
    assert str(copied) == str(error)


ARGUMENTS: dict[type[sa_exc.SQLAlchemyError], tuple[object, ...]] = {
    sa_exc.CircularDependencyError: ("their message", [], []),
    sa_exc.NoReferencedTableError: ("their message", "table"),
    sa_exc.NoReferencedColumnError: ("their message", "table", "column"),
    sa_exc.UnsupportedCompilationError: ("compiler", str),
    sa_exc.StatementError: ("their message", "SELECT 1", {"a": 1}, OSError("no")),
}


def make(cls: type[sa_exc.SQLAlchemyError]) -> sa_exc.SQLAlchemyError:
    """Return an instance of a class of SQLAlchemy's, made as SQLAlchemy makes it."""
    if issubclass(cls, sa_exc.DBAPIError):
        return cls("SELECT 1", {"a": 1}, OSError("driver says no"), connection_invalidated=True)
    return cls(*ARGUMENTS.get(cls, ("their message",)))


@pytest.mark.parametrize("clone", [pytest.param(lambda error: error, id="itself"), *COPIES])
@pytest.mark.parametrize("theirs", THEIR_ERRORS)
def test_blended_error_is_both(theirs: type[sa_exc.SQLAlchemyError], clone: Clone) -> None:
    """An error is caught as ours and as SQLAlchemy's, also after pickle and copy."""
    for ours in DATABASE_ERRORS:
        error = blend(ours("It broke.", hint="Mend it.", backend_code="40001"), make(theirs))
        copied = clone(error)
        assert type(copied) is type(error)
        assert isinstance(copied, ours)
        assert isinstance(copied, theirs)
        assert copied.args == ("It broke.",)
        assert str(copied).startswith("It broke.")
        assert str(copied).endswith("Next step: Mend it.")
        assert (copied.hint, copied.backend_code) == ("Mend it.", "40001")
        assert copied.is_transient is ours.is_transient
        assert type(copied).__name__ == ours.__name__
        assert type(copied).__module__ == "moorage"


@pytest.mark.parametrize("clone", [pytest.param(lambda error: error, id="itself"), *COPIES])
def test_blended_error_keeps_the_statement(clone: Clone) -> None:
    """Statement, parameters and the driver's error stay at hand, and the statement is shown."""
    theirs = sa_exc.OperationalError("SELECT 1", {"a": 1}, OSError("driver says no"))
    theirs.connection_invalidated = True
    error = clone(blend(errors.SerializationError("It broke.", hint="Mend it."), theirs))
    assert isinstance(error, sa_exc.OperationalError)
    assert (error.statement, error.params) == ("SELECT 1", {"a": 1})
    assert error.connection_invalidated
    assert isinstance(error.orig, OSError)
    assert str(error) == (
        "It broke.\n[SQL: SELECT 1]\n[parameters: {'a': 1}]\n  Next step: Mend it."
    )


def test_blended_error_hides_parameters() -> None:
    """Values that the engine hides stay hidden in our error."""
    theirs = sa_exc.IntegrityError("SELECT 1", {"a": "kestrel"}, OSError(), hide_parameters=True)
    error = blend(errors.DataError("It broke."), theirs)
    assert "kestrel" not in str(error)
    assert "kestrel" not in repr(error)


def test_blended_error_links_to_no_other_documentation() -> None:
    """The link that SQLAlchemy adds for a code of its own does not stand behind our next step."""
    theirs = sa_exc.OperationalError("", (), OSError(), code="e3q8")
    assert "Background on this error" in str(theirs)
    error = blend(errors.ConnectError("It broke.", hint="Mend it."), theirs)
    assert str(error).endswith("Next step: Mend it.")


def test_one_class_per_pair() -> None:
    """The class that is both is made once."""
    first = blend(errors.ReadOnlyError("a"), sa_exc.InternalError("", (), OSError()))
    second = blend(errors.ReadOnlyError("b"), sa_exc.InternalError("", (), OSError()))
    assert type(first) is type(second)
