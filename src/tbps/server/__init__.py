"""HTTP service of a gallery: API, browser page, keys and roles, audit log. Other packages of `tbps` import from here."""

from typing import TYPE_CHECKING

from tbps.faces import lazy

if TYPE_CHECKING:
    from tbps.server.audit import Audit, entries, verify
    from tbps.server.callers.keys import Key, Keys, Role
    from tbps.server.running import run
    from tbps.server.service import Service
    from tbps.server.settings import ServiceSettings, state_folder
    from tbps.server.state.opening import known_state, open_state
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "tbps.server.audit": ["Audit", "entries", "verify"],
            "tbps.server.callers.keys": ["Key", "Keys", "Role"],
            "tbps.server.running": ["run"],
            "tbps.server.service": ["Service"],
            "tbps.server.settings": ["ServiceSettings", "state_folder"],
            "tbps.server.state.opening": ["known_state", "open_state"],
        },
    )

__all__ = [
    "Audit",
    "Key",
    "Keys",
    "Role",
    "Service",
    "ServiceSettings",
    "entries",
    "known_state",
    "open_state",
    "run",
    "state_folder",
    "verify",
]
