"""The section of a README that is ours, between two marks; the rest of the file is not."""

from __future__ import annotations

from collections.abc import Sequence

from moorage.scaffold.changes import digest

__all__ = ["Section"]

_BEGIN, _END = "<!-- moorage -->", "<!-- /moorage -->"


class Section:
    """A section, as it shall be."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._text = "\n".join([_BEGIN, *lines, _END])

    @property
    def digest(self) -> str:
        """Return what a manifest remembers of it."""
        return digest(self._text)

    def put_into(self, before: str | None, written: str | None, title: str) -> tuple[str, str]:
        """
        Return a README with the section, and why it is left as it is, if it is.

        Args:
            before: The file; ``None`` if there is none.
            written: The digest of the section that an earlier run wrote.
            title: The heading of a new file.
        """
        if before is None:
            return f"# {title}\n\n{self._text}\n", ""
        start, end = before.find(_BEGIN), before.find(_END)
        if start < 0 or end < start:
            if written is not None:
                return before, "you removed our section"
            ended = before if before.endswith("\n") or not before else f"{before}\n"
            return f"{ended}\n{self._text}\n", ""
        current = before[start : end + len(_END)]
        if current != self._text and digest(current) != written:
            return before, "you changed our section"
        return before.replace(current, self._text), ""
