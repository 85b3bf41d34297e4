"""For any login at all: parts, URL and SQLAlchemy's own URL mean the same."""

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL, make_url

from moorage import Capabilities, DatabaseSettings, DBConnector

# Everything but lone surrogates, which no encoding of a URL has.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
HOSTS = st.sampled_from(["localhost", "db.example", "10.0.0.1", "::1", "2001:db8::5"])


class ToyConnector(DBConnector):
    """A connector for any URL."""

    name = "toy"
    capabilities = Capabilities(tls=True)
    default_port = 77

    def get_url(self) -> URL:
        """Return the URL that the settings say."""
        return self.build_url("toy+driver")


@given(
    user=TEXT.filter(bool),
    password=TEXT,
    name=TEXT.filter(str.strip),
    host=HOSTS,
    port=st.none() | st.integers(1, 65535),
)
def test_parts_and_url_agree(
    user: str, password: str, name: str, host: str, port: int | None
) -> None:
    """Any user, password and name reach the driver unchanged, given as parts or as a URL."""
    from_parts = DatabaseSettings(host=host, port=port, user=user, password=password, name=name)
    place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    from_url = DatabaseSettings(url=f"toy://{login}@{place}/{quote(name, safe='')}")
    for settings in (from_parts, from_url):
        assert settings.password is not None
        assert settings.password.get_secret_value() == password
        url = ToyConnector(settings).get_url()
        assert (url.username, url.password, url.database) == (user, password, name)
        assert (url.host, url.port) == (host, port or 77)
        assert url.drivername == "toy+driver"
    assert from_parts.hosts == from_url.hosts


@given(user=TEXT.filter(bool), password=TEXT)
def test_sqlalchemy_url_is_understood(user: str, password: str) -> None:
    """A login in a URL that SQLAlchemy rendered is read as SQLAlchemy itself reads it."""
    rendered = URL.create("toy", user, password, "db", 1, "app").render_as_string(False)
    url = ToyConnector(DatabaseSettings(url=rendered)).get_url()
    assert (url.username, url.password) == (user, password)
    assert make_url(rendered).password == password
