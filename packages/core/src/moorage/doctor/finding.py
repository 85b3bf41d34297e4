"""What can be found, each under a code that stays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["CODES", "Code", "Finding", "Report"]

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Code:
    """A kind of finding: how grave it is, why it matters, and what to do."""

    severity: Severity
    why: str
    fix: str


@dataclass(frozen=True)
class Finding:
    """
    One thing that is wrong.

    Attributes:
        code: Its kind; see :data:`CODES`.
        what: What was found, without any secret.
        path: The file, if there is one.
        line: The line, if there is one.
        fix: What to do here, where that is more exact than what the code says.
        kind: What its code means, for a code of a connector's own.
    """

    code: str
    what: str
    path: str = ""
    line: int = 0
    fix: str = ""
    kind: Code | None = None

    @property
    def severity(self) -> Severity:
        """Return how grave it is."""
        return self._kind.severity

    @property
    def why(self) -> str:
        """Return why it matters."""
        return self._kind.why

    @property
    def advice(self) -> str:
        """Return what to do."""
        return self.fix or self._kind.fix

    @property
    def place(self) -> str:
        """Return the file and the line; empty where there is no file."""
        return f"{self.path}:{self.line}" if self.line else self.path

    @property
    def _kind(self) -> Code:
        return self.kind or CODES[self.code]

    def to_json(self) -> dict[str, str | int]:
        """Return what a script reads."""
        return {
            "code": self.code,
            "severity": self.severity,
            "what": self.what,
            "why": self.why,
            "fix": self.advice,
            "path": self.path,
            "line": self.line,
        }

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        return (
            f"{self.code} {self.severity}: {place}{self.what}\n"
            f"    why: {self.why}\n"
            f"    do: {self.advice}"
        )


@dataclass
class Report:
    """
    What an examination came to.

    Attributes:
        facts: What was learnt on the way, by name.
        findings: What is wrong.
    """

    facts: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(
        self,
        code: str,
        what: str,
        path: str = "",
        line: int = 0,
        *,
        fix: str = "",
        kind: Code | None = None,
    ) -> None:
        """Note a finding."""
        self.findings.append(Finding(code, what, path, line, fix, kind))

    def found(self, code: str) -> bool:
        """Return whether something was found under a code."""
        return any(finding.code == code for finding in self.findings)

    @property
    def has_errors(self) -> bool:
        """Return whether anything grave was found."""
        return any(finding.severity == "error" for finding in self.findings)


def _error(why: str, fix: str) -> Code:
    return Code("error", why, fix)


def _warning(why: str, fix: str) -> Code:
    return Code("warning", why, fix)


_BLOCKS = "while it runs, no other request of this process is served"

CODES: Final[dict[str, Code]] = {
    # The project's files.
    "P101": _error(
        "whoever can read the repository can read it, and its history keeps it",
        "git rm --cached .env, and change every secret that was in it",
    ),
    "P102": _warning("the next `git add .` commits it", "add a line .env to .gitignore"),
    "P103": _error(
        "whoever can read the repository can use it, and its history keeps it",
        "move it to the environment or to .env, and change it where it is valid",
    ),
    "P104": _warning(
        "other files that `moorage init` wrote use it",
        "bring it back: moorage init --yes --force-file PATH",
    ),
    "P105": _error("it cannot be imported", "correct the syntax"),
    # Versions.
    "V201": _error("the packages are made for each other", "install one version of all of them"),
    "V202": _error("this version is known to fail", "install another version"),
    # Settings.
    "S301": _error("the application will not start", "correct the variable"),
    "S302": _warning("most often it is a slip, and the default is used", "correct or remove it"),
    "S303": _error("the value is the placeholder of .env.example", "fill in the real value"),
    "S304": _error("a server on another host lets nobody in without one", "set DB_PASSWORD"),
    "S305": _error(
        "whoever is between here and the server can read and change everything",
        "remove DB_SSL_MODE, or set it to verify-full; DB_SSL_CA names a certificate of your own",
    ),
    "S306": _warning(
        "one statement or lock can hold a connection for ever", "remove the variable, or set it"
    ),
    "S307": _warning(
        "at a peak, servers with the usual limit of 100 connections refuse the rest",
        "lower DB_POOL_SIZE and DB_MAX_OVERFLOW, or raise the server's limit and put a pooler"
        " before it",
    ),
    "S308": _warning("values of statements, personal ones too, are logged", "remove DB_ECHO"),
    "S309": _warning("which one counts is easy to mistake", "keep one of the two"),
    "S310": _warning(
        "which one is used depends on what is installed", "set DB_TYPE to the one that you mean"
    ),
    "S311": _warning(
        "connections that died while idle fail the first request that gets one",
        "remove DB_POOL_PRE_PING",
    ),
    # The connection.
    "C401": _error("without it there is no database", "see the message"),
    "C402": _error("the application cannot work", "see the message"),
    "C403": _warning(
        "times that the server sets and times that the application sets do not compare",
        "let both hosts synchronise their clocks (NTP)",
    ),
    # The server, as it shows on a connection.
    "C404": _error(
        "whoever is between here and the server can read and change everything, the password too",
        "switch TLS on at the server, and remove DB_SSL_MODE, or set it to verify-full",
    ),
    "C405": _error(
        "somebody else may have answered in the server's place",
        "let the connector hand its driver what make_ssl_context(settings) returns, unchanged",
    ),
    "C406": _error(
        "moorage uses what this version does not have, and nobody mends its faults any more",
        "upgrade the server",
    ),
    "C407": _error(
        "it hands connections on, and what is set on one is refused, ignored or somebody else's:"
        " limits do not hold, and a query can get the rows of another process's query",
        "say in the settings what is in between",
    ),
    "C408": _warning(
        "a session without an identity sees and changes the rows of everybody",
        "log in as a role that the policies hold for, or refuse sessions without an identity",
    ),
    "C409": _error(
        "at a peak the server refuses the rest, and other programs too",
        "lower DB_POOL_SIZE and DB_MAX_OVERFLOW, run fewer processes, or raise the limit",
    ),
    "C410": _warning(
        "days and hours that the server makes of a moment are those of that zone",
        "let sessions be in UTC, and convert where times are shown",
    ),
    "C411": _warning(
        "text with other characters is refused, or comes back spoilt",
        "make a database in the right one, and copy the rows",
    ),
    "C412": _error(
        "what is written there stays when the unit of work is rolled back",
        "convert them to an engine that knows transactions",
    ),
    "C413": _error(
        "a connection does not do what the settings promise", "find out what sets it otherwise"
    ),
    "C414": _error(
        "locks do not work there as they must: two writers at once destroy the file",
        "put the file on a disk of this machine, or use a server",
    ),
    "C415": _warning(
        "whoever writes makes all readers wait, and they him",
        "leave the journal's mode as it is by default",
    ),
    # Migrations.
    "M501": _error("the code expects tables or columns that are not there", "moorage db upgrade"),
    "M502": _error(
        "upgrade does not know which way to go", "join them: alembic merge heads -m MESSAGE"
    ),
    "M503": _error(
        "models and tables differ", 'moorage db revision -m "what it does", then upgrade'
    ),
    "M504": _warning("autogenerate does not see it", "import its module in env.py"),
    "M505": _error("nothing can be migrated", "see the message"),
    # The source.
    "A601": _error(_BLOCKS, "use an asynchronous session, or asyncio.to_thread"),
    "A602": _error(_BLOCKS, "use `await asyncio.sleep(…)`"),
    "A603": _error(_BLOCKS, "use httpx.AsyncClient, or asyncio.to_thread"),
    "A604": _error(
        "each call opens a pool of its own, and the server runs out of connections",
        "use one Database, or moorage.get_engine()",
    ),
    "A605": _error(
        "all tasks would use one session and one transaction",
        "open a session where it is used: `async with database.session()`",
    ),
    "A606": _error(
        "a session belongs to one task; two at once mix their results or fail",
        "give each task a session of its own",
    ),
    "A607": _error("it never runs; what it should do is not done", "write await before it"),
    "A608": _error(
        "the task runs when the request is over, and the session is closed by then",
        "hand on keys, and open a session in the task",
    ),
    "A609": _warning(
        "reading an attribute afterwards is a query, which fails where nobody awaits it",
        "async_sessionmaker(…, expire_on_commit=False), or moorage.get_sessionmaker()",
    ),
}
"""All kinds of findings, by code."""
