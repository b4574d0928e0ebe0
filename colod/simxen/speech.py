"""What xl says on stderr, and how it reads its options."""

import sys
from collections.abc import Sequence
from typing import NoReturn

ERROR_FAIL = -3
ERROR_INVAL = -6
ERROR_GUEST_TIMEDOUT = -8
ERROR_DOMAIN_NOTFOUND = -21

BANNER = "colod-simxl: this is a simulated Xen; nothing here is a real domain"


class XlExit(Exception):
    """End this xl command with an exit status."""

    def __init__(self, status: int) -> None:
        """Keep the status."""
        super().__init__(status)
        self.status = status


def say(text: str) -> None:
    """Write one line to stderr, at once and in one piece."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def libxl_error(function: str, text: str, domid: int | None = None) -> None:
    """Write an error as libxl's logger does; the file it names says that this is simulated."""
    subject = "" if domid is None else f"Domain {domid}:"
    say(f"libxl: error: libxl_simulated.c:0:{function}: {subject}{text}")


def fail(text: str, status: int = 1) -> NoReturn:
    """Say why and end."""
    say(text)
    raise XlExit(status)


def options(
    arguments: Sequence[str], letters: str, command: str, required: int
) -> tuple[dict[str, str], list[str]]:
    """Read short options as xl's `SWITCH_FOREACH_OPT` does (getopt: options may come anywhere).

    Args:
        arguments: What follows the command.
        letters: As for getopt: a colon after those that take a value.
        command: For the messages.
        required: How many arguments must remain.
    """
    found: dict[str, str] = {}
    rest: list[str] = []
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        if word == "--":
            rest += queue
            break
        if len(word) < 2 or word[0] != "-":
            rest.append(word)
        elif word[1] == "-":
            fail("option `-' not supported.", 2)
        else:
            _cluster(word[1:], letters, queue, found)
    if len(rest) < required:
        plural = "s" if required > 1 else ""
        fail(f"'xl {command}' requires at least {required} argument{plural}.\n", 2)
    return found, rest


def _cluster(cluster: str, letters: str, queue: list[str], found: dict[str, str]) -> None:
    for index, letter in enumerate(cluster):
        at = letters.find(letter)
        if at < 0 or letter == ":":
            fail(f"option `{letter}' not supported.", 2)
        if letters[at + 1 : at + 2] == ":":
            attached = cluster[index + 1 :]
            if not attached and not queue:
                fail(f"option `{letter}' not supported.", 2)
            found[letter] = attached or queue.pop(0)
            return
        found[letter] = ""
