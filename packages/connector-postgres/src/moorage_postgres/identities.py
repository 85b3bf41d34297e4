"""
Row level security: for whom a transaction works, told to the server for that transaction alone.

Supabase and PostgREST have made the form a custom: the role is switched, and the claims of the
token are a run-time parameter that policies read (``auth.uid()`` does). Both are told in one
statement, and end with the transaction, also when it fails or its task is cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, bindparam, func, select

from moorage import Admin, Identity, IdentityError

__all__ = ["check_role", "tell"]

_CLAIMS: Final = "request.jwt.claims"

# Made once: SQLAlchemy compiles a statement that it knows no second time.
_TELL: Final = select(
    func.set_config("role", bindparam("role"), True),
    func.set_config(_CLAIMS, bindparam("claims"), True),
)
_TELL_LIMITED: Final = _TELL.add_columns(
    func.set_config("statement_timeout", bindparam("milliseconds"), True)
)
_NOBODY: Final = {"role": "none", "claims": ""}


def check_role(identity: Identity | Admin, allowed: tuple[str, ...], variable: str) -> None:
    """
    Refuse a role that is not allowed.

    Raises:
        IdentityError: It is not.
    """
    if isinstance(identity, Identity) and identity.role not in allowed:
        raise IdentityError(
            f"role {identity.role!r} is not among those on whose behalf sessions may work:"
            f" {', '.join(allowed) or 'there are none'}",
            hint=f"add it to {variable} if tokens with this role are to be served; work of the"
            " service itself is identity=ADMIN",
        )


def tell(
    connection: Connection,
    identity: Identity | Admin | None,
    admin_role: str | None,
    seconds: Mapping[str, float],
) -> None:
    """Tell the transaction of ``connection`` for whom it works; one round trip."""
    values = dict(_NOBODY)
    role = None
    if isinstance(identity, Identity):
        role = identity.role
        values = {"role": role, "claims": identity.claims_json}
    elif isinstance(identity, Admin) and admin_role is not None:
        role = values["role"] = admin_role
    limit = seconds.get(role or "")
    if limit is None:
        connection.execute(_TELL, values)
    else:
        connection.execute(_TELL_LIMITED, {**values, "milliseconds": str(round(limit * 1000))})
