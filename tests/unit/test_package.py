"""What importing the package does."""

import os
import subprocess
import sys

import pytest

from pipelines.settings import PROJECT_ROOT

CODE = "import os, sys, pipelines; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"


@pytest.mark.parametrize(("before", "wanted"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_of_torch_do_not_spin_unless_somebody_wants_it(before: dict[str, str], wanted: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"PYTHONPATH": str(PROJECT_ROOT), **before}

    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.split() == [wanted, "False"], "and it is set before torch is there"
