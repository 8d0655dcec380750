"""Computes the times of a video's frames, even if its time stamps restart, jump, repeat or are missing; estimates missing frames.

Time stamps go back or far ahead where recordings were joined, a clock was set, or a counter overflowed (33 bits in MPEG-TS, after
26.5 hours). There the time advances by the usual distance of two frames, so that no frame is skipped or placed hours away.
"""

from collections import Counter
from typing import final

FAR = 60.0  # seconds; a longer step ahead is a jump, unless frames are usually that far apart
FAR_IN_STREAMS = 10.0  # the same for formats that are made to be cut and joined (MPEG-TS); FFmpeg's value
_TIMES_USUAL = 20
_REPEATED = 2  # number of consecutive repetitions of a time stamp from which frames are assumed to be later
_DISORDER = 2  # a step back of at most this many usual distances is not a jump: it occurs at the end of AVI files
_NEAR = 0.25  # share of the usual distance by which steps of a constant frame rate may differ (time stamps in milliseconds)
_CONSTANT = 0.8  # share of steps near the usual distance that makes a frame rate constant


@final
class Timeline:
    """Converts time stamps to seconds since the first frame, never decreasing. jumps: number of steps back or far ahead."""

    def __init__(self, rate: float, far: float = FAR) -> None:
        """rate: frames per second, used until it is known from time stamps; far: a step ahead of more seconds is a jump."""
        self.jumps = 0
        self._far = far
        self._usual = 1 / rate
        self._stamp: float | None = None
        self._now: float | None = None
        self._repeated = self._twice = 0
        self._steps: Counter[float] = Counter()  # in milliseconds

    def at(self, stamp: float | None) -> float:
        """The time of the next frame. stamp: its time stamp in seconds, None when it has none."""
        if self._now is None:
            self._now = 0.0
        elif stamp is None or self._stamp is None:
            self._now += self._usual
            stamp = self._stamp + self._usual if stamp is None and self._stamp is not None else stamp
        elif 0 < self._stamp - stamp <= _DISORDER * self._usual:
            return self._now
        else:
            self._now += self._step(stamp - self._stamp)
        self._stamp = stamp
        return self._now

    def _step(self, step: float) -> float:
        if step == 0:
            self._repeated += 1
            self._twice += 1
            return 0.0 if self._repeated < _REPEATED else self._usual
        self._repeated = 0
        if step < 0 or step > max(self._far, _TIMES_USUAL * self._usual):
            self.jumps += 1
            return self._usual
        self._steps[round(1000 * step, 3)] += 1
        if self._steps.total() <= 20 or self._steps.total() % 1000 == 0:
            self._usual = self._median()
        return step

    def _median(self) -> float:
        half, seen = self._steps.total() / 2, 0
        for step in sorted(self._steps):
            seen += self._steps[step]
            if seen >= half:
                break
        return step / 1000

    @property
    def usual(self) -> float:
        """The median distance of two frames in seconds."""
        return self._median() if self._steps else self._usual

    @property
    def missing(self) -> int:
        """Number of frames that fit into the gaps between frames; 0 for a variable frame rate, at which gaps are normal."""
        usual = 1000 * self.usual
        near = sum(n for step, n in self._steps.items() if abs(step - usual) <= max(_NEAR * usual, 1.001))
        if near < _CONSTANT * self._steps.total():
            return 0
        room = sum(n * (round(step / usual) - 1) for step, n in self._steps.items() if step > 1.5 * usual)
        return max(0, room - self._twice)  # a frame with a repeated time stamp leaves a gap
