"""Let a suspended guest run on, as `xl` cannot: resume.py DOMID.

`xl remus` that is killed within a checkpoint leaves its guest suspended for good. Pauses are
counted as ever: a guest that is paused too stays so until it is unpaused.
"""

import ctypes
import sys

MESSAGE_LEVEL = 4
COOPERATIVE = 1

tools = ctypes.CDLL("libxentoollog.so.1")
xl = ctypes.CDLL("libxenlight.so.4.17")
pointer, number, domid = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32
tools.xtl_createlogger_stdiostream.restype = pointer
tools.xtl_createlogger_stdiostream.argtypes = [pointer, number, ctypes.c_uint]
xl.libxl_ctx_alloc.argtypes = [ctypes.POINTER(pointer), number, ctypes.c_uint, pointer]
xl.libxl_domain_resume.argtypes = [pointer, domid, number, pointer]
xl.libxl_ctx_free.argtypes = [pointer]

stderr = pointer.in_dll(ctypes.CDLL(None), "stderr")
logger = tools.xtl_createlogger_stdiostream(stderr, MESSAGE_LEVEL, 0)
context = pointer()
if status := xl.libxl_ctx_alloc(ctypes.byref(context), 0, 0, logger):
    sys.exit(f"libxl_ctx_alloc: {status}")
status = xl.libxl_domain_resume(context, int(sys.argv[1]), COOPERATIVE, None)
xl.libxl_ctx_free(context)
sys.exit(f"libxl_domain_resume: {status}" if status else 0)
