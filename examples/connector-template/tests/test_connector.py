"""What the connector makes of settings; no server is needed."""

from moorage import DatabaseSettings, get_connector
from moorage_heron import HeronConnector


def test_it_is_found_by_name() -> None:
    """`DB_TYPE=heron` picks this connector, through the entry point of its distribution."""
    settings = DatabaseSettings(type="heron", name="app", _env_file=None)
    connector = get_connector(settings)
    assert isinstance(connector, HeronConnector)
    assert connector.get_url().drivername == "postgresql+asyncpg"


def test_an_option_reaches_the_engine() -> None:
    """An option is validated, and what it says is an argument of the engine."""
    options = {"isolation_level": "SERIALIZABLE"}
    settings = DatabaseSettings(type="heron", connector_options=options, _env_file=None)
    arguments = get_connector(settings).get_engine_args()
    assert arguments["isolation_level"] == "SERIALIZABLE"
