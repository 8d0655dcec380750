"""Service object: owns gallery, model, state folder and threads from start to stop."""

import asyncio
import contextvars
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, final

from tbps.errors import RequestError, SettingsError, TbpsError
from tbps.gallery import Encoder, Gallery, complete_begun
from tbps.gallery import recorded as recorded_manifest
from tbps.machine import return_freed_memory
from tbps.server.audit import Audit
from tbps.server.batching import BatchingEncoder
from tbps.server.blur import FaceBlur
from tbps.server.callers.gate import Caller, Gate, GateSettings
from tbps.server.callers.keys import Keys
from tbps.server.callers.limits import Places, ticket
from tbps.server.faults import log
from tbps.server.metrics import Metrics
from tbps.server.recorded import Entry, recorded
from tbps.server.settings import ServiceSettings, state_folder
from tbps.server.shown import Shown
from tbps.server.state.claims import Claim
from tbps.server.state.opening import open_state
from tbps.server.uploads.decoding import Decoders
from tbps.server.uploads.jobs import DEED, Jobs
from tbps.server.uploads.pictures import PictureCaps
from tbps.server.uploads.records import Job

_T = TypeVar("_T")
_WATCH_SECONDS = 1.0
_WRITERS = 8  # threads that write to the audit log; lines that wait at the same time are written as one batch
_WARM_TEXT = "a person"


