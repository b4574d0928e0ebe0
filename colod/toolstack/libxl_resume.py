"""Resume a suspended domain through libxenlight: `python -m colod.toolstack.libxl_resume DOMID`.

For an xl that has no `resume` command (it came with Xen 4.20). A program of its own, as libxl
takes over SIGCHLD and may abort the process that it lives in.

Spec: Xen tools/include/libxl.h, libxl_ctx_alloc and libxl_domain_resume;
tools/include/xentoollog.h.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

LIBXL_VERSION = 0
XTL_WARN = 7
SUSPEND_CANCEL = 1
"""The guest goes on as if its suspend call had been refused; no new devices are made."""

_XEN_VERSION = Path("/sys/hypervisor/version")


def main(arguments: list[str]) -> int:
    """Resume the domain that `arguments` names; return the exit status."""
    if len(arguments) != 1 or not arguments[0].isdecimal() or int(arguments[0]) == 0:
        print("usage: python -m colod.toolstack.libxl_resume DOMID", file=sys.stderr)
        return 2
    try:
        return _resume(_libxenlight(), int(arguments[0]))
    except OSError as error:
        print(f"libxenlight cannot be loaded: {error}", file=sys.stderr)
        return 1


def _libxenlight() -> ctypes.CDLL:
    """Load the library of the Xen that runs: one that does not fit it cannot talk to it."""
    version = [
        (_XEN_VERSION / part).read_text(encoding="ascii").strip() for part in ("major", "minor")
    ]
    return ctypes.CDLL(f"libxenlight.so.{'.'.join(version)}", use_errno=True)


def _logger() -> ctypes.c_void_p:
    library = ctypes.CDLL("libxentoollog.so.1")
    create = library.xtl_createlogger_stdiostream
    create.restype = ctypes.c_void_p
    create.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint)
    stderr = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stderr")
    return ctypes.c_void_p(create(stderr, XTL_WARN, 0))


def _resume(library: ctypes.CDLL, domid: int) -> int:
    context = ctypes.c_void_p()
    library.libxl_ctx_alloc.argtypes = (
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_void_p,
    )
    library.libxl_domain_resume.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_void_p,
    )
    library.libxl_ctx_free.argtypes = (ctypes.c_void_p,)
    rc = library.libxl_ctx_alloc(ctypes.byref(context), LIBXL_VERSION, 0, _logger())
    if rc:
        print(f"libxl_ctx_alloc failed (rc={rc})", file=sys.stderr)
        return 1
    rc = library.libxl_domain_resume(context, domid, SUSPEND_CANCEL, None)
    if rc:
        print(f"libxl_domain_resume failed (rc={rc})", file=sys.stderr)
    library.libxl_ctx_free(context)
    return 1 if rc else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
