"""`tbps serve`: serve a gallery over HTTP."""

import os
from pathlib import Path
from typing import Annotated

import typer

from tbps.cli.console import log_warnings, messages, output, plain
from tbps.cli.models import open_model


def serve(
    gallery: Annotated[Path, typer.Argument(help="gallery folder made by `tbps index`")],
    host: Annotated[str, typer.Option(help="address to listen on; any other than a loopback address requires keys")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on; 0 takes a free one")] = 8400,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="host name under which browsers reach the service, such as search.example.org, without scheme and path; with a "
            "port only if that is neither 80 nor 443 (search.example.org:8443); may be repeated"
        ),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="address or network of a proxy, such as 127.0.0.1 or 10.0.0.0/8, whose X-Forwarded-For and X-Forwarded-Proto "
            "headers are trusted; by default none is; may be repeated"
        ),
    ] = None,
    state: Annotated[Path | None, typer.Option(help="folder of keys, audit log and uploads; default: GALLERY.service")] = None,
    blur_faces: Annotated[
        bool, typer.Option("--blur-faces", help="blur faces in all images that are shown (limits in docs/how-to/serve.md)")
    ] = False,
    searches_per_minute: Annotated[int, typer.Option(min=0, help="limit per key; 0 for no limit")] = 600,
    timeout: Annotated[float, typer.Option(min=0.1, help="time limit of a request in seconds")] = 30,
    waiting: Annotated[
        int, typer.Option(min=0, help="requests that may wait in the queue; further ones are answered with 503")
    ] = 64,
    batch_window: Annotated[
        float, typer.Option(min=0, max=50, help="milliseconds to wait for more descriptions to encode in one batch")
    ] = 2,
    upload_bytes: Annotated[int, typer.Option(min=1, help="largest upload in bytes")] = 4 * 2**30,
    model: Annotated[str | None, typer.Option(help="model folder or id, if it is no longer where it was at indexing")] = None,
) -> None:
    """Serve a gallery over HTTP: search, upload and erase in a browser or from programs.

    By default the service is reachable from this machine only, without a key. Once it has a key (`tbps keys add`), every request
    needs one, also from this machine. It speaks plain HTTP; to serve other machines, put a proxy with TLS in front of it. All
    access and changes are first written to the audit log (`tbps audit`). /v1/openapi.json describes the interface.

    Ctrl-C or SIGTERM ends the service after the requests in progress. Images that an upload has added by then are kept.

    Example: tbps serve my-gallery

    Example: tbps serve my-gallery --allow-host search.example.org --trusted-proxy 127.0.0.1 --blur-faces
    """
    from tbps.gallery import recorded
    from tbps.optional import needed

    for module in ("cachetools", "fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        needed(module, "tbps serve", "serve")
    from tbps.server import Service, ServiceSettings, run

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
    settings.addresses()  # raises an error about a wrong name before the model is read
    service = Service(gallery, open_model(model, gallery), settings, state)
    everybody = (
        "open to everybody on this machine; tbps keys add makes it ask for a key" if service.gate.is_open() else "keys needed"
    )
    if not os.access(gallery, os.W_OK):
        note = f"note: gallery {gallery} can only be read: searches are answered, uploads and erasures are refused"
        messages.print(plain(note), soft_wrap=True)
    run(service, lambda address: output.print(plain(f"{gallery} is served at {address} ({everybody})"), soft_wrap=True))
    messages.print("stopped")
