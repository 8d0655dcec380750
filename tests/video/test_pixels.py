"""Decoded frames are upright with square pixels: rotation, mirroring, and pixel aspect ratios."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tbps.video.decode import Every
from tests.support.films import decoded, encode, joined, resized
from tests.support.walkers import write_film


@pytest.mark.parametrize("turned", [0, 90, 180, -90])
def test_a_rotated_video_is_upright_as_in_opencv(turned: int, frames: list[np.ndarray], tmp_path: Path) -> None:
    path = write_film(tmp_path / "turned.mp4", frames[:2], turned)
    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    _, expected = capture.read()
    found = decoded(path, Every())[0][0][1].pixels
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected[:, :, ::-1]).mean() < 3


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
@pytest.mark.parametrize(
    ("pixel", "size"), [((2, 1), (480, 160)), ((1, 2), (240, 320)), ((64, 45), (341, 160)), ((1, 1), (240, 160))]
)
def test_pixels_are_made_square(
    pixel: tuple[int, int], size: tuple[int, int], name: str, frames: list[np.ndarray], tmp_path: Path
) -> None:
    small = [resized(pixels, 240, 160) for pixels in frames[:3]]
    path = encode(tmp_path / name, small, "mpeg4", pixel=pixel)
    ((_, frame),) = decoded(path, Every())[0]
    assert (frame.pixels.shape[1], frame.pixels.shape[0]) == size
    assert frame.stretch == (pytest.approx(size[0] / 240), pytest.approx(size[1] / 160))
    assert np.abs(frame.pixels.astype(int) - resized(small[0], *size)).mean() < 8


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_the_pixel_aspect_ratio_may_change_within_a_video(codec: str, frames: list[np.ndarray], tmp_path: Path) -> None:
    """The picture changes from 4 : 3 to 16 : 9, as in television, at the right frame although the decoder reads ahead."""
    parts = [
        encode(tmp_path / f"{pixel[0]}.ts", frames, codec, pixel=pixel, rate=25, begins=begins)
        for pixel, begins in (((8, 9), 0), ((32, 27), 2))
    ]
    looked, _ = decoded(joined(tmp_path / "joined.ts", *parts), Every(frames=1))
    assert [frame.pixels.shape[:2] for _, frame in looked] == [(360, 480)] * 30 + [(320, 569)] * 30


def test_pixels_are_made_square_before_rotation(frames: list[np.ndarray], tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", frames[:2], pixel=(2, 1), turned=90)
    ((_, frame),) = decoded(path, Every())[0]
    assert frame.pixels.shape == (960, 320, 3) and frame.stretch == (1, 2)
    expected = np.rot90(resized(frames[0], 960, 320))
    assert np.abs(frame.pixels.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("turned", [0, 90, 180, -90])
def test_mirrored_videos_are_shown_as_in_players(turned: int, across: bool, frames: list[np.ndarray], tmp_path: Path) -> None:
    """Tests all eight orientations: rotated, then mirrored, as front cameras of phones store videos."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 320, 480, "yuv420p", 4_000_000
        stream.set_display_rotation(turned, hflip=across)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frames[0], "rgb24")))
        container.mux(stream.encode(None))
    ((_, frame),) = decoded(path, Every())[0]
    expected = np.rot90(frames[0], turned // 90)
    expected = expected[:, ::-1] if across else expected
    assert np.abs(frame.pixels.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("pixel", [(1000, 1), (1, 1000)])
def test_impossible_pixel_aspect_ratios_are_ignored(pixel: tuple[int, int], frames: list[np.ndarray], tmp_path: Path) -> None:
    ((_, frame),) = decoded(encode(tmp_path / "a.mp4", frames[:2], "mpeg4", pixel=pixel), Every())[0]
    assert frame.pixels.shape == (320, 480, 3)
