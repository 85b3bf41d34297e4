"""What each TLS mode proves, shown by handshakes in memory, and what bad files are called."""

import ssl
from pathlib import Path

import pytest

from moorage import DatabaseSettings, SettingsError, effective_ssl_mode, make_ssl_context

# Made once, for this folder only, and valid until 2126. The server's is for the name db.example.
HERE = Path(__file__).parent / "certificates"
CA = HERE / "ca.pem"


def handshake(client: ssl.SSLContext, host: str, *, ask_for_client: bool = False) -> ssl.SSLObject:
    """Connect a client to a server that shows the test certificate, through memory."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(HERE / "server.pem", HERE / "server-key.pem")
    if ask_for_client:
        server.verify_mode = ssl.CERT_REQUIRED
        server.load_verify_locations(CA)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(down, up, server_hostname=host)
    theirs = server.wrap_bio(up, down, server_side=True)
    open_ends = [ours, theirs]
    while open_ends:
        end = open_ends.pop(0)
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            open_ends.append(end)
    return theirs


def accepts(settings: DatabaseSettings, host: str) -> bool:
    """Return whether the settings' context accepts the test server under a name."""
    context = make_ssl_context(settings)
    assert context is not None
    try:
        handshake(context, host)
    except ssl.SSLCertVerificationError:
        return False
    return True


def test_disable_means_no_context() -> None:
    """The mode disable needs no context."""
    assert make_ssl_context(DatabaseSettings(ssl_mode="disable")) is None


@pytest.mark.parametrize(
    ("mode", "ssl_ca", "right_name", "wrong_name"),
    [
        ("prefer", None, True, True),
        ("require", None, True, True),
        ("verify-ca", CA, True, True),
        ("verify-full", CA, True, False),
        ("verify-ca", None, False, False),
        ("verify-full", None, False, False),
    ],
)
def test_modes_prove_what_they_say(
    mode: str, ssl_ca: Path | None, right_name: bool, wrong_name: bool
) -> None:
    """Each mode accepts the servers that libpq's word for it accepts, and no others."""
    arguments = {"ssl_ca": ssl_ca} if ssl_ca else {}
    settings = DatabaseSettings(host="db.example", ssl_mode=mode, **arguments)
    assert accepts(settings, "db.example") is right_name
    assert accepts(settings, "other.example") is wrong_name


def test_given_authority_is_the_only_one() -> None:
    """An authority that was given replaces the system's list."""
    context = make_ssl_context(DatabaseSettings(ssl_mode="verify-full", ssl_ca=CA))
    assert context is not None
    assert context.cert_store_stats()["x509_ca"] == 1


def test_old_protocols_are_off() -> None:
    """No mode speaks a TLS older than 1.2."""
    for arguments in ({"ssl_mode": "require"}, {"ssl_mode": "verify-full", "ssl_ca": CA}):
        context = make_ssl_context(DatabaseSettings(**arguments))
        assert context is not None
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_client_certificate_is_shown() -> None:
    """A client certificate and its key are shown to a server that asks."""
    context = make_ssl_context(
        DatabaseSettings(
            ssl_mode="verify-full",
            ssl_ca=CA,
            ssl_cert=HERE / "client.pem",
            ssl_key=HERE / "client-key.pem",
        )
    )
    assert context is not None
    subject = handshake(context, "db.example", ask_for_client=True).getpeercert()["subject"]
    assert subject == ((("commonName", "moorage test client"),),)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", "prefer"),
        ("127.0.0.1", "prefer"),
        ("/run/postgresql", "prefer"),
        ("db.example", "verify-full"),
        ("127.example.com", "verify-full"),
        ("localhost,db.example", "verify-full"),
    ],
)
def test_mode_that_is_unset(host: str, expected: str) -> None:
    """Unset means prefer where every host is this machine, and verify-full elsewhere."""
    assert effective_ssl_mode(DatabaseSettings(host=host)) == expected


def test_mode_that_is_set_wins() -> None:
    """A mode that was set holds wherever the host is."""
    settings = DatabaseSettings(host="db.example", ssl_mode="disable")
    assert effective_ssl_mode(settings) == "disable"
    assert make_ssl_context(settings) is None
    assert make_ssl_context(settings, "require") is not None


CLIENT = {"DB_SSL_CERT": "client.pem", "DB_SSL_KEY": "client-key.pem"}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        pytest.param(
            {"DB_SSL_CA": "missing.pem"},
            "DB_SSL_CA names {missing.pem}, which cannot be used (No such file or directory); give"
            " a readable PEM file",
            id="ca-missing",
        ),
        pytest.param(
            {"DB_SSL_CA": ""},
            "DB_SSL_CA names {}, which cannot be used (Is a directory)",
            id="ca-is-a-folder",
        ),
        pytest.param(
            {"DB_SSL_CA": "client-key.pem"},
            "DB_SSL_CA names {client-key.pem}, which cannot be used",
            id="ca-is-no-certificate",
        ),
        pytest.param(
            CLIENT | {"DB_SSL_CERT": "missing.pem"},
            "DB_SSL_CERT names {missing.pem}, which cannot be used (No such file or directory)",
            id="certificate-missing",
        ),
        pytest.param(
            CLIENT | {"DB_SSL_KEY": "missing.pem"},
            "DB_SSL_KEY names {missing.pem}, which cannot be used (No such file or directory)",
            id="key-missing",
        ),
        pytest.param(
            CLIENT | {"DB_SSL_KEY": "other-key.pem"},
            "DB_SSL_CERT names {client.pem}, which cannot be used ([X509: KEY_VALUES_MISMATCH]",
            id="key-of-another",
        ),
        pytest.param(
            CLIENT | {"DB_SSL_KEY": "encrypted-key.pem"},
            "; give a readable PEM file, and in DB_SSL_KEY its own key without passphrase",
            id="key-with-passphrase",
        ),
        pytest.param(
            {"DB_SSL_CERT": "client.pem"},
            "; give a readable PEM file, and in DB_SSL_KEY its own key without passphrase",
            id="certificate-without-key",
        ),
        pytest.param(
            {"DB_SSL_KEY": "client-key.pem"},
            "DB_SSL_KEY is set without DB_SSL_CERT; a key is of use only with its certificate",
            id="key-without-certificate",
        ),
    ],
)
def test_bad_file_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], sentence: str
) -> None:
    """A file that cannot be used is an error with the variable that names it."""
    for variable, file in files.items():
        monkeypatch.setenv(variable, str(HERE / file))
    with pytest.raises(SettingsError) as caught:
        make_ssl_context(DatabaseSettings(ssl_mode="verify-full"))
    for file in (*files.values(), "missing.pem"):
        sentence = sentence.replace(f"{{{file}}}", str(HERE / file))
    assert sentence in str(caught.value)
