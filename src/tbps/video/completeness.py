"""Estimates which frames of a video are missing, and whether its end was reached."""

import math
from pathlib import Path
from typing import Any, final

from tbps.video.boxes import damage_of
from tbps.video.streams import other_streams, promised_length, whole_number
from tbps.video.tally import Tally
from tbps.video.timeline import Timeline

_SOME_WITHOUT_FRAME = ("vp8", "libvpx")  # codecs with packets that decode to no frame
_LACKING = 0.75  # a gap before the first or after the last frame counts as missing frames above this share of the usual distance


@final
class Completeness:
    """Compares the packets and frames of a video with the length and count in its header.

    failed: packets that could not be decoded; damaged: frames that were decoded but not searched.
    """

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self._format: str = container.format.name
        self._length, self._slack = promised_length(container, stream)
        self._counted = int(stream.frames or whole_number(stream.metadata.get("NUMBER_OF_FRAMES")))
        self._others = other_streams(container, stream)
        self._damage = damage_of(path) if "mp4" in self._format else None
        self._one_frame_each = stream.codec_context.name not in _SOME_WITHOUT_FRAME  # whether every packet gives one frame
        self._packets = self._discarded = 0
        self._late = 0.0  # seconds from the first packet to the first frame
        self._newest = -math.inf  # greatest time stamp of a frame
        self._begins: float | None = None  # time stamps of the first and last packet, in seconds
        self._ends: float | None = None
        self.failed = self.damaged = 0

    def note_packet(self, packet: Any) -> None:
        """Records the start and end time of a packet."""
        self._discarded += packet.is_discard
        self._packets += bool(packet.size)
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or not packet.size or packet.is_discard:
            return
        begins = float(stamp * packet.time_base)
        ends = begins + float((packet.duration or 0) * packet.time_base)
        self._begins = begins if self._begins is None else min(self._begins, begins)
        self._ends = ends if self._ends is None else max(self._ends, ends)

    def note_frame(self, number: int, stamp: float | None, decoded: Any) -> None:
        """Records a decoded frame. stamp: its time stamp in seconds, None when it has none."""
        self._one_frame_each &= not decoded.interlaced_frame  # two fields may come in two packets
        if stamp is None:
            return
        if number == 0 and self._begins is not None:
            self._late = stamp - self._begins
        self._newest = max(self._newest, stamp)

    def settle(self, tally: Tally, timeline: Timeline) -> None:
        """Writes `missing`, `incomplete` and remarks to the tally, after the last packet."""
        cut_off = self._cut_off(tally, timeline)
        tally.remarks += self._others
        if tally.incomplete is None:
            tally.incomplete = self._damage
        missing = max(self._at_the_ends(tally, timeline) + timeline.missing + cut_off, self.failed)
        if self._counted:  # the file's own count is an upper bound
            missing = min(missing, max(0, self._counted - self._discarded - tally.frames))
        if self._one_frame_each:  # the decoder drops a joined recording of another codec without an error
            missing = max(missing, self._packets - self._discarded - tally.frames)
        tally.missing = missing
        if missing:
            why = "could not be decoded" if missing == self.failed else "could not be decoded or are not in the file"
            tally.remarks.append(f"{missing:,} of about {missing + tally.frames:,} frames {why}")
        if self.damaged:
            tally.remarks.append(f"{self.damaged:,} decoded frames were damaged or too large and were not searched")
        if tally.jumps:
            places = "in one place" if tally.jumps == 1 else f"in {tally.jumps:,} places"
            tally.remarks.append(f"its time stamps go back or far ahead {places}; time was counted on from there")

    def _cut_off(self, tally: Tally, timeline: Timeline) -> int:
        """The number of frames between the last packet and the end according to the header; records why the end was not reached."""
        if self._length is None or self._ends is None or self._begins is None or tally.jumps:
            return 0
        # Matroska's lengths count from 0 or from the first picture, depending on the program that wrote them.
        begins = min(0.0, self._begins) if self._format == "matroska,webm" else self._begins
        short = begins + self._length - self._ends
        if short <= max(self._slack, 1.5 * timeline.usual):
            return 0
        lasts, length = (f"{seconds:,.1f}" for seconds in (self._length - short, self._length))
        tally.incomplete = f"only {lasts} of the {length} seconds that its header promises could be read"
        return max(1, round(short / timeline.usual))

    def _at_the_ends(self, tally: Tally, timeline: Timeline) -> int:
        """The number of frames between the first packet and the first frame, and between the last frame and the last packet."""
        usual = timeline.usual
        after = 0.0
        if self._ends is not None and not tally.jumps and math.isfinite(self._newest):
            after = self._ends - self._newest - usual
        return sum(round(lacking / usual) for lacking in (self._late, after) if lacking > _LACKING * usual)
