"""Missing frames and truncated videos are counted and reported."""

import re
from pathlib import Path

import numpy as np
import pytest

from tbps.video.decode import Every
from tests.support.films import damaged, decoded, encode, fragmented, joined


@pytest.mark.parametrize(
    ("name", "codec", "elements"),
    [
        ("a.mp4", "libx264", False),
        ("a.mp4", "mpeg4", True),
        ("a.mkv", "libx264", False),
        ("a.mkv", "mpeg4", True),
        ("a.webm", "libvpx-vp9", True),
        ("a.avi", "mpeg4", False),
        ("a.ts", "libx264", True),
    ],
)
def test_missing_frames_are_counted_in_every_format(
    name: str, codec: str, elements: bool, frames: list[np.ndarray], tmp_path: Path
) -> None:
    """Compares counts with the remaining frames, which the test recognises by their content."""
    path = damaged(encode(tmp_path / name, frames, codec), 12, 17, elements)
    looked, tally = decoded(path, Every(frames=1))
    there = {round(offset * 10) for offset, _ in looked}
    assert 5 <= 30 - tally.frames <= 8  # the demuxer resumes at the next Matroska cluster
    assert tally.missing == 30 - tally.frames and tally.incomplete is None
    assert {*range(12), *range(20, 30)} - there <= {11} and 29 in there  # frame 11 may have lost its last bytes
    for offset, frame in looked:
        assert np.abs(frame.pixels.astype(int) - frames[round(offset * 10)]).mean() < 12
    assert any(remark.startswith(f"{tally.missing} of about 30 frames could not be decoded") for remark in tally.remarks)


@pytest.mark.parametrize(("first", "last"), [(0, 1), (27, 30)])
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mp4", "mpeg4"), ("a.mp4", "libvpx-vp9"), ("a.mov", "libx265")]
)
def test_missing_frames_at_both_ends_are_counted(
    name: str, codec: str, first: int, last: int, frames: list[np.ndarray], tmp_path: Path
) -> None:
    """A video that lacks its first key frame begins with the next key frame, often without an error."""
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = damaged(encode(tmp_path / name, frames, codec, **quiet), first, last, False)
    looked, tally = decoded(path, Every(frames=1))
    assert 1 <= 30 - len(looked) <= 5 and tally.missing == 30 - len(looked)
    small = [each[::4, ::4] for each in frames]
    seen = {int(np.argmin([np.abs(frame.pixels[::4, ::4].astype(int) - each).mean() for each in small])) for _, frame in looked}
    assert (0 not in seen) == (first == 0) and (29 not in seen) == (last == 30)


def test_a_whole_video_has_no_remarks(frames: list[np.ndarray], tmp_path: Path) -> None:
    kinds = {"a.mp4": "libx264", "b.mkv": "libx264", "c.webm": "libvpx", "d.avi": "libx264", "e.ts": "libx264", "f.flv": "libx264"}
    kinds |= {"g.wmv": "wmv2", "h.mov": "mpeg4", "i.mpg": "mpeg2video", "j.webm": "libvpx-vp9"}
    for name, codec in kinds.items():
        path = encode(tmp_path / name, frames, codec, begins=5 if name == "b.mkv" else 0, rate=25 if name == "i.mpg" else 10)
        tally = decoded(path, Every())[1]
        assert (tally.frames, tally.missing, tally.jumps, tally.remarks, tally.incomplete) == (30, 0, 0, [], None), name


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_truncated_video_is_incomplete(name: str, frames: list[np.ndarray], tmp_path: Path) -> None:
    path = encode(tmp_path / name, frames, "mpeg4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    tally = decoded(path, Every())[1]
    assert 10 <= tally.frames < 20 and tally.missing > 0
    assert tally.incomplete is not None and "seconds that its header promises could be read" in tally.incomplete


def test_damage_in_a_fragmented_video_makes_it_incomplete(frames: list[np.ndarray], tmp_path: Path) -> None:
    path = fragmented(tmp_path / "a.mp4", frames)
    assert decoded(path, Every(frames=1))[1].incomplete is None
    content = path.read_bytes()
    places = [found.start() - 4 for found in re.finditer(b"moof", content)]
    assert len(places) == 6
    path.write_bytes(content[: places[3]] + bytes(300) + content[places[3] + 300 :])
    tally = decoded(path, Every(frames=1))[1]
    behind = len(content) - places[3]
    assert tally.frames < 20
    assert tally.incomplete == f"it is damaged at byte {places[3]:,}, and the {behind:,} bytes from there on cannot be read"
    path.write_bytes(content + bytes(5000))  # space that a recorder has reserved
    assert decoded(path, Every(frames=1))[1].incomplete is None


def test_a_second_video_joined_to_the_first_is_reported_when_it_cannot_be_read(frames: list[np.ndarray], tmp_path: Path) -> None:
    whole, parts = encode(tmp_path / "a.mp4", frames, "mpeg4"), fragmented(tmp_path / "b.mp4", frames)
    tally = decoded(joined(tmp_path / "two.mp4", whole, whole), Every(frames=1))[1]
    assert tally.frames == 30 and tally.incomplete is not None and "a second recording from byte" in tally.incomplete
    tally = decoded(joined(tmp_path / "fragments.mp4", parts, parts), Every(frames=1))[1]
    assert tally.frames >= 55 and tally.incomplete is None  # the edit list of the first video cuts the second one


def test_a_truncated_motion_jpeg_avi_is_compared_with_the_frame_count_in_its_header(
    frames: list[np.ndarray], tmp_path: Path
) -> None:
    """FFmpeg would guess a shorter duration, from the size of the truncated file."""
    path = encode(tmp_path / "a.avi", frames, "mjpeg", "yuvj420p")
    assert decoded(path, Every(frames=1))[1].incomplete is None
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    tally = decoded(path, Every(frames=1))[1]
    assert tally.incomplete is not None and "of the 3.0 seconds" in tally.incomplete
    assert 10 <= tally.frames < 20 and tally.missing == 30 - tally.frames


def test_joined_recordings_of_two_codecs(frames: list[np.ndarray], tmp_path: Path) -> None:
    parts = [encode(tmp_path / f"{codec}.ts", frames, codec, rate=25) for codec in ("mpeg2video", "libx264")]
    looked, tally = decoded(joined(tmp_path / "joined.ts", *parts), Every(frames=1))
    assert len(looked) <= 30 and 30 <= tally.missing <= 33
    assert any(remark.startswith(f"{tally.missing} of about ") for remark in tally.remarks)
