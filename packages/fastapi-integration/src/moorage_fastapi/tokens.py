"""
Who sent a request: the claims of a token that was verified with the issuer's public keys.

Optional, for applications that have nothing of their own to do it (extra ``jwt``). The algorithms
are fixed, and so is the place of the keys: nothing in a token decides how it is verified.
"""

# Annotations are objects here: FastAPI evaluates those of an instance's __call__ without the names
# of this module.
import logging
from collections.abc import Collection
from typing import Any, ClassVar, Final

from fastapi import HTTPException
from fastapi.openapi.models import HTTPBearer as BearerModel
from fastapi.openapi.models import SecurityBase as SecurityModel
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from moorage import IdentityError, SettingsError
from moorage_fastapi.key_set import KeySet, KeySetError

__all__ = ["TokenError", "TokenVerifier"]

logger: logging.Logger = logging.getLogger("moorage.fastapi")

# Each with a key pair: whoever can verify cannot sign.
_ALGORITHMS: Final = frozenset(
    {
        *("ES256", "ES384", "ES512", "EdDSA"),
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    }
)
_REQUIRED: Final = ("exp", "iss", "aud", "sub")
_LARGEST: Final = 16 * 1024
_RETRY_AFTER: Final = {"Retry-After": "5"}


class TokenError(IdentityError):
    """A token is not to be believed; the message says why, and nothing of what is in it."""

    anchor: ClassVar[str] = "token"


TokenError.__module__ = "moorage_fastapi"


class TokenVerifier(SecurityBase):
    """
    A dependency that returns the verified claims of the request's token, or answers 401.

    ``UserSession = Annotated[AsyncSession, Depends(session_as(verifier))]``. One for the whole
    process: it keeps the keys. Also for other code: :meth:`verify`.

    Args:
        issuer: Who issues the tokens, ``iss``, to the letter.
        audience: For whom they are, ``aud``.
        keys_url: Where its keys are; left out: ``/.well-known/jwks.json`` below ``issuer``.
        algorithms: The signatures that are believed.
        leeway_seconds: How far the issuer's clock may differ from ours.
        timeout_seconds: Longest wait for the keys.
        refresh_seconds: Age at which keys are asked for again.
        keep_seconds: Age up to which they are used where nobody answers.
        pause_seconds: Least time between two questions for keys, whatever tokens name.

    Raises:
        SettingsError: An algorithm would let whoever knows the key sign too, or is none; the keys
            are to be fetched without TLS; the issuer or the audience is empty.
        MissingExtraError: The packages of the extra ``jwt`` are not installed.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        keys_url: str | None = None,
        algorithms: Collection[str] = ("ES256", "RS256"),
        leeway_seconds: float = 10.0,
        timeout_seconds: float = 5.0,
        refresh_seconds: float = 600.0,
        keep_seconds: float = 3600.0,
        pause_seconds: float = 10.0,
    ) -> None:
        if not issuer or not audience:
            raise SettingsError(
                "a token from anybody, or for anybody, proves nothing",
                hint="name issuer and audience, as the claims `iss` and `aud` have them",
            )
        if wrong := sorted(set(algorithms) - _ALGORITHMS) or (["none at all"] * (not algorithms)):
            raise SettingsError(
                f"tokens are not verified by {', '.join(wrong)}",
                hint=f"name some of {', '.join(sorted(_ALGORITHMS))}: whoever verifies by a shared"
                " secret can sign as well, and its key has no place in a set that is public",
            )
        self.keys: KeySet = KeySet(
            keys_url or f"{issuer.rstrip('/')}/.well-known/jwks.json",
            algorithms=algorithms,
            timeout_seconds=timeout_seconds,
            refresh_seconds=refresh_seconds,
            keep_seconds=keep_seconds,
            pause_seconds=pause_seconds,
        )
        import jwt

        self._jwt = jwt
        self._decoder = jwt.PyJWT({"enforce_minimum_key_length": True})
        self._issuer = issuer
        self._audience = audience
        self._algorithms = sorted(algorithms)
        self._leeway_seconds = leeway_seconds
        self.model: SecurityModel = BearerModel(bearerFormat="JWT")  # what OpenAPI shows
        self.scheme_name: str = type(self).__name__

    async def verify(self, token: str) -> dict[str, Any]:
        """
        Return the claims of a token, all checked: signature, ``iss``, ``aud``, ``exp`` and ``sub``.

        Raises:
            TokenError: It is not to be believed.
            KeySetError: No keys are known to verify it with.
        """
        key = await self.keys.find(self._key_of(token))
        if key is None:
            raise TokenError("it names a key that its issuer does not have")
        try:
            claims = self._decoder.decode(
                token,
                key,
                algorithms=self._algorithms,
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway_seconds,
                options={"require": list(_REQUIRED)},
            )
        except (self._jwt.PyJWTError, ValueError, ArithmeticError, RecursionError) as error:
            reason = type(error).__name__
        else:
            if claims["sub"]:
                return claims
            reason = "there is nobody in it"
        # Not inside of the block: the original may repeat what is in the token.
        raise TokenError(f"it is not valid: {reason}")

    def _key_of(self, token: str) -> str:
        """Return the id of the key that a token claims to be signed with; nothing is verified."""
        if len(token) > _LARGEST:
            raise TokenError("it is too long")
        try:
            header = self._jwt.get_unverified_header(token)
        except (self._jwt.PyJWTError, ValueError, RecursionError):
            header = {}
        if header.get("alg") not in self._algorithms:
            raise TokenError("it is none, or signed in a way that is not asked for")
        name = header.get("kid")
        if "crit" in header or not isinstance(name, str):
            raise TokenError("it names no key, or demands what is not known here")
        return name

    async def __call__(self, connection: HTTPConnection) -> dict[str, Any]:
        """Return the claims of the request's token, for ``Depends``; WebSockets will do as well."""
        scheme, _, token = connection.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise HTTPException(401, "A token is needed.", {"WWW-Authenticate": "Bearer"})
        try:
            return await self.verify(token.strip())
        except TokenError as error:
            logger.info("a token was refused: %s", error)
            told = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            raise HTTPException(401, "The token is not valid.", told) from error
        except KeySetError as error:
            logger.error("a token could not be verified: %s", error)
            raise HTTPException(503, "Tokens cannot be verified now.", _RETRY_AFTER) from error
