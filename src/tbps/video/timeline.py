"""The time of a video's frames, where its time stamps restart, jump, repeat or are missing; and which frames they leave room for.

Recordings that were joined, clocks that were set and counters that ran over (33 bits in MPEG-TS, after 26.5 hours) make time
stamps go back, or far ahead. There time goes on by the usual distance of two frames, so that every frame is looked at and none lies
hours away.
"""

from collections import Counter
from typing import final

FAR = 60.0  # seconds; a greater step ahead is a jump, unless frames are usually that far apart
FAR_IN_STREAMS = 10.0  # the same in formats that are made to be cut and joined (MPEG-TS), as FFmpeg has it
_TIMES_USUAL = 20
_REPEATED = 2  # frames in a row with one time stamp; the next is taken to be later
_DISORDER = 2  # usual distances by which a frame's time stamp may lie before the last one's without more: AVI at its end
_NEAR = 0.25  # of the usual distance by which steps of a constant frame rate differ (time stamps in whole milliseconds)
_CONSTANT = 0.8  # share of steps near the usual one, from which on the frame rate is constant


@final
class Timeline:
    """Seconds since the first frame, never going back. jumps: how often time stamps went back or far ahead."""

    def __init__(self, rate: float, far: float = FAR) -> None:
        """rate: frames a second, where the time stamps do not show it yet; far: seconds."""
        self.jumps = 0
        self._far = far
        self._usual = 1 / rate
        self._stamp: float | None = None
        self._now: float | None = None
        self._repeated = self._twice = 0
        self._steps: Counter[float] = Counter()  # in milliseconds

    def at(self, stamp: float | None) -> float:
        """The time of the next frame, given its time stamp in seconds, or None where it has none."""
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
        """The usual distance of two frames in seconds."""
        return self._median() if self._steps else self._usual

    @property
    def missing(self) -> int:
        """For how many frames the gaps leave room, where the frame rate is constant; else 0, since gaps mean nothing then."""
        usual = 1000 * self.usual
        near = sum(n for step, n in self._steps.items() if abs(step - usual) <= max(_NEAR * usual, 1.001))
        if near < _CONSTANT * self._steps.total():
            return 0
        room = sum(n * (round(step / usual) - 1) for step, n in self._steps.items() if step > 1.5 * usual)
        return max(0, room - self._twice)  # a frame with the time stamp of another one leaves a gap
