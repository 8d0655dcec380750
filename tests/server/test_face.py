"""Names that `tbps.server` exports to other packages."""

import subprocess
import sys

from tests.support.processes import environment


def test_keys_and_audit_log_need_no_web_framework() -> None:
    """`tbps keys` and `tbps audit` work without the packages of `tbps serve`."""
    code = "import sys; from tbps.server import Audit, Keys, known_state, open_state, state_folder, verify; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert not {"cachetools", "fastapi", "prometheus_client", "starlette", "uvicorn"} & set(ran.stdout.split())
