"""Reading videos: which frames, when, which way up; damage; and files that only pretend to be videos."""

from datetime import datetime
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from walkers import Walker, film, write_detections, write_film

from tbps.errors import DataError
from tbps.search.crops import cut, quality
from tbps.search.detect import Detection, Frame, JsonDetector
from tbps.search.track import colour_signature
from tbps.search.video import Every, Following, Tally, Tracklet, open_video, tracklets


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return film([Walker(3, 100, 60)], 30)[0]


def _look(path: Path, every: Every) -> tuple[list[tuple[float, Frame]], Tally]:
    tally = Tally()
    with open_video(path) as video:
        return list(video.frames(path.name, every, tally)), tally


def _packets(path: Path) -> list[tuple[int, int]]:
    """Where every packet lies in a file, and its size."""
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
def test_frames_are_looked_at_every_so_often(every: Every, numbers: range, frames: list[np.ndarray], tmp_path: Path) -> None:
    looked, tally = _look(write_film(tmp_path / "a.mp4", frames), every)
    assert [frame.number for _, frame in looked] == list(numbers)
    assert [offset for offset, _ in looked] == pytest.approx([number / 10 for number in numbers])
    assert (tally.frames, tally.looked_at, tally.broken) == (30, len(list(numbers)), 0)
    for _, frame in looked:
        assert np.abs(frame.pixels.astype(int) - frames[frame.number]).mean() < 6  # what MPEG-4 leaves of it


@pytest.mark.parametrize("turned", [0, 90, 180, -90])
def test_a_turned_film_is_upright_as_opencv_has_it(turned: int, frames: list[np.ndarray], tmp_path: Path) -> None:
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


def test_what_there_is_of_a_film_that_was_cut_off(frames: list[np.ndarray], tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", frames)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _, tally = _look(path, Every())
    assert 0 < tally.frames < 30


def test_a_film_says_when_it_began(frames: list[np.ndarray], tmp_path: Path) -> None:
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
def test_what_only_pretends_to_be_a_video_opens_nothing(
    name: str, content: bytes, frames: list[np.ndarray], tmp_path: Path
) -> None:
    write_film(tmp_path / "real.mp4", frames[:2])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="cannot be opened as a video"), open_video(tmp_path / name):
        pass


def test_a_file_without_pictures(tmp_path: Path) -> None:
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


def test_the_best_crops_of_everybody_are_kept(tmp_path: Path) -> None:
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


def test_quality_prefers_the_sure_the_large_the_sharp_and_the_whole() -> None:
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
