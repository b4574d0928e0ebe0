"""Hold a process by a descriptor, so that it is never mistaken for a later one of its number."""

from __future__ import annotations

import errno
import os


def open_pidfd(pid: int) -> int:
    """Return a pidfd of whoever has the number now; the caller closes it. Spec: pidfd_open(2).

    Raises:
        ProcessLookupError: If nobody has it.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        # While a number is being given back. Source: Linux kernel/fork.c, pidfd_prepare.
        if error.errno == errno.EINVAL:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
        raise
