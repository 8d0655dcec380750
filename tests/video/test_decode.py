"""Decoding videos: intervals, streams and formats, damage, and files that are not videos."""

from datetime import datetime
from pathlib import Path

import av
import numpy as np
import pytest

from tbps.errors import DataError
from tbps.video.decode import Every, open_video
from tbps.video.tally import Tally
from tests.support.films import decoded, encode, joined, packets_of, with_streams
from tests.support.walkers import write_film


@pytest.mark.parametrize(
    ("every", "numbers"),
    [
        (Every(0.5), range(0, 30, 5)),
        (Every(0.25), [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28]),
        (Every(frames=7), range(0, 30, 7)),
    ],
)
def test_frames_at_regular_intervals(every: Every, numbers: range, frames: list[np.ndarray], tmp_path: Path) -> None:
    looked, tally = decoded(write_film(tmp_path / "a.mp4", frames), every)
    assert [frame.number for _, frame in looked] == list(numbers)
    assert [offset for offset, _ in looked] == pytest.approx([number / 10 for number in numbers])
    assert (tally.frames, tally.looked_at, tally.broken) == (30, len(list(numbers)), 0)
    for _, frame in looked:
        assert np.abs(frame.pixels.astype(int) - frames[frame.number]).mean() < 6  # the loss of MPEG-4 compression


def test_broken_packets_are_counted_and_skipped(frames: list[np.ndarray], tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", frames)
    content = bytearray(path.read_bytes())
    for number in (7, 8, 13):
        start, size = packets_of(path)[number]
        content[start : start + size] = bytes(size)
    path.write_bytes(content)
    looked, tally = decoded(path, Every(frames=1))
    assert (tally.frames, tally.broken, len(looked)) == (27, 3, 27)


def test_a_truncated_video_is_read_as_far_as_it_goes(frames: list[np.ndarray], tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", frames)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _, tally = decoded(path, Every())
    assert 0 < tally.frames < 30


def test_the_start_of_a_recording_is_read_from_its_metadata(frames: list[np.ndarray], tmp_path: Path) -> None:
    for began, expected in (
        ("2024-05-01T08:30:00Z", datetime(2024, 5, 1, 8, 30)),
        (None, None),
        ("1970-01-01T00:00:00Z", None),  # a camera without a clock
    ):
        with open_video(write_film(tmp_path / "a.mp4", frames[:2], began=began)) as video:
            assert (video.started, video.expected) == (expected, 2)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.mp4", b""),
        ("a.mp4", b"text" * 1000),
        ("list.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nreal.mp4\n#EXT-X-ENDLIST\n"),
        ("list.mkv", b"ffconcat version 1.0\nfile real.mp4\n"),
    ],
)
def test_playlists_named_as_videos_open_no_other_file(name: str, content: bytes, frames: list[np.ndarray], tmp_path: Path) -> None:
    write_film(tmp_path / "real.mp4", frames[:2])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="cannot be opened as a video"), open_video(tmp_path / name):
        pass


def test_a_file_without_a_video_stream(tmp_path: Path) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match="no video stream"), open_video(path):
        pass


@pytest.mark.parametrize("begin", [(0, 0), (5000, 0), (0, 5000), (0, 30), (95442, 0), (0, 0, 0)])
def test_joined_recordings_are_read_to_the_end(begin: tuple[int, ...], frames: list[np.ndarray], tmp_path: Path) -> None:
    """Joined MPEG-TS files: time stamps that go back, jump ahead, or (95442, 0) overflow their 33 bits."""
    small = [pixels[::2, ::2] for pixels in frames]
    parts = [encode(tmp_path / f"{number}.ts", small, begins=start) for number, start in enumerate(begin)]
    looked, tally = decoded(joined(tmp_path / "joined.ts", *parts), Every(0.5))
    count = len(frames) * len(begin)
    assert (tally.frames, tally.looked_at, tally.missing, tally.incomplete) == (count, count // 5, 0, None)
    assert [offset for offset, _ in looked] == pytest.approx([number / 2 for number in range(count // 5)], abs=1e-3)
    assert [frame.number for _, frame in looked] == list(range(0, count, 5))
    assert tally.jumps == len(begin) - 1 and any("time stamps go back or far ahead" in remark for remark in tally.remarks)
    for _, frame in looked:
        assert np.abs(frame.pixels.astype(int) - small[frame.number % 30]).mean() < 12


def test_the_larger_of_two_video_streams_is_read_and_the_other_reported(frames: list[np.ndarray], tmp_path: Path) -> None:
    small = [pixels[::2, ::2] for pixels in frames]
    looked, tally = decoded(with_streams(tmp_path / "two.mkv", small, frames), Every())
    assert {frame.pixels.shape for _, frame in looked} == {(320, 480, 3)} and len(looked) == 6
    assert tally.remarks == ["only stream 1 (480 x 320) of its 2 video streams was searched, not 0: 240 x 160"]


def test_a_cover_is_no_video_stream(frames: list[np.ndarray], tmp_path: Path) -> None:
    looked, tally = decoded(with_streams(tmp_path / "covered.mp4", frames, cover=True), Every())
    assert {frame.pixels.shape for _, frame in looked} == {(320, 480, 3)} and len(looked) == 6 and tally.remarks == []
    with pytest.raises(DataError, match="only a cover"), open_video(with_streams(tmp_path / "cover.mp4", cover=True)):
        pass


def test_frames_may_change_their_size(frames: list[np.ndarray], tmp_path: Path) -> None:
    small = [pixels[::2, ::2] for pixels in frames]
    parts = [encode(tmp_path / "a.ts", frames), encode(tmp_path / "b.ts", small, begins=3)]
    looked, _ = decoded(joined(tmp_path / "both.ts", *parts), Every(frames=1))
    assert [frame.pixels.shape[:2] for _, frame in looked] == [(320, 480)] * 30 + [(160, 240)] * 30


@pytest.mark.parametrize(
    ("name", "codec", "pix", "options"),
    [
        ("interlaced.mp4", "libx264", "yuv420p", {"flags": "+ildct+ilme", "x264-params": "tff=1"}),
        ("ten.mkv", "libx264", "yuv420p10le", {}),
        ("ten422.mkv", "libx264", "yuv422p10le", {}),
        ("grey.mkv", "ffv1", "gray", {}),
        ("grey10.mkv", "ffv1", "gray10le", {}),
        ("alpha.mkv", "ffv1", "yuva420p", {}),
        ("argb.mov", "qtrle", "argb", {}),
        ("sixteen.mkv", "ffv1", "gbrp16le", {}),
        ("full.mov", "mjpeg", "yuvj420p", {}),
        ("raw.avi", "rawvideo", "bgr24", {}),
    ],
)
def test_pixel_formats(name: str, codec: str, pix: str, options: dict[str, str], frames: list[np.ndarray], tmp_path: Path) -> None:
    looked, tally = decoded(encode(tmp_path / name, frames[:10], codec, pix, **options), Every(frames=1))
    assert (len(looked), tally.broken, tally.missing) == (10, 0, 0)
    for _, frame in looked:
        expected = frames[frame.number].astype(int)
        if pix.startswith("gray"):
            expected = np.repeat((expected @ [0.299, 0.587, 0.114])[..., None], 3, axis=2)
        assert np.abs(frame.pixels - expected).mean() < 8


def test_frames_in_addition_to_the_interval(frames: list[np.ndarray], tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", frames)
    with open_video(path) as video:
        numbers = [frame.number for _, frame in video.frames("a", Every(1.0), Tally(), frozenset({3, 10, 11, 99}))]
    assert numbers == [0, 3, 10, 11, 20]
