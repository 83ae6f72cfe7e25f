"""The stack on which a thread's signal handlers run, preserved from libraries that replace it."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_DISABLE = 2  # SS_DISABLE of signal.h


class _Stack(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def preserved_signal_stack() -> Iterator[None]:
    """Restore this thread's alternate signal stack when the block ends.

    OpenVINO sets its own when it compiles a network, and frees it with the last network, in any thread. A signal that
    this thread handles in Python after that, such as SIGTERM or SIGCHLD, ends the process with a segmentation fault.
    Where the old stack is too small for the processor's registers, which the kernel checks, handlers run on the
    thread's usual stack. Windows has no such stacks, and registered models run there as well.
    """
    if os.name != "posix":
        yield
        return
    libc = ctypes.CDLL(None)
    before = _Stack()
    known = hasattr(libc, "sigaltstack") and libc.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known and libc.sigaltstack(ctypes.byref(before), None):
            libc.sigaltstack(ctypes.byref(_Stack(None, _DISABLE, 0)), None)
