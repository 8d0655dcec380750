"""Decoding videos: intervals, times, orientation, damage, and files that are not videos."""

import re
from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image
from walkers import Walker, film, write_detections, write_film

from tbps.errors import DataError
from tbps.video.crops import cut, quality
from tbps.video.decode import Every, open_video
from tbps.video.detectors.protocol import Detection, Frame
from tbps.video.detectors.ready_made import JsonDetector
from tbps.video.following import Following, Tracklet, tracklets
from tbps.video.tally import Tally
from tbps.video.timeline import Timeline
from tbps.video.tracking import colour_signature


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return film([Walker(3, 100, 60)], 30)[0]


def _look(path: Path, every: Every) -> tuple[list[tuple[float, Frame]], Tally]:
    tally = Tally()
    with open_video(path) as video:
        return list(video.frames(path.name, every, tally)), tally


def _packets(path: Path) -> list[tuple[int, int]]:
    """Offset and size of every packet in a file."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize(
    ("every", "numbers"),
    [
        (Every(0.5), range(0, 30, 5)),
        (Every(0.25), [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28]),
        (Every(frames=7), range(0, 30, 7)),
    ],
)
def test_frames_at_regular_intervals(every: Every, numbers: range, frames: list[np.ndarray], tmp_path: Path) -> None:
    looked, tally = _look(write_film(tmp_path / "a.mp4", frames), every)
    assert [frame.number for _, frame in looked] == list(numbers)
    assert [offset for offset, _ in looked] == pytest.approx([number / 10 for number in numbers])
    assert (tally.frames, tally.looked_at, tally.broken) == (30, len(list(numbers)), 0)
    for _, frame in looked:
        assert np.abs(frame.pixels.astype(int) - frames[frame.number]).mean() < 6  # what MPEG-4 leaves of it


@pytest.mark.parametrize("turned", [0, 90, 180, -90])
def test_a_rotated_video_is_upright_as_in_opencv(turned: int, frames: list[np.ndarray], tmp_path: Path) -> None:
    path = write_film(tmp_path / "turned.mp4", frames[:2], turned)
    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    _, expected = capture.read()
    found = _look(path, Every())[0][0][1].pixels
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected[:, :, ::-1]).mean() < 3


def test_broken_packets_are_counted_and_skipped(frames: list[np.ndarray], tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", frames)
    content = bytearray(path.read_bytes())
    for number in (7, 8, 13):
        start, size = _packets(path)[number]
        content[start : start + size] = bytes(size)
    path.write_bytes(content)
    looked, tally = _look(path, Every(frames=1))
    assert (tally.frames, tally.broken, len(looked)) == (27, 3, 27)


def test_a_truncated_video_is_read_as_far_as_it_goes(frames: list[np.ndarray], tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", frames)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _, tally = _look(path, Every())
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


def _tracklets(path: Path, detections: Path, **options: object) -> tuple[list[Tracklet], Tally]:
    tally = Tally()
    how = Following(JsonDetector(detections), colour_signature, Every(frames=1), **options)  # type: ignore[arg-type]
    with open_video(path) as video:
        return list(tracklets(video, path.name, how, tally, lambda done, total: None)), tally


def test_the_best_crops_of_each_person_are_kept(tmp_path: Path) -> None:
    walkers = [Walker(3, 60, 60, 150, 270), Walker(4, 400, -90, 170, 300)]
    pictures, truth = film(walkers, 40)
    path = write_film(tmp_path / "a.mp4", pictures)
    found, tally = _tracklets(path, write_detections(tmp_path / "d.json", "a.mp4", truth), best_per_track=2)
    assert (tally.tracklets, tally.crops, tally.detections) == (2, 4, sum(map(len, truth)))
    looked = dict((frame.number, frame) for _, frame in _look(path, Every(frames=1))[0])
    for tracklet in found:
        person = next(p for p, box in truth[tracklet.crops[0].frame].items() if tuple(box) == tracklet.crops[0].box)
        every = [
            cut(looked[number], Detection(*map(float, boxes[person]), 1.0)).quality
            for number, boxes in enumerate(truth)
            if person in boxes
        ]
        assert [crop.quality for crop in tracklet.crops] == sorted(every, reverse=True)[:2]
        for crop in tracklet.crops:
            x, y, width, height = crop.box
            assert np.array_equal(np.asarray(crop.image), looked[crop.frame].pixels[y : y + height, x : x + width])
            assert crop.offset == pytest.approx(crop.frame / 10)


def test_people_who_are_too_small_are_left_out(tmp_path: Path) -> None:
    pictures, truth = film([Walker(3, 100, 20, tall=80), Walker(4, 300, 20, tall=120)], 5)
    path = write_film(tmp_path / "a.mp4", pictures)
    detections = write_detections(tmp_path / "d.json", "a.mp4", truth)
    assert len(_tracklets(path, detections, min_height=80)[0]) == 2
    assert len(_tracklets(path, detections, min_height=81)[0]) == 1
    assert _tracklets(path, detections, min_height=121)[0] == []


def test_quality_grows_with_score_size_sharpness_and_wholeness() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    blurred = cv2.GaussianBlur(noise, (0, 0), 4)
    sharp, dull = (Frame("x", 0, pixels) for pixels in (noise, blurred))
    base = cut(sharp, Detection(50, 50, 60, 120, 0.8)).quality
    assert cut(sharp, Detection(50, 50, 60, 120, 0.4)).quality == pytest.approx(base / 2)
    assert cut(dull, Detection(50, 50, 60, 120, 0.8)).quality < base / 2
    assert cut(sharp, Detection(50, 50, 60, 240, 0.8)).quality > 1.5 * base
    touching = [Detection(0, 50, 60, 120, 0.8), Detection(50, 0, 60, 120, 0.8), Detection(140, 50, 60, 120, 0.8)]
    for detection in (*touching, Detection(50, 180, 60, 120, 0.8)):
        crop = cut(sharp, detection)
        assert crop.quality == pytest.approx(quality(crop.image, 0.8, True) / 2)


# Time stamps that restart, jump, repeat or are missing.


@pytest.mark.parametrize(
    ("stamps", "times", "jumps"),
    [
        ([5.0, 5.1, 5.2, 5.3], [0, 0.1, 0.2, 0.3], 0),
        ([-0.2, -0.1, 0.0, 0.1], [0, 0.1, 0.2, 0.3], 0),
        ([0.0, 0.1, 0.0, 0.1, 0.2], [0, 0.1, 0.1, 0.1, 0.2], 0),  # out of order by one frame: the same base
        ([0.0, 0.1, 0.2, 0.3, 0.0, 0.1], [0, 0.1, 0.2, 0.3, 0.4, 0.5], 1),
        ([0.0, 0.1, 7200.0, 7200.1, 0.4, 0.5], [0, 0.1, 0.2, 0.3, 0.4, 0.5], 2),
        ([95443.6, 95443.7, 0.0, 0.1], [0, 0.1, 0.2, 0.3], 1),  # a counter of 33 bits at 90 kHz runs over
        ([None, None, None], [0, 0.1, 0.2], 0),
        ([None, 3.0, 3.1, None, 3.3], [0, 0.1, 0.2, 0.3, 0.4], 0),
        ([0.0, 0.1, 0.1, 0.2, 0.3], [0, 0.1, 0.1, 0.2, 0.3], 0),
        ([0.0] * 6, [0, 0, 0.1, 0.2, 0.3, 0.4], 0),
        ([0.0, 0.5, 0.51, 3.0, 3.01], [0, 0.5, 0.51, 3.0, 3.01], 0),  # a rate that varies is as it is
        ([0.0, 100.0, 200.0, 300.0], [0, 0.1, 0.2, 0.3], 3),
        ([0.0, 30.0, 60.0, 160.0, 220.0], [0, 30, 60, 160, 220], 0),  # time lapse: 100 s are few of its frames
    ],
)
def test_time_advances_when_time_stamps_jump_or_repeat(stamps: list[float | None], times: list[float], jumps: int) -> None:
    timeline = Timeline(10)
    assert [timeline.at(stamp) for stamp in stamps] == pytest.approx(times)
    assert timeline.jumps == jumps


def test_time_never_decreases_and_no_frame_is_skipped() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        stamps = [None if rng.random() < 0.1 else float(stamp) for stamp in rng.normal(0, 10 ** rng.uniform(-2, 5), 50)]
        timeline = Timeline(25)
        times = [timeline.at(stamp) for stamp in stamps]
        assert times[0] == 0 and (np.diff(times) >= 0).all() and times[-1] > 0


def test_missing_frames_are_counted_when_the_rate_is_constant() -> None:
    def missing(stamps: Sequence[float]) -> int:
        timeline = Timeline(30)
        for stamp in stamps:
            timeline.at(stamp)
        return timeline.missing

    thirty = [round(number / 30, 3) for number in range(100)]  # 33 and 34 ms, as Matroska has them
    assert missing(thirty) == 0
    assert missing([*thirty[:20], *thirty[25:60], *thirty[61:]]) == 6
    assert missing([*thirty[:5], thirty[4], *thirty[6:]]) == 0  # one with the time stamp of another
    assert missing(list(np.cumsum(np.random.default_rng(0).uniform(0.01, 0.3, 100)))) == 0  # a rate that varies


def _encode(
    path: Path,
    frames: Sequence[np.ndarray],
    codec: str = "libx264",
    pix: str = "yuv420p",
    begins: float = 0.0,
    rate: int = 10,
    pixel: tuple[int, int] | None = None,
    turned: int = 0,
    **options: str,
) -> Path:
    """Encodes a video. begins: its first time stamp in seconds; pixel: width : height of its pixels."""
    copied = {"mpegts_copyts": "1"} if path.suffix == ".ts" else {}
    with av.open(str(path), "w", options=copied | {"movflags": "faststart"} if path.suffix == ".mp4" else copied) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.gop_size, stream.bit_rate = pix, 5, 4_000_000
        if pixel is not None:
            stream.codec_context.sample_aspect_ratio = Fraction(*pixel)
        if turned:
            stream.set_display_rotation(turned)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24").reformat(format=pix)
            frame.pts, frame.time_base = round(begins * rate) + number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("begin", [(0, 0), (5000, 0), (0, 5000), (0, 30), (95442, 0), (0, 0, 0)])
def test_joined_recordings_are_read_to_the_end(begin: tuple[int, ...], frames: list[np.ndarray], tmp_path: Path) -> None:
    """Joined MPEG-TS files: time stamps that go back, jump ahead, or (95442, 0) overflow their 33 bits."""
    small = [pixels[::2, ::2] for pixels in frames]
    parts = [_encode(tmp_path / f"{number}.ts", small, begins=start) for number, start in enumerate(begin)]
    looked, tally = _look(_joined(tmp_path / "joined.ts", *parts), Every(0.5))
    count = len(frames) * len(begin)
    assert (tally.frames, tally.looked_at, tally.missing, tally.incomplete) == (count, count // 5, 0, None)
    assert [offset for offset, _ in looked] == pytest.approx([number / 2 for number in range(count // 5)], abs=1e-3)
    assert [frame.number for _, frame in looked] == list(range(0, count, 5))
    assert tally.jumps == len(begin) - 1 and any("time stamps go back or far ahead" in remark for remark in tally.remarks)
    for _, frame in looked:
        assert np.abs(frame.pixels.astype(int) - small[frame.number % 30]).mean() < 12


# Pixels that are not square.


def _resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
@pytest.mark.parametrize(
    ("pixel", "size"), [((2, 1), (480, 160)), ((1, 2), (240, 320)), ((64, 45), (341, 160)), ((1, 1), (240, 160))]
)
def test_pixels_are_made_square(
    pixel: tuple[int, int], size: tuple[int, int], name: str, frames: list[np.ndarray], tmp_path: Path
) -> None:
    small = [_resized(pixels, 240, 160) for pixels in frames[:3]]
    path = _encode(tmp_path / name, small, "mpeg4", pixel=pixel)
    ((_, frame),) = _look(path, Every())[0]
    assert (frame.pixels.shape[1], frame.pixels.shape[0]) == size
    assert frame.stretch == (pytest.approx(size[0] / 240), pytest.approx(size[1] / 160))
    assert np.abs(frame.pixels.astype(int) - _resized(small[0], *size)).mean() < 8


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_the_shape_of_pixels_may_change_within_a_video(codec: str, frames: list[np.ndarray], tmp_path: Path) -> None:
    """From 4 : 3 to 16 : 9, as in television, exactly at that frame although the decoder reads ahead."""
    parts = [
        _encode(tmp_path / f"{pixel[0]}.ts", frames, codec, pixel=pixel, rate=25, begins=begins)
        for pixel, begins in (((8, 9), 0), ((32, 27), 2))
    ]
    looked, _ = _look(_joined(tmp_path / "joined.ts", *parts), Every(frames=1))
    assert [frame.pixels.shape[:2] for _, frame in looked] == [(360, 480)] * 30 + [(320, 569)] * 30


def test_pixels_are_made_square_before_rotation(frames: list[np.ndarray], tmp_path: Path) -> None:
    path = _encode(tmp_path / "a.mp4", frames[:2], pixel=(2, 1), turned=90)
    ((_, frame),) = _look(path, Every())[0]
    assert frame.pixels.shape == (960, 320, 3) and frame.stretch == (1, 2)
    expected = np.rot90(_resized(frames[0], 960, 320))
    assert np.abs(frame.pixels.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("turned", [0, 90, 180, -90])
def test_mirrored_videos_are_shown_as_in_players(turned: int, across: bool, frames: list[np.ndarray], tmp_path: Path) -> None:
    """All eight orientations: rotated, then mirrored, as front cameras store them."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 320, 480, "yuv420p", 4_000_000
        stream.set_display_rotation(turned, hflip=across)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frames[0], "rgb24")))
        container.mux(stream.encode(None))
    ((_, frame),) = _look(path, Every())[0]
    expected = np.rot90(frames[0], turned // 90)
    expected = expected[:, ::-1] if across else expected
    assert np.abs(frame.pixels.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("pixel", [(1000, 1), (1, 1000)])
def test_impossible_shapes_of_pixels_are_ignored(pixel: tuple[int, int], frames: list[np.ndarray], tmp_path: Path) -> None:
    ((_, frame),) = _look(_encode(tmp_path / "a.mp4", frames[:2], "mpeg4", pixel=pixel), Every())[0]
    assert frame.pixels.shape == (320, 480, 3)


def test_people_in_pixels_of_half_height_are_found_as_in_square_ones(frames: list[np.ndarray], tmp_path: Path) -> None:
    """Detections in square pixels fit both videos; those in stored pixels are stretched."""
    pictures, truth = film([Walker(3, 200, 30)], 6)
    halved = [_resized(pixels, 480, 160) for pixels in pictures]
    low = [{p: (x, y / 2, width, height / 2) for p, (x, y, width, height) in boxes.items()} for boxes in truth]
    whole = _encode(tmp_path / "a.mp4", pictures, "mpeg4")
    half = _encode(tmp_path / "b.mkv", halved, "mpeg4", pixel=(1, 2))
    for path, boxes in ((whole, truth), (half, low)):
        detections = write_detections(tmp_path / "d.json", path.name, boxes)
        (found,), _ = _tracklets(path, detections, min_height=100)
        assert {crop.image.height for crop in found.crops} == {160}
        assert {tuple(crop.box) for crop in found.crops} <= {tuple(map(round, box)) for each in truth for box in each.values()}


# Damage, and which frames it took.


def _damaged(path: Path, first: int, last: int, elements: bool) -> Path:
    """Zeroes packets first .. last - 1; with `elements` also the bytes between them, so that the demuxer must resynchronise."""
    packets, content = _packets(path), bytearray(path.read_bytes())
    if elements:
        start, end = packets[first][0] - 8, packets[last][0] - 8
        content[start:end] = bytes(end - start)
    else:
        for start, size in packets[first:last]:
            content[start : start + size] = bytes(size)
    path.write_bytes(content)
    return path


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
    """Compared with the frames that are left, which are recognised by their content."""
    path = _damaged(_encode(tmp_path / name, frames, codec), 12, 17, elements)
    looked, tally = _look(path, Every(frames=1))
    there = {round(offset * 10) for offset, _ in looked}
    assert 5 <= 30 - tally.frames <= 8  # the demuxer resumes at the next Matroska cluster
    assert tally.missing == 30 - tally.frames and tally.incomplete is None
    assert {*range(12), *range(20, 30)} - there <= {11} and 29 in there  # whose last bytes may be gone
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
    """A video without its first key frame begins with the next one, often without any error."""
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = _damaged(_encode(tmp_path / name, frames, codec, **quiet), first, last, False)
    looked, tally = _look(path, Every(frames=1))
    assert 1 <= 30 - len(looked) <= 5 and tally.missing == 30 - len(looked)
    seen = {int(np.argmin([np.abs(frame.pixels.astype(int) - each).mean() for each in frames])) for _, frame in looked}
    assert (0 not in seen) == (first == 0) and (29 not in seen) == (last == 30)


def test_a_whole_video_has_no_remarks(frames: list[np.ndarray], tmp_path: Path) -> None:
    kinds = {"a.mp4": "libx264", "b.mkv": "libx264", "c.webm": "libvpx", "d.avi": "libx264", "e.ts": "libx264", "f.flv": "libx264"}
    kinds |= {"g.wmv": "wmv2", "h.mov": "mpeg4", "i.mpg": "mpeg2video", "j.webm": "libvpx-vp9"}
    for name, codec in kinds.items():
        path = _encode(tmp_path / name, frames, codec, begins=5 if name == "b.mkv" else 0, rate=25 if name == "i.mpg" else 10)
        tally = _look(path, Every())[1]
        assert (tally.frames, tally.missing, tally.jumps, tally.remarks, tally.incomplete) == (30, 0, 0, [], None), name


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_truncated_video_is_incomplete(name: str, frames: list[np.ndarray], tmp_path: Path) -> None:
    path = _encode(tmp_path / name, frames, "mpeg4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    tally = _look(path, Every())[1]
    assert 10 <= tally.frames < 20 and tally.missing > 0
    assert tally.incomplete is not None and "seconds that its header promises could be read" in tally.incomplete


# Streams and formats.


def _films(path: Path, *films: Sequence[np.ndarray], cover: bool = False) -> Path:
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=10) for _ in films]
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.height, picture.width, picture.pix_fmt = 960, 1280, "yuvj420p"
            picture.disposition = Disposition.attached_pic
        for stream, pictures in zip(streams, films, strict=True):
            stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], "yuv420p"
        if cover:
            white = av.VideoFrame.from_ndarray(np.full((960, 1280, 3), 255, np.uint8), "rgb24").reformat(format="yuvj420p")
            container.mux(picture.encode(white))
            container.mux(picture.encode(None))
        for pictures in zip(*films, strict=True):
            for stream, pixels in zip(streams, pictures, strict=True):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


