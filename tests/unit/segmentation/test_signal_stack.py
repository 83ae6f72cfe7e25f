"""Signals are handled after OpenVINO compiled a network and after it let go of it."""

import subprocess
import sys

from pipelines.settings import PROJECT_ROOT

PROGRAM = """
import faulthandler, gc, os, signal, subprocess, threading
faulthandler.enable()  # it wants a signal stack of its own, as servers and test runners do
handled = []
for number in (signal.SIGCHLD, signal.SIGTERM):
    signal.signal(number, lambda number, frame: handled.append(number))
import numpy as np
import torch
from pipelines.segmentation.runtime import compile_network

networks = [compile_network(torch.nn.Conv2d(3, 4, 3), (3, 16, 16))]
networks[0](np.zeros((1, 3, 16, 16), np.float32))

def let_go():
    networks.clear()
    gc.collect()

thread = threading.Thread(target=let_go)
thread.start()
thread.join()
for _ in range(3):
    subprocess.run(["true"], check=True)
os.kill(os.getpid(), signal.SIGTERM)
print(sorted({signal.Signals(number).name for number in handled}))
"""


def test_a_network_that_another_thread_let_go_of_leaves_signals_working() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split("\n")[0]) == (0, "['SIGCHLD', 'SIGTERM']"), done.stderr[-2000:]
