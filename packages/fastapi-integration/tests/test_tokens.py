"""Tokens are verified with keys of a real server, and nothing in a token decides how."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import Depends, FastAPI
from httpx import AsyncClient

from moorage import MissingExtraError, SettingsError
from moorage_fastapi import KeySetError, TokenError, TokenVerifier, key_set

AUDIENCE = "authenticated"
EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
RSA_KEY = rsa.generate_private_key(65537, 2048)
RSA_PEM = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def described(key: Any, name: str, **more: Any) -> dict[str, Any]:
    """Return what a key set says of the public half of a key."""
    kinds = {ec.EllipticCurvePrivateKey: "ES256", rsa.RSAPrivateKey: "RS256"}
    algorithm = next((kinds[kind] for kind in kinds if isinstance(key, kind)), "EdDSA")
    algorithms = jwt.algorithms.get_default_algorithms()
    public: dict[str, Any] = algorithms[algorithm].to_jwk(key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    return {**public, "kid": name, "alg": algorithm, "use": "sig", **more}


class Issuer:
    """
    A server of keys.

    Attributes:
        keys: What it serves.
        questions: How often it was asked.
        mood: ``right``; ``hangs``, says nothing; ``fails``; ``leaves`` without an answer;
            ``forwards`` to where the keys are; ``endless``, whose answer has no end.
    """

    def __init__(self) -> None:
        self.keys = [described(EC_KEY, "ec"), described(RSA_KEY, "rsa")]
        self.questions = 0
        self.mood = "right"
        self.url = ""
        self.answers: set[asyncio.Task[Any] | None] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one question."""
        self.answers.add(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.questions += 1
            if self.mood == "hangs":
                await reader.read()  # until whoever asked goes away
                return
            if self.mood == "leaves":
                return
            status = {"fails": "500 No", "forwards": "307 There"}.get(self.mood, "200 OK")
            body = json.dumps({"keys": self.keys}).encode()
            length = "" if self.mood == "endless" else f"Content-Length: {len(body)}\r\n"
            place = f"Location: {self.url}\r\n" if self.mood == "forwards" else ""
            head = f"HTTP/1.1 {status}\r\nConnection: close\r\n{length}{place}\r\n"
            writer.write(head.encode() + body)
            while self.mood == "endless":
                writer.write(b" " * 65536)
                await writer.drain()
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def token(self, key: Any = EC_KEY, name: str | None = "ec", **changes: Any) -> str:
        """Return a token; ``algorithm`` and ``header`` are of its head, all else are claims."""
        algorithm = changes.pop("algorithm", "ES256")
        header = {"kid": name, **changes.pop("header", {})}
        header = {part: value for part, value in header.items() if value is not None}
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ada",
            "exp": time.time() + 600,
            "role": "authenticated",
            **changes,
        }
        claims = {claim: value for claim, value in claims.items() if value is not None}
        return jwt.encode(claims, key, algorithm, headers=header)


