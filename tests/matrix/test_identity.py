"""Sessions on somebody's behalf, where the backend has such a thing and where it has not."""

import pytest

from moorage import BindsIdentities, Database, Identity, IdentityError, SettingsError


async def test_an_identity_is_never_ignored(database: Database) -> None:
    """Without row level security identities are refused, with it the roles that are not known."""
    ada = Identity("nobody_has_this_role")
    if isinstance(database.connector, BindsIdentities):
        expected: type[Exception] = IdentityError
        message = "not among"
    else:
        expected, message = SettingsError, "no row level security"
    for attempt in (database.session, database.read_session):
        with pytest.raises(expected, match=message):
            attempt(identity=ada)
    with pytest.raises(expected, match=message):
        async with database.unit_of_work(identity=ada):
            pass
    assert database.pool_statistics().in_use == 0
