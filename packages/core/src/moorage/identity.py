"""
On whose behalf a transaction works: a role of the database, and claims that its rules may read.

A service logs in as one user of the database and works for many people. Where the database decides
by person which rows there are (row level security), it must be told for whom each transaction is,
by whoever has verified it. Only some backends can be told; they have :class:`BindsIdentities`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Self

from moorage.errors import IdentityError

__all__ = ["ADMIN", "Admin", "Identity"]


@dataclass(frozen=True)
class Identity:
    """
    A role and claims, which hold for one transaction after the other of one session.

    It trusts what it is given: claims must have been verified before.

    Attributes:
        role: Role of the database; which ones there may be is a setting of the connector.
        claims: What the rules of the database may read, as from a verified token. Not part of the
            repr: it may be personal.
        claims_json: The claims as they are told to the database, fixed when this was made.

    Raises:
        IdentityError: The role is empty, or the claims cannot be written as JSON.
    """

    role: str
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    claims_json: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        role: object = self.role  # out of a token, whatever the annotation says
        if not isinstance(role, str) or not role:
            raise IdentityError(
                "an identity has no role", hint="take it from a claim that was verified"
            )
        try:
            text = json.dumps(dict(self.claims), allow_nan=False)
        except (TypeError, ValueError):
            text = ""
        if not text:
            # Not inside of the block: the original repeats the value, which may be personal.
            raise IdentityError(
                "the claims of an identity cannot be written as JSON",
                hint="give text, numbers, lists and dictionaries, as a token has them",
            )
        object.__setattr__(self, "claims", MappingProxyType(dict(self.claims)))
        object.__setattr__(self, "claims_json", text)

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any]) -> Self:
        """
        Return the identity that verified claims stand for; their ``role`` is the role.

        Raises:
            IdentityError: There is no role among them.
        """
        return cls(role=claims.get("role", ""), claims=claims)


class Admin:
    """The class of :data:`ADMIN`, the only instance."""

    def __repr__(self) -> str:
        return "ADMIN"


ADMIN: Final = Admin()
"""
Nobody in particular: the session works with the rights of the service itself, rules or not.

It is the one way around an identity that is required, and easy to find in a program.
"""
