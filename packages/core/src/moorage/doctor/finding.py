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
    """

    code: str
    what: str
    path: str = ""
    line: int = 0
    fix: str = ""

    @property
    def severity(self) -> Severity:
        """Return how grave it is."""
        return CODES[self.code].severity

    def to_json(self) -> dict[str, str | int]:
        """Return what a script reads."""
        known = CODES[self.code]
        return {
            "code": self.code,
            "severity": known.severity,
            "what": self.what,
            "why": known.why,
            "fix": self.fix or known.fix,
            "path": self.path,
            "line": self.line,
        }

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}: " if self.line else f"{self.path}: " if self.path else ""
        known = CODES[self.code]
        return (
            f"{self.code} {known.severity}: {place}{self.what}\n"
            f"    why: {known.why}\n"
            f"    do: {self.fix or known.fix}"
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

    def add(self, code: str, what: str, path: str = "", line: int = 0, fix: str = "") -> None:
        """Note a finding."""
        self.findings.append(Finding(code, what, path, line, fix))

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
}
"""All kinds of findings, by code."""