def test_of_two_video_streams_the_larger_is_read_and_the_other_reported(frames: list[np.ndarray], tmp_path: Path) -> None:
    small = [pixels[::2, ::2] for pixels in frames]
    looked, tally = _look(_films(tmp_path / "two.mkv", small, frames), Every())
    assert {frame.pixels.shape for _, frame in looked} == {(320, 480, 3)} and len(looked) == 6
    assert tally.remarks == ["only stream 1 (480 x 320) of its 2 video streams was searched, not 0: 240 x 160"]


def test_a_cover_is_no_video_stream(frames: list[np.ndarray], tmp_path: Path) -> None:
    looked, tally = _look(_films(tmp_path / "covered.mp4", frames, cover=True), Every())
    assert {frame.pixels.shape for _, frame in looked} == {(320, 480, 3)} and len(looked) == 6 and tally.remarks == []
    with pytest.raises(DataError, match="only a cover"), open_video(_films(tmp_path / "cover.mp4", cover=True)):
        pass


def test_frames_may_change_their_size(frames: list[np.ndarray], tmp_path: Path) -> None:
    small = [pixels[::2, ::2] for pixels in frames]
    parts = [_encode(tmp_path / "a.ts", frames), _encode(tmp_path / "b.ts", small, begins=3)]
    looked, _ = _look(_joined(tmp_path / "both.ts", *parts), Every(frames=1))
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
    looked, tally = _look(_encode(tmp_path / name, frames[:10], codec, pix, **options), Every(frames=1))
    assert (len(looked), tally.broken, tally.missing) == (10, 0, 0)
    for _, frame in looked:
        expected = frames[frame.number].astype(int)
        if pix.startswith("gray"):
            expected = np.repeat((expected @ [0.299, 0.587, 0.114])[..., None], 3, axis=2)
        assert np.abs(frame.pixels - expected).mean() < 8