@pytest.fixture
async def issuer(own_process: None) -> AsyncIterator[Issuer]:
    """Return a server of keys that answers."""
    issuer = Issuer()
    server = await asyncio.start_server(issuer.answer, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield issuer
    issuer.mood = "right"
    server.close()
    await server.wait_closed()
    await asyncio.gather(*filter(None, issuer.answers))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that lets time pass for what is known of keys."""
    times = [1000.0]
    monkeypatch.setattr(key_set, "_now", lambda: times[0])

    def go_on(seconds: float) -> None:
        times[0] += seconds

    return go_on


@pytest.fixture
def verifier(issuer: Issuer, clock: Callable[[float], None]) -> TokenVerifier:
    """Return what verifies the issuer's tokens."""
    return TokenVerifier(issuer.url, AUDIENCE, timeout_seconds=60, leeway_seconds=300)


@pytest.fixture
def client(verifier: TokenVerifier, serve: Callable[..., AsyncClient]) -> AsyncClient:
    """Return a client of an application with one route, which answers whom it takes one for."""
    app = FastAPI()

    @app.get("/me")
    async def me(claims: Annotated[dict[str, Any], Depends(verifier)]) -> str:
        return str(claims["sub"])

    return serve(app)


def part(value: object) -> str:
    """Return a part of a token."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def forged(issuer: Issuer, header: object, key: bytes = b"") -> str:
    """Return a token that says of itself how it is to be verified, signed with a shared secret."""
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    signed = f"{part(header)}.{part(claims)}"
    secret = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    # As PyJWT's own prepare_key refuses a public key, by hand.
    return f"{signed}.{part(secret.sign(signed.encode(), key) if key else b'')}"


WRONG: dict[str, Callable[[Issuer], str]] = {
    "no token": lambda _: "abc",
    "nothing at all in it": lambda _: "..",
    "nested without end": lambda _: f"{part(b'[' * 9000)}.e30.AA",
    "too long": lambda issuer: issuer.token(story="x" * 20000),
    "of another key": lambda issuer: issuer.token(OTHER_EC_KEY),
    "of another issuer's key": lambda issuer: issuer.token(OTHER_EC_KEY, "elsewhere"),
    "without the name of a key": lambda issuer: issuer.token(name=None),
    "of a key for something else": lambda issuer: issuer.token(RSA_KEY, "ec", algorithm="RS256"),
    "in an algorithm that nobody asked for": lambda issuer: issuer.token(
        RSA_KEY, "rsa", algorithm="RS512"
    ),
    "signed by nobody": lambda issuer: forged(issuer, {"alg": "none", "kid": "ec"}),
    "signed by nobody, in capitals": lambda issuer: forged(issuer, {"alg": "NONE", "kid": "ec"}),
    "with the public key for a secret": lambda issuer: forged(
        issuer, {"alg": "HS256", "kid": "rsa"}, RSA_PEM
    ),
    "with a key that it brings along": lambda issuer: issuer.token(
        OTHER_EC_KEY, "mine", header={"jwk": described(OTHER_EC_KEY, "mine")}
    ),
    "with a place for its key": lambda issuer: issuer.token(
        OTHER_EC_KEY, header={"jku": f"{issuer.url}/mine.json"}
    ),
    "with a demand": lambda issuer: issuer.token(header={"crit": ["exp"]}),
    "over": lambda issuer: issuer.token(exp=time.time() - 900),
    "not valid yet": lambda issuer: issuer.token(nbf=time.time() + 900),
    "without an end": lambda issuer: issuer.token(exp=None),
    "with an end that is none": lambda issuer: issuer.token(exp=float("inf")),
    "for somebody else": lambda issuer: issuer.token(aud="elsewhere"),
    "for nobody": lambda issuer: issuer.token(aud=None),
    "of somebody else": lambda issuer: issuer.token(iss="https://elsewhere.example"),
    "of nobody": lambda issuer: issuer.token(iss=None),
    "about nobody": lambda issuer: issuer.token(sub=None),
    "about somebody without a name": lambda issuer: issuer.token(sub=""),
    "changed": lambda issuer: _changed(issuer.token()),
}


def _changed(token: str) -> str:
    head, _, tail = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False})
    return f"{head}.{part({**claims, 'sub': 'eve'})}.{tail}"


async def test_tokens_are_verified(issuer: Issuer, client: AsyncClient) -> None:
    """A right token of each key is taken; every wrong one is a 401 that says nothing of it."""
    for token in (issuer.token(), issuer.token(RSA_KEY, "rsa", algorithm="RS256")):
        answer = await client.get("/me", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()) == (200, "ada")
    # The clocks of two machines differ.
    for token in (issuer.token(exp=time.time() - 60), issuer.token(iat=time.time() + 60)):
        answer = await client.get("/me", headers={"Authorization": f"bearer {token}"})
        assert answer.status_code == 200
    for what, make in WRONG.items():
        answer = await client.get("/me", headers={"Authorization": f"Bearer {make(issuer)}"})
        assert answer.status_code == 401, what
        assert answer.json() == {"detail": "The token is not valid."}, what
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"', what
    assert issuer.questions == 1


def test_naively_the_forgeries_are_tokens(issuer: Issuer) -> None:
    """Negative control: what is forged is well-formed, and whoever asks the token believes it."""
    for token, key in (
        (WRONG["with the public key for a secret"](issuer), RSA_PEM),
        (WRONG["signed by nobody"](issuer), b""),
    ):
        head, claims, signature = token.split(".")
        secret = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        given = base64.urlsafe_b64decode(signature + "==")
        assert not key or secret.verify(f"{head}.{claims}".encode(), key, given)
        assert jwt.decode(token, options={"verify_signature": False})["sub"] == "ada"


async def test_who_has_no_token_is_told_so(client: AsyncClient) -> None:
    """A request without a token is a 401 that asks for one."""
    for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer "}):
        answer = await client.get("/me", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    schema = (await client.get("/openapi.json")).json()
    assert schema["paths"]["/me"]["get"]["security"] == [{"TokenVerifier": []}]


async def test_keys_that_come_and_go_are_noticed(
    issuer: Issuer, verifier: TokenVerifier, clock: Callable[[float], None]
) -> None:
    """A new key is fetched when a token names it; one that was withdrawn is forgotten in time."""
    await verifier.verify(issuer.token())
    issuer.keys = [described(OTHER_EC_KEY, "new")]
    clock(10)
    assert (await verifier.verify(issuer.token(OTHER_EC_KEY, "new")))["sub"] == "ada"
    with pytest.raises(TokenError, match="does not have"):
        await verifier.verify(issuer.token())
    issuer.keys = [described(EC_KEY, "ec")]
    clock(601)
    with pytest.raises(TokenError, match="does not have"):
        await verifier.verify(issuer.token(OTHER_EC_KEY, "new"))
    assert issuer.questions == 3


async def test_a_flood_of_unknown_keys_asks_little(
    issuer: Issuer, verifier: TokenVerifier, clock: Callable[[float], None]
) -> None:
    """However many tokens name keys that do not exist, one question is asked in a while."""
    for _ in range(3):
        for number in range(50):
            with pytest.raises(TokenError):
                await verifier.verify(issuer.token(OTHER_EC_KEY, str(number)))
        await verifier.verify(issuer.token())
        clock(10)
    assert issuer.questions == 3


async def test_many_at_once_ask_once(issuer: Issuer, verifier: TokenVerifier) -> None:
    """The first requests of a process share one question, and all get their answer."""
    token = issuer.token()
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(verifier.verify(token))
    assert issuer.questions == 1


@pytest.mark.parametrize("mood", ["fails", "leaves", "forwards", "endless"])
async def test_known_keys_outlive_their_server(
    mood: str, issuer: Issuer, verifier: TokenVerifier, clock: Callable[[float], None]
) -> None:
    """Where nobody gives keys any more, known ones are used until they are too old."""
    await verifier.verify(issuer.token())
    issuer.mood = mood
    clock(3000)
    for _ in range(3):
        await verifier.verify(issuer.token())
    assert issuer.questions == 2
    clock(601)
    with pytest.raises(KeySetError, match="no key"):
        await verifier.verify(issuer.token())
    issuer.mood = "right"
    with pytest.raises(KeySetError):  # not asked again at once
        await verifier.verify(issuer.token())
    clock(10)
    await verifier.verify(issuer.token())
    assert issuer.questions == 4


async def test_a_server_that_hangs_holds_nobody(
    issuer: Issuer, clock: Callable[[float], None], serve: Callable[..., AsyncClient]
) -> None:
    """The wait for keys has an end; without any the answer is 503, and it says when to return."""
    issuer.mood = "hangs"
    verifier = TokenVerifier(issuer.url, AUDIENCE, timeout_seconds=0.2)
    app = FastAPI()

    @app.get("/me", dependencies=[Depends(verifier)])
    async def me() -> None: ...

    bearer = {"Authorization": f"Bearer {issuer.token()}"}
    answer = await serve(app).get("/me", headers=bearer)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


async def test_whoever_leaves_takes_nobody_along(issuer: Issuer, verifier: TokenVerifier) -> None:
    """The request that asked for the keys may be cancelled; others get the answer all the same."""
    token = issuer.token()
    first = asyncio.create_task(verifier.verify(token))
    second = asyncio.create_task(verifier.verify(token))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second)["sub"] == "ada"
    assert first.cancelled()
    assert issuer.questions == 1


async def test_keys_that_are_none_are_passed_over(
    issuer: Issuer, verifier: TokenVerifier, clock: Callable[[float], None]
) -> None:
    """Of a key set, only public keys that are meant to verify are used."""
    secret = part(b"x" * 64)
    usable = described(EC_KEY, "ec")
    private = jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY, as_dict=True)
    issuer.keys = [
        {"kty": "oct", "kid": "secret", "k": secret, "alg": "HS256"},
        {**private, "kid": "private", "alg": "RS256"},
        {**usable, "kid": "for-something-else", "use": "enc"},
        {**usable, "kid": None},
        {"kty": "EC", "kid": "broken", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "unheard of", "kid": "later"},
        described(ED_KEY, "not-asked-for"),
        usable,
    ]
    await verifier.verify(issuer.token())
    for key, name, algorithm in (
        (b"x" * 64, "secret", "HS256"),
        (RSA_KEY, "private", "RS256"),
        (EC_KEY, "for-something-else", "ES256"),
        (ED_KEY, "not-asked-for", "EdDSA"),
    ):
        with pytest.raises(TokenError):
            await verifier.verify(issuer.token(key, name, algorithm=algorithm))
    other = TokenVerifier(issuer.url, AUDIENCE, algorithms=["EdDSA"])
    await other.verify(issuer.token(ED_KEY, "not-asked-for", algorithm="EdDSA"))


def test_what_would_prove_nothing_is_refused() -> None:
    """Shared secrets, keys without TLS, and tokens from or for anybody cannot be asked for."""
    place = "https://ref.supabase.co/auth/v1"
    assert TokenVerifier(place, AUDIENCE).keys.url == f"{place}/.well-known/jwks.json"
    for algorithms in (["HS256"], ["ES256", "none"], []):
        with pytest.raises(SettingsError, match="not verified by"):
            TokenVerifier(place, AUDIENCE, algorithms=algorithms)
    with pytest.raises(SettingsError, match="proves nothing"):
        TokenVerifier("http://ref.supabase.co/auth/v1", AUDIENCE)
    for issuer, audience in (("", AUDIENCE), (place, "")):
        with pytest.raises(SettingsError, match="proves nothing"):
            TokenVerifier(issuer, audience)


def test_the_packages_are_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error has the line that installs it."""
    monkeypatch.setitem(__import__("sys").modules, "jwt", None)
    with pytest.raises(MissingExtraError) as caught:
        TokenVerifier("https://issuer.example", AUDIENCE)
    assert caught.value.hint == "pip install 'moorage-fastapi[jwt]'"
