"""Hosts and URLs: what is understood, and what is refused without being repeated."""

import pickle

import pytest
from sqlalchemy import URL, make_url

from moorage.address import HostPort, is_loopback, parse_address, parse_hosts


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("db", [HostPort("db")]),
        (" db.example ", [HostPort("db.example")]),
        ("db_1:5433", [HostPort("db_1", 5433)]),
        ("10.0.0.1:1", [HostPort("10.0.0.1", 1)]),
        ("::1", [HostPort("::1")]),
        ("[::1]", [HostPort("::1")]),
        ("[2001:db8::5]:65535", [HostPort("2001:db8::5", 65535)]),
        ("fe80::1%eth0", [HostPort("fe80::1%eth0")]),
        ("/run/postgresql", [HostPort("/run/postgresql")]),
        ("a, b:2,[::1]:3", [HostPort("a"), HostPort("b", 2), HostPort("::1", 3)]),
    ],
)
def test_hosts_are_taken_apart(text: str, places: list[HostPort]) -> None:
    """Names, addresses of both kinds and socket paths are understood, with and without port."""
    assert list(parse_hosts(text)) == places


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty, or has a comma too many"),
        ("a,,b", "is empty, or has a comma too many"),
        ("pw@db", "contains an '@'"),
        ("postgres://db", "is a URL"),
        ("a b", "contains white space"),
        ("[::1", "does not enclose an IPv6 address"),
        ("[::1]5432", "does not enclose an IPv6 address"),
        ("[]", "no IPv6 address"),
        ("[pw]", "no IPv6 address"),
        ("user:pw:db", "no IPv6 address"),
        (":5432", "has a port but no host"),
        ("d!b", "has a character that no host name has"),
        ("db:pw", "has a port that is not a number from 1 to 65535"),
        ("db:", "has a port that is not a number"),
        ("db:0", "has a port that is not a number"),
        ("db:65536", "has a port that is not a number"),
        ("db:5432:5433", "no IPv6 address"),
    ],
)
def test_bad_hosts_are_refused_without_their_text(text: str, reason: str) -> None:
    """A host that cannot be one is refused by a sentence that does not repeat it."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_hosts(text)
    assert reason in str(caught.value)
    assert "pw" not in str(caught.value)
    assert caught.value.__context__ is None


def test_sqlalchemy_takes_several_hosts_for_one() -> None:
    """Negative control: SQLAlchemy glues two hosts with ports into one bogus IPv6 host."""
    url = URL.create("postgresql+asyncpg", host="a:1,b:2")
    assert url.render_as_string() == "postgresql+asyncpg://[a:1,b:2]"


def test_sqlalchemy_takes_half_a_password_for_the_host() -> None:
    """Negative control: SQLAlchemy sends half of a raw password to DNS, without a word."""
    assert make_url("postgresql://u:p@ss@h/db").host == "ss@h"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LocalHost", True),
        ("db.localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("0:0:0:0:0:0:0:1", True),
        ("/run/postgresql", True),
        ("127.example.com", False),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("db", False),
    ],
)
def test_loopback_is_told_by_spelling(host: str, expected: bool) -> None:
    """Only what cannot leave this machine counts as loopback, not what merely begins like it."""
    assert is_loopback(host) is expected


def test_url_is_taken_apart() -> None:
    """A URL gives its scheme, driver, parts and parameters, with percent-encoding undone."""
    address = parse_address(
        "Postgres+AsyncPG://us%40er:p%2Fw%3A@[::1]:5433/my%20db?sslmode=require&x=1&x=2&empty="
    )
    assert (address.scheme, address.driver) == ("postgres", "asyncpg")
    assert address.hosts == (HostPort("::1", 5433),)
    assert (address.user, address.password, address.name) == ("us@er", "p/w:", "my db")
    assert address.query == {"sslmode": ("require",), "x": ("1", "2"), "empty": ("",)}


@pytest.mark.parametrize(
    ("text", "name", "hosts"),
    [
        ("sqlite://", None, ()),
        ("sqlite:///app.db", "app.db", ()),
        ("sqlite:////var/app.db", "/var/app.db", ()),
        ("sqlite:////home/a@b/app.db", "/home/a@b/app.db", ()),
        ("sqlite:///:memory:", ":memory:", ()),
        ("postgres:///app?host=/run/pg", "app", ()),
        ("postgres://%2Frun%2Fpg/app", "app", (HostPort("/run/pg"),)),
        ("postgres://a:1,b/app", "app", (HostPort("a", 1), HostPort("b"))),
    ],
)
def test_url_without_login(text: str, name: str | None, hosts: tuple[HostPort, ...]) -> None:
    """A URL may leave out user and password, and for a file or a socket the host."""
    address = parse_address(text)
    assert (address.name, address.hosts) == (name, hosts)
    assert (address.user, address.password) == (None, None)


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("p@ss", "an '@' too many"),
        ("p/ss", "an '@' behind a '/' or '?'"),
        ("p?ss", "an '@' behind a '/' or '?'"),
        ("p@s/s", "an '@' behind a '/' or '?'"),
        ("p@s?s", "an '@' behind a '/' or '?'"),
        ("p@s?x=s", "an '@' behind a '/' or '?'"),
    ],
)
def test_raw_password_in_url_is_refused(password: str, reason: str) -> None:
    """A raw password that would move the end of the host is refused, with the way to write it."""
    with pytest.raises(ValueError, match="percent-encode the characters") as caught:
        parse_address(f"postgres://app:{password}@db/app")
    assert reason in str(caught.value)


@pytest.mark.parametrize("password", ["p#ss", "p%ss", "p:ss", "p[s]s", "p,s", "p s", "p=s&s", "pä"])
def test_harmless_raw_password_in_url_is_kept(password: str) -> None:
    """A raw password whose characters are not ambiguous reaches the driver unchanged."""
    address = parse_address(f"postgres://app:{password}@db/app")
    assert address.password == password
    assert address.hosts == (HostPort("db"),)


def test_address_shows_no_password_and_can_be_pickled() -> None:
    """An address shows its scheme only, and survives pickle with all of its parts."""
    address = parse_address("postgres://app:kestrel@db/app?sslmode=require")
    assert repr(address) == "Address(postgres://…)"
    assert pickle.loads(pickle.dumps(address)) == address  # noqa: S301  # our own bytes