@final
class Service:
    """A gallery with its model and state folder. Runs from `start` to `stop`.

    Raises SettingsError if other machines can reach the service and no key exists, and as `open_state`.
    """

    def __init__(self, gallery: Path, model: Encoder, settings: ServiceSettings, state: Path | None = None) -> None:
        self.settings = settings
        self.state = state or state_folder(gallery)
        for remark in open_state(self.state, gallery, recorded_manifest(gallery)):
            log.warning(remark)
        self._claim = Claim(gallery, self.state)
        self.addresses = settings.addresses()
        self.keys = Keys(self.state)
        _check_reach(settings, bool(self.keys.all()), gallery)
        self.blur = FaceBlur() if settings.blur_faces else None
        self.metrics = Metrics()
        self.model = BatchingEncoder(
            model,
            settings.batch_window / 1000,
            settings.batch_texts,
            16 * (settings.at_once + settings.waiting),
            self.metrics.texts.observe,
        )
        self.gallery = Gallery.open(gallery, self.model, create=False)
        self.audit = Audit(self.state)
        self.gate = Gate(_gate_settings(settings), self.keys, self.state, self._record_wrong_key)
        self.jobs = Jobs(self.state, self.gallery, settings.jobs, self._job_ended)
        caps = PictureCaps(settings.picture_bytes, settings.pixels)
        # Separate pools, so that searches by picture do not wait for the decoding of uploads.
        self.asked_pictures, self.sent_pictures = Decoders(caps), Decoders(caps)
        self.shown = Shown()
        self.ready = threading.Event()
        self._arriving = Counter[str]()  # uploads that are being received, by key
        self.places = Places(settings.at_once + settings.waiting)
        self._pool = ThreadPoolExecutor(settings.at_once, thread_name_prefix="tbps-request")
        self._started, self._stopping = False, threading.Event()
        self._replacements, self._dropping = self.gallery.refreshed(), threading.Lock()
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="tbps-audit")

    def start(self) -> None:
        """Acquire the locks, start the upload queue and warm up the model in a thread; does nothing if already started.

        Raises SettingsError if another service uses the gallery or the state folder, StorageError if the state folder cannot be
        written.
        """
        if self._started:
            return
        self._claim.take()
        try:
            self.audit.check()
            self.jobs.start()
        except BaseException:
            self._claim.release()
            raise
        self._started = True
        threading.Thread(target=self._warm_up, name="tbps-warm-up", daemon=True).start()
        threading.Thread(target=self._watch, name="tbps-erasures", daemon=True).start()

    def stop(self) -> None:
        """End all threads and processes, and release the locks."""
        self._stopping.set()
        ended = self.jobs.stop()
        self.sent_pictures.stop()
        self.asked_pictures.stop()
        self.model.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if ended:  # otherwise the locks are released when the process ends
            self._claim.release()
        self._writers.shutdown(wait=False)

    async def work(self, do: Callable[..., _T], *args: Any, **more: Any) -> _T:
        """Run a function in a thread of the pool, unless its request has ended before a thread is free.

        Raises RequestError (503) if the request has ended or, for an identified caller, if too many requests are in progress.
        """
        context, mine = contextvars.copy_context(), ticket.get()
        if mine is not None:
            self.places.take(mine)
            self.metrics.under_way.set(self.places.taken)

        def run() -> _T:
            if mine is not None and not mine.left():
                raise RequestError(503, "timeout", "the request took too long; try again in a moment", 2)
            self.drop_erased()
            return do(*args, **more)

        return await asyncio.get_running_loop().run_in_executor(self._pool, context.run, run)

    async def writing(self, do: Callable[..., _T], *args: Any, **more: Any) -> _T:
        """Run a function that writes to the audit log in a separate thread pool, which does not wait for the pool of `work`."""
        return await asyncio.get_running_loop().run_in_executor(self._writers, partial(do, *args, **more))

    def recorded(self, caller: Caller, deed: str) -> AbstractAsyncContextManager[Entry]:
        """Context manager that writes one line to the audit log for a request, whether it succeeds or fails."""
        return recorded(Entry(self.audit, caller, deed), self.writing)

    @contextmanager
    def arriving(self, caller: Caller) -> Iterator[None]:
        """Context manager for receiving an upload. Raises RequestError (503) if the caller has too many unfinished uploads.

        One key may use half of the upload slots, so that others can upload too.
        """
        share = self.settings.jobs if caller.open else max(1, (self.settings.jobs + 1) // 2)
        waiting = sum(job.owner == caller.id and not job.ended for job in self.jobs.visible_to(caller))
        if waiting + self._arriving[caller.id] >= share:
            raise RequestError(503, "busy", f"{share} uploads with this key are not finished yet; send this one later", 60)
        self._arriving[caller.id] += 1
        try:
            yield
        finally:
            self._arriving[caller.id] -= 1

    async def _record_wrong_key(self, address: str) -> None:
        await self.writing(self.audit.write, "?", "", "refused key", address=address)

    def record(self, caller: Caller, deed: str, **facts: Any) -> None:
        """Write an action of a caller to the audit log. Raises RequestError if the request has timed out, StorageError."""
        mine = ticket.get()
        if mine is not None and not mine.left():
            raise RequestError(503, "timeout", "the request took too long; try again in a moment", 2)
        self.audit.write(caller.name, caller.id, deed, **facts)

    def warm_decoders(self) -> None:
        """Start a decoder process in a thread, so that the first search by picture need not wait for it."""

        def start() -> None:
            try:
                self.asked_pictures.warm_up()
            except TbpsError as error:
                if not self._stopping.is_set():  # stopping the service ends the process too
                    log.error("%s", error)

        threading.Thread(target=start, name="tbps-warm-decoders", daemon=True).start()

    def drop_erased(self) -> None:
        """Clear the caches in memory if any process has erased images since the last call. Costs two calls of `stat`.

        Errors on reading the gallery are ignored here; the requests that need the gallery report them.
        """
        try:
            replacements = self.gallery.refreshed()
        except TbpsError:
            return
        with self._dropping:
            if replacements == self._replacements:
                return
            self._replacements = replacements
        if self.blur is not None:
            self.blur.forget()
        self.shown.forget()
        return_freed_memory()

    def _watch(self) -> None:
        """Call `drop_erased` every second, also without requests, and complete erasures whose process was killed."""
        last = ""
        while not self._stopping.wait(_WATCH_SECONDS):
            try:
                self.drop_erased()
                complete_begun(self.gallery.path)
                last = ""
            except TbpsError as error:
                if str(error) != last:
                    log.error("%s", error)
                last = str(error)

    def _warm_up(self) -> None:
        try:
            self.model.encode_texts([_WARM_TEXT])
            if len(self.gallery):
                self.gallery.prepare()
        except TbpsError as error:
            log.error("warming up: %s", error)
        self.ready.set()

    def _job_ended(self, job: Job) -> None:
        self.audit.write(job.owner_name, job.owner, DEED, job=job.id, state=job.state, added=job.added, skipped=len(job.skipped))


def _gate_settings(settings: ServiceSettings) -> GateSettings:
    return GateSettings(
        loopback_only=settings.on_loopback and not settings.allow_hosts,
        session_hours=settings.session_hours,
        searches_per_minute=settings.searches_per_minute,
        failures_per_minute=settings.failures_per_minute,
    )


def _check_reach(settings: ServiceSettings, has_keys: bool, gallery: Path) -> None:
    if has_keys or (settings.on_loopback and not settings.allow_hosts):
        return
    what = f"--host {settings.host}" if not settings.on_loopback else f"--allow-host {settings.allow_hosts[0]}"
    raise SettingsError(
        f"{what} lets other machines reach the gallery, but there are no keys; create one with: "
        f"tbps keys add {gallery} NAME --role administrator"
    )