def test_further_frames_besides_the_interval(frames: list[np.ndarray], tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", frames)
    with open_video(path) as video:
        numbers = [frame.number for _, frame in video.frames("a", Every(1.0), Tally(), frozenset({3, 10, 11, 99}))]
    assert numbers == [0, 3, 10, 11, 20]


# What lies behind a place from which the container cannot go on.


def _fragmented(path: Path, frames: Sequence[np.ndarray]) -> Path:
    with av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.gop_size = "yuv420p", 5
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")))
        container.mux(stream.encode(None))
    return path


def test_damage_in_a_fragmented_video_makes_it_incomplete(frames: list[np.ndarray], tmp_path: Path) -> None:
    path = _fragmented(tmp_path / "a.mp4", frames)
    assert _look(path, Every(frames=1))[1].incomplete is None
    content = path.read_bytes()
    places = [found.start() - 4 for found in re.finditer(b"moof", content)]
    assert len(places) == 6
    path.write_bytes(content[: places[3]] + bytes(300) + content[places[3] + 300 :])
    tally = _look(path, Every(frames=1))[1]
    behind = len(content) - places[3]
    assert tally.frames < 20
    assert tally.incomplete == f"it is damaged at byte {places[3]:,}, and the {behind:,} bytes from there on cannot be read"
    path.write_bytes(content + bytes(5000))  # room that a recorder reserved
    assert _look(path, Every(frames=1))[1].incomplete is None


def test_a_second_video_joined_to_the_first_is_reported_when_it_cannot_be_read(frames: list[np.ndarray], tmp_path: Path) -> None:
    whole, parts = _encode(tmp_path / "a.mp4", frames, "mpeg4"), _fragmented(tmp_path / "b.mp4", frames)
    tally = _look(_joined(tmp_path / "two.mp4", whole, whole), Every(frames=1))[1]
    assert tally.frames == 30 and tally.incomplete is not None and "a second recording from byte" in tally.incomplete
    tally = _look(_joined(tmp_path / "fragments.mp4", parts, parts), Every(frames=1))[1]
    assert tally.frames >= 55 and tally.incomplete is None  # of the second, what the first one's edit list leaves


def test_a_truncated_motion_jpeg_avi_is_compared_with_the_frame_count_in_its_header(
    frames: list[np.ndarray], tmp_path: Path
) -> None:
    """FFmpeg guesses a shorter length from the size of the file that is left."""
    path = _encode(tmp_path / "a.avi", frames, "mjpeg", "yuvj420p")
    assert _look(path, Every(frames=1))[1].incomplete is None
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    tally = _look(path, Every(frames=1))[1]
    assert tally.incomplete is not None and "of the 3.0 seconds" in tally.incomplete
    assert 10 <= tally.frames < 20 and tally.missing == 30 - tally.frames


def test_joined_recordings_of_two_codecs(frames: list[np.ndarray], tmp_path: Path) -> None:
    parts = [_encode(tmp_path / f"{codec}.ts", frames, codec, rate=25) for codec in ("mpeg2video", "libx264")]
    looked, tally = _look(_joined(tmp_path / "joined.ts", *parts), Every(frames=1))
    assert len(looked) <= 30 and 30 <= tally.missing <= 33
    assert any(remark.startswith(f"{tally.missing} of about ") for remark in tally.remarks)
