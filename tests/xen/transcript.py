"""What an operator types on the lab's hosts and what they answer, kept as text for the docs."""

from __future__ import annotations

import re
from pathlib import Path

from tests.xen.host import Host
from tests.xen.process import REPOSITORY, CommandFailed

_PROGRESS = re.compile(r"\(Reading database \.\.\.( \d+%)?$")


class Transcript:
    """Runs commands in dom0 and writes down each with its whole output, errors too."""

    def __init__(self, path: Path, opening: str) -> None:
        """Begin a transcript in a file, which it replaces."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.typed: list[str] = []
        path.write_text(opening)

    def section(self, title: str, text: str = "") -> None:
        """Begin a new part."""
        self._write(f"\n## {title}\n\n" + (f"{text}\n\n" if text else ""))

    def type(self, host: Host, command: str, *, timeout_s: float = 120, status: int = 0) -> str:
        """Run a command on a host and return its output.

        Raises:
            CommandFailed: If its exit status is not `status`.
        """
        done = host.run(f"({command}) 2>&1", timeout_s=timeout_s, check=False)
        said = [line for line in done.stdout.splitlines() if not _PROGRESS.match(line)]
        lines = [f"{host.name}# {command}", *said]
        self._write("".join(f"    {line}".rstrip() + "\n" for line in lines) + "\n")
        if done.status != status:
            raise CommandFailed(f"{host.name}# {command}: status {done.status}\n{done.stdout}")
        self.typed.append(command)
        return done.stdout

    def carry(self, source: Host, path: str, target: Host, place: str, mode: int = 0o644) -> None:
        """Copy a file between hosts, as an operator does with a tool of the site's own."""
        target.put(source.get(path), place, mode)
        self._write(f"(copied {source.name}:{path} to {target.name}:{place}, mode {mode:o})\n\n")

    def _write(self, text: str) -> None:
        with self._path.open("a") as file:
            file.write(text)


def commands_of(document: str, section: str) -> list[str]:
    """Return the commands (lines indented by four spaces) of a section of a document."""
    text = (REPOSITORY / document).read_text()
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if found is None:
        raise CommandFailed(f"{document} has no section {section!r}")
    return [line.strip() for line in found[1].splitlines() if line.startswith("    ")]
