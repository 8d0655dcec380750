"""Everything that a running service holds, and its beginning and end."""

import asyncio
import contextvars
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, final

from tbps.errors import RequestError, SettingsError, TbpsError
from tbps.gallery import Encoder, Gallery, complete_begun
from tbps.gallery import recorded as recorded_manifest
from tbps.machine import return_freed_memory
from tbps.server.answers import log
from tbps.server.audit import Audit
from tbps.server.batching import BatchingEncoder
from tbps.server.blur import FaceBlur
from tbps.server.callers import Caller, Gate
from tbps.server.claims import Claim
from tbps.server.decoding import Decoders
from tbps.server.job_records import Job
from tbps.server.jobs import DEED, Jobs
from tbps.server.keys import Keys
from tbps.server.limits import Places, ticket
from tbps.server.metrics import Metrics
from tbps.server.pictures import PictureCaps
from tbps.server.recorded import Entry, recorded
from tbps.server.settings import ServiceSettings, state_folder
from tbps.server.state import open_state

_T = TypeVar("_T")
_SHOWN_KEPT = 20_000
_LOOK_SECONDS = 1.0
_WRITERS = 8  # threads that wait for the audit log; what waits together is written together
_WARM_TEXT = "a person"


@final
class Service:
    """A gallery, its model and the state folder. Begun by `start`, ended by `stop`.

    Raises SettingsError where others than this machine could reach it and no key was made, and as `open_state`.
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
        self.gate = Gate(self.settings, self.keys, self.state, self._record_refused_key)
        self.jobs = Jobs(self.state, self.gallery, settings.jobs, self._job_ended)
        caps = PictureCaps(settings.picture_bytes, settings.pixels)
        # Two, so that uploads that take long to be decoded do not keep searches by pictures waiting.
        self.asked_pictures, self.sent_pictures = Decoders(caps), Decoders(caps)
        self.shown = Shown()
        self.ready = threading.Event()
        self._arriving = Counter[str]()  # uploads by key
        self.places = Places(settings.at_once + settings.waiting)
        self._pool = ThreadPoolExecutor(settings.at_once, thread_name_prefix="tbps-request")
        self._started, self._stopping = False, threading.Event()
        self._replacements, self._dropping = self.gallery.refreshed(), threading.Lock()
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="tbps-audit")

    def start(self) -> None:
        """Begins to index what is uploaded, and warms up in a thread; does nothing where it has begun.

        Raises SettingsError where another service serves the gallery or uses the state folder, StorageError where the state folder
        cannot be written: nothing could be answered.
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
        """Ends what is under way."""
        self._stopping.set()
        ended = self.jobs.stop()
        self.sent_pictures.stop()
        self.asked_pictures.stop()
        self.model.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if ended:  # else the end of this process releases it
            self._claim.release()
        self._writers.shutdown(wait=False)

    async def work(self, do: Callable[..., _T], *args: Any, **more: Any) -> _T:
        """Does something that takes its time in a thread. When nobody waits any more, what has not begun is not done.

        Raises RequestError (503) where a request of a known caller finds no place.
        """
        context, mine = contextvars.copy_context(), ticket.get()
        if mine is not None:
            self.places.take(mine)
            self.metrics.under_way.set(self.places.taken)

        def run() -> _T:
            if mine is not None and not mine.left():
                raise RequestError(503, "timeout", "the request took too long; ask again in a moment", 2)
            self.drop_erased()
            return do(*args, **more)

        return await asyncio.get_running_loop().run_in_executor(self._pool, context.run, run)

    async def writing(self, do: Callable[..., _T], *args: Any, **more: Any) -> _T:
        """Writes to the audit log in a thread, however busy those of `work` are."""
        return await asyncio.get_running_loop().run_in_executor(self._writers, partial(do, *args, **more))

    def recorded(self, caller: Caller, deed: str) -> AbstractAsyncContextManager[Entry]:
        """A block that leaves one line in the audit log however it ends."""
        return recorded(Entry(self.audit, caller, deed), self.writing)

    @contextmanager
    def arriving(self, caller: Caller) -> Iterator[None]:
        """A block in which an upload of a caller arrives. Raises RequestError (503) where one key has its share of them.

        That is half of the uploads that may arrive or wait, so that the holder of one key leaves some to others.
        """
        share = self.settings.jobs if caller.open else max(1, (self.settings.jobs + 1) // 2)
        waiting = sum(job.owner == caller.id and not job.ended for job in self.jobs.of(caller))
        if waiting + self._arriving[caller.id] >= share:
            raise RequestError(503, "busy", f"{share} uploads with this key arrive or wait already; send this one later", 60)
        self._arriving[caller.id] += 1
        try:
            yield
        finally:
            self._arriving[caller.id] -= 1

    async def _record_refused_key(self, address: str) -> None:
        await self.writing(self.audit.write, "?", "", "refused key", address=address)

    def record(self, caller: Caller, deed: str, **facts: Any) -> None:
        """Writes what a caller did into the audit log, unless nobody waits for the answer any more."""
        mine = ticket.get()
        if mine is not None and not mine.left():
            raise RequestError(503, "timeout", "the request took too long; ask again in a moment", 2)
        self.audit.write(caller.name, caller.id, deed, **facts)

    def warm_decoders(self) -> None:
        """Starts the process that decodes the pictures of searches, in a thread: the first such search need not wait for it."""

        def start() -> None:
            try:
                self.asked_pictures.warm_up()
            except TbpsError as error:
                if not self._stopping.is_set():  # else the end of the service ended the process too
                    log.error("%s", error)

        threading.Thread(target=start, name="tbps-warm-decoders", daemon=True).start()

    def drop_erased(self) -> None:
        """Lets go of everything that may tell of images which any process erased since the last call. It costs two looks at files.

        A gallery that cannot be read is an error of whatever is asked of it.
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
        """Drops what was erased where nobody asks, and completes erasures whose process was killed."""
        said = ""
        while not self._stopping.wait(_LOOK_SECONDS):
            try:
                self.drop_erased()
                complete_begun(self.gallery.path)
                said = ""
            except TbpsError as error:
                if str(error) != said:
                    log.error("%s", error)
                said = str(error)

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


@final
class Shown:
    """Which images the audit log says that a caller was shown lately: the pictures of an answer need no further lines."""

    def __init__(self) -> None:
        self._ids: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, caller: Caller, ids: Iterable[str]) -> None:
        """These are in the log."""
        with self._lock:
            for name in ids:
                self._ids[caller.id, name] = None
                self._ids.move_to_end((caller.id, name))
            while len(self._ids) > _SHOWN_KEPT:
                self._ids.popitem(last=False)

    def forget(self) -> None:
        """Empties the list: pictures that are looked at again are logged again."""
        with self._lock:
            self._ids.clear()

    def holds(self, caller: Caller, name: str) -> bool:
        """Whether this image is in the log for this caller."""
        return (caller.id, name) in self._ids


def _check_reach(settings: ServiceSettings, has_keys: bool, gallery: Path) -> None:
    if has_keys or (settings.on_loopback and not settings.allow_hosts):
        return
    what = f"--host {settings.host}" if not settings.on_loopback else f"--allow-host {settings.allow_hosts[0]}"
    raise SettingsError(
        f"{what} lets others reach the gallery, but there are no keys; make one with: "
        f"tbps keys add {gallery} NAME --role administrator"
    )
