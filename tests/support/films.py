"""Creation of videos for tests: encoding, concatenation, damage; and decoding with `tbps.video`."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

from tbps.video.decode import Every, open_video
from tbps.video.detectors.protocol import Frame
from tbps.video.tally import Tally


def decoded(path: Path, every: Every) -> tuple[list[tuple[float, Frame]], Tally]:
    """Decodes a video to frames with their times in seconds, and returns them with the tally."""
    tally = Tally()
    with open_video(path) as video:
        return list(video.frames(path.name, every, tally)), tally


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Offset and size of every packet in a file."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def encode(
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
    """Encodes a video.

    begins: first time stamp in seconds; pixel: width and height of a pixel (sample aspect ratio); turned: display rotation in
    degrees.
    """
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


def joined(path: Path, *parts: Path) -> Path:
    """Concatenates files byte by byte into one."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def damaged(path: Path, first: int, last: int, elements: bool) -> Path:
    """Overwrites packets first .. last - 1 with zeros.

    elements: also overwrite the bytes between them, so that the demuxer must resynchronise.
    """
    packets, content = packets_of(path), bytearray(path.read_bytes())
    if elements:
        start, end = packets[first][0] - 8, packets[last][0] - 8
        content[start:end] = bytes(end - start)
    else:
        for start, size in packets[first:last]:
            content[start : start + size] = bytes(size)
    path.write_bytes(content)
    return path


def with_streams(path: Path, *films: Sequence[np.ndarray], cover: bool = False) -> Path:
    """Writes a file with one video stream per film. cover: also add a cover picture."""
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


def fragmented(path: Path, frames: Sequence[np.ndarray]) -> Path:
    """Encodes a fragmented MP4 with five frames per fragment, which has no index of the whole file."""
    with av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.gop_size = "yuv420p", 5
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")))
        container.mux(stream.encode(None))
    return path
