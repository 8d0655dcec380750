"""`tbps serve`: the service."""

import os
from pathlib import Path
from typing import Annotated

import typer

from tbps.cli.console import log_warnings, messages, output, plain
from tbps.cli.models import open_model


def serve(
    gallery: Annotated[Path, typer.Argument(help="gallery folder made by `tbps index`")],
    host: Annotated[str, typer.Option(help="address to listen on; any but this machine's own needs keys")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one")] = 8400,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="name that browsers reach the service by, such as search.example.org, without scheme and path; with a port only "
            "where that is neither 80 nor 443 (search.example.org:8443); repeatable"
        ),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="address or network of a proxy, such as 127.0.0.1 or 10.0.0.0/8, whose X-Forwarded-For and X-Forwarded-Proto are "
            "believed; without it nobody's are; repeatable"
        ),
    ] = None,
    state: Annotated[Path | None, typer.Option(help="folder of keys, audit log and uploads; by default GALLERY.service")] = None,
    blur_faces: Annotated[bool, typer.Option("--blur-faces", help="blur faces; docs/how-to/serve.md has the limits")] = False,
    searches_per_minute: Annotated[int, typer.Option(min=0, help="of one key; 0: any number")] = 600,
    timeout: Annotated[float, typer.Option(min=0.1, help="seconds that a request may take")] = 30,
    waiting: Annotated[int, typer.Option(min=0, help="requests that may wait beyond those worked on; more are answered 503")] = 64,
    batch_window: Annotated[float, typer.Option(min=0, max=50, help="milliseconds that a description waits for others")] = 2,
    upload_bytes: Annotated[int, typer.Option(min=1, help="of one upload at most")] = 4 * 2**30,
    model: Annotated[str | None, typer.Option(help="model folder or id, if it is no longer where it was at indexing")] = None,
) -> None:
    """Serve a gallery over HTTP: search, upload and erase with a browser or from programs.

    Without settings only this machine can reach it, and needs no key. With keys (`tbps keys add`) everybody needs one, also on this
    machine. It speaks plain HTTP: for others, put a proxy that speaks TLS before it. Everything that is shown or changed is written
    to the audit log first (`tbps audit`). /v1/openapi.json describes the interface.

    Ctrl-C or SIGTERM ends it after the requests under way; what an upload has added by then stays.

    Example: tbps serve my-gallery

    Example: tbps serve my-gallery --allow-host search.example.org --trusted-proxy 127.0.0.1 --blur-faces
    """
    from tbps.gallery import recorded
    from tbps.optional import needed

    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        needed(module, "tbps serve", "serve")
    from tbps.server.running import run
    from tbps.server.service import Service
    from tbps.server.settings import ServiceSettings

    log_warnings()
    settings = ServiceSettings.parse(
        {
            "host": host,
            "port": port,
            "allow_hosts": allow_host or (),
            "trusted_proxies": trusted_proxy or (),
            "blur_faces": blur_faces,
            "searches_per_minute": searches_per_minute,
            "timeout": timeout,
            "waiting": waiting,
            "batch_window": batch_window,
            "upload_bytes": upload_bytes,
        }
    )
    recorded(gallery)
    settings.addresses()  # says what is wrong with a name before the model is read
    service = Service(gallery, open_model(model, gallery), settings, state)
    everybody = (
        "open to everybody on this machine; tbps keys add makes it ask for a key" if service.gate.is_open() else "keys needed"
    )
    if not os.access(gallery, os.W_OK):
        note = f"note: gallery {gallery} can only be read: searches are answered, uploads and erasures are refused"
        messages.print(plain(note), soft_wrap=True)
    run(service, lambda address: output.print(plain(f"{gallery} is served at {address} ({everybody})"), soft_wrap=True))
    messages.print("stopped")
