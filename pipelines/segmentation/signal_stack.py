"""The stack on which a thread's signal handlers run, kept from libraries that replace it."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_DISABLE = 2  # SS_DISABLE of signal.h


class _Stack(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give this thread its alternate signal stack back when the block ends.

    OpenVINO sets one of its own when it compiles a network, and frees it with the last network, in whichever thread that
    happens. A signal that this thread handles in Python after that, be it SIGTERM or SIGCHLD, ends the process with a
    segmentation fault. Where the old stack is too small for the processor's registers, which the kernel checks, handlers
    run on the thread's usual stack.
    """
    libc = ctypes.CDLL(None)
    before = _Stack()
    known = hasattr(libc, "sigaltstack") and libc.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known and libc.sigaltstack(ctypes.byref(before), None):
            libc.sigaltstack(ctypes.byref(_Stack(None, _DISABLE, 0)), None)
