import os
import sys

import pytest

from tbps.machine import available_cores


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux restricts a process to cores")
def test_a_restricted_process_has_one_available_core() -> None:
    before = os.sched_getaffinity(0)
    assert available_cores() == len(before)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
