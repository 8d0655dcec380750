"""A stopped service does not stay in the memory of its process."""

import gc
import weakref
from pathlib import Path

from tests.support.served import make_gallery, service_of, serving


def test_a_stopped_service_is_not_kept_in_memory(tmp_path: Path) -> None:
    """Regression: FastAPI caches route functions with their closures, which kept every service and gallery in memory."""
    gallery = make_gallery(tmp_path, range(2))
    with serving(gallery) as client:
        assert service_of(client).ready.wait(300)
        assert client.post("/v1/search", json={"texts": [{"text": "a man"}]}).status_code == 200
        for path in ("/", "/healthz", "/metrics", "/v1/session", "/v1/gallery", "/v1/openapi.json"):
            assert client.get(path).status_code == 200
        kept = [weakref.ref(service_of(client)), weakref.ref(service_of(client).gallery)]
    del client
    gc.collect()
    assert [each() for each in kept] == [None, None]
