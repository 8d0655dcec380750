"""Formats of uploaded videos: containers that can be read, no playlists, no pictures in video containers."""

from pathlib import Path

import av
import numpy as np
import pytest

from tbps.errors import DataError
from tbps.server.uploads.formats import Kind, check_kind, named_as, recognised, refusal
from tbps.video.decode import open_video
from tests.support.hostile import picture
from tests.support.served import ended, make_gallery, send, serving
from tests.support.walkers import Walker, film, write_film

BRANDS = (
    *(b"isom", b"iso2", b"iso3", b"iso4", b"iso5", b"iso6", b"iso7", b"iso8", b"iso9", b"mp41", b"mp42", b"mp71", b"avc1", b"hvc1"),
    *(b"hev1", b"av01", b"cmfc", b"cmf2", b"dash", b"msdh", b"MSNV", b"M4V ", b"qt  ", b"f4v ", b"F4V ", b"xavc", b"XAVC", b"3gp4"),
    *(b"3gp5", b"3gp6", b"3ge6", b"3gs7", b"3g2a", b"3g2b", b"kddi", b"mmp4", b"CAEP", b"pana", b"dby1", b"niko", b"zzzz"),
)
PICTURES = {
    "HEIC": (b"heic", b"heix", b"hevc", b"heim", b"heis", b"heif", b"mif1", b"msf1"),
    "AVIF": (b"avif", b"avis"),
    "CR3": (b"crx ",),
    "JPEG XL": (b"jxl ",),
}
PLAYLISTS = {
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n%b\n#EXT-X-ENDLIST\n",
    "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    b"<Representation><BaseURL>%b</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "concat": b"ffconcat version 1.0\nfile '%b'\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 1234 RTP/AVP 96\na=rtpmap:96 H264/90000\n%b",
    "asx": b'<asx version="3.0"><entry><ref href="%b"/></entry></asx>',
    "smil": b'<smil><body><video src="%b"/></body></smil>',
    "subtitles": b"1\n00:00:00,000 --> 00:00:01,000\n%b\n",
}


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return film([Walker(3, 120, 60, tall=220, foot=300)], 11)[0]


@pytest.fixture(scope="module")
def mp4(frames: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", frames).read_bytes()


def test_videos_of_every_brand_are_recognised_and_can_be_opened(tmp_path: Path, mp4: bytes) -> None:
    assert mp4[4:8] == b"ftyp"
    for brand in BRANDS:
        file = tmp_path / "0000"
        file.write_bytes(mp4[:8] + brand + mp4[12:])
        assert recognised(file) == (Kind.video, ".mp4"), brand
        with open_video(file) as video:
            assert video.expected == 11


def test_brands_of_pictures_are_refused_with_the_reason(tmp_path: Path, mp4: bytes) -> None:
    for name, brands in PICTURES.items():
        for brand in brands:
            file = tmp_path / "0000"
            file.write_bytes(mp4[:8] + brand + mp4[12:])
            assert recognised(file) is None
            with pytest.raises(DataError, match=f"{name}.*save it as JPEG or PNG"):
                check_kind(file)
            assert name in str(refusal([file]))
    (tmp_path / "good").write_bytes(mp4)
    assert refusal([file, tmp_path / "good"]) is None
    unknown = b"\0\0\0\x18ftypzzzz\0\0\0\0mif1heic" + b"\0\0\0\x20meta" + bytes(24)
    file.write_bytes(unknown)
    with pytest.raises(DataError, match="HEIC"):
        check_kind(file)
    file.write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0mp42mif1" + mp4[mp4.index(b"ftyp") - 4 + int.from_bytes(mp4[:4]) :])
    assert recognised(file) == (Kind.video, ".mp4"), "a video that names a brand of pictures among others"


@pytest.mark.parametrize("suffix", [".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".flv", ".wmv", ".m2ts"])
def test_containers_are_recognised(tmp_path: Path, suffix: str) -> None:
    """The files are written with PyAV. Includes a transport stream whose first packet is incomplete, as in recordings."""
    codec = {".webm": "libvpx", ".mpg": "mpeg1video", ".wmv": "wmv2", ".flv": "flv"}.get(suffix, "mpeg4")
    codec = "mpeg2video" if suffix in (".ts", ".m2ts") else codec
    file = tmp_path / f"film{suffix}"
    with av.open(str(file), "w", format="mpegts" if suffix in (".ts", ".m2ts") else None) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 96, "yuv420p"
        for number in range(30):
            picture_ = av.VideoFrame.from_ndarray(np.full((96, 64, 3), 8 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(picture_))
        container.mux(stream.encode())
    found = recognised(file)
    assert found is not None and found[0] is Kind.video
    assert named_as(f"film{suffix}", *found) == f"film{suffix}" and named_as("film.bin", *found) == f"film.bin{found[1]}"
    with open_video(file):
        pass
    if suffix == ".ts":
        file.write_bytes(file.read_bytes()[77:])
        assert recognised(file) == (Kind.video, ".ts")


@pytest.mark.parametrize("kind", list(PLAYLISTS))
@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv", ".avi"])
def test_playlists_are_refused_under_any_name(tmp_path: Path, mp4: bytes, kind: str, suffix: str) -> None:
    """A playlist would make the service read other files or contact other machines."""
    (tmp_path / "other.mp4").write_bytes(mp4)
    content = PLAYLISTS[kind] % str(tmp_path / "other.mp4").encode()
    file = tmp_path / f"list{suffix}"
    for start in (b"", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", b"\x1a\x45\xdf\xa3", b"\0\0\1\xba"):
        file.write_bytes(start + content)
        if not start:
            assert recognised(file) is None
        with pytest.raises(DataError), open_video(file) as video:
            pytest.fail(f"opened {video}")


def test_text_and_noise_are_not_taken_for_a_transport_stream(tmp_path: Path) -> None:
    file = tmp_path / "0000"
    for content in (b"G" * 10, b"GG", bytes(4096), np.random.default_rng(0).bytes(4096), ("Go on. " * 900).encode()):
        file.write_bytes(content)
        assert recognised(file) is None


def test_people_in_videos_of_rare_brands_are_indexed(tmp_path: Path, mp4: bytes) -> None:
    with serving(make_gallery(tmp_path, [0])) as client:
        sent = mp4[:8] + b"xavc" + mp4[12:]
        job = ended(client, send(client, ("clip.bin", sent), ("photo.heic", mp4[:8] + b"heic" + mp4[12:]), camera="lobby"))
        assert job["state"] == "done" and job["added"] > 0
        assert [(each["name"], "HEIC" in each["reason"]) for each in job["skipped"]] == [("photo.heic", True)]
        refused = send(client, ("photo.mp4", mp4[:8] + b"avif" + mp4[12:]))
        assert refused.status_code == 415 and "AVIF" in refused.json()["error"]["message"]
        assert send(client, ("photo.jpg", picture())).status_code == 202
