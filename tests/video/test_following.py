"""Following people in videos: the crops that are kept of each tracklet."""

from pathlib import Path

import numpy as np
import pytest

from tbps.video.crops import cut
from tbps.video.decode import Every, open_video
from tbps.video.detectors.protocol import Detection
from tbps.video.detectors.ready_made import JsonDetector
from tbps.video.following import Following, Tracklet, tracklets
from tbps.video.tally import Tally
from tbps.video.tracking import colour_signature
from tests.support.films import decoded, encode, resized
from tests.support.walkers import Walker, film, write_detections, write_film


def tracklets_of(path: Path, detections: Path, **options: object) -> tuple[list[Tracklet], Tally]:
    tally = Tally()
    how = Following(JsonDetector(detections), colour_signature, Every(frames=1), **options)  # type: ignore[arg-type]
    with open_video(path) as video:
        return list(tracklets(video, path.name, how, tally, lambda done, total: None)), tally


def test_the_best_crops_of_each_person_are_kept(tmp_path: Path) -> None:
    walkers = [Walker(3, 60, 60, 150, 270), Walker(4, 400, -90, 170, 300)]
    pictures, truth = film(walkers, 40)
    path = write_film(tmp_path / "a.mp4", pictures)
    found, tally = tracklets_of(path, write_detections(tmp_path / "d.json", "a.mp4", truth), best_per_track=2)
    assert (tally.tracklets, tally.crops, tally.detections) == (2, 4, sum(map(len, truth)))
    looked = dict((frame.number, frame) for _, frame in decoded(path, Every(frames=1))[0])
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
    assert len(tracklets_of(path, detections, min_height=80)[0]) == 2
    assert len(tracklets_of(path, detections, min_height=81)[0]) == 1
    assert tracklets_of(path, detections, min_height=121)[0] == []


def test_people_in_pixels_of_half_height_are_found_as_in_square_ones(frames: list[np.ndarray], tmp_path: Path) -> None:
    """Detections in square pixels fit both videos; those in stored pixels are stretched."""
    pictures, truth = film([Walker(3, 200, 30)], 6)
    halved = [resized(pixels, 480, 160) for pixels in pictures]
    low = [{p: (x, y / 2, width, height / 2) for p, (x, y, width, height) in boxes.items()} for boxes in truth]
    whole = encode(tmp_path / "a.mp4", pictures, "mpeg4")
    half = encode(tmp_path / "b.mkv", halved, "mpeg4", pixel=(1, 2))
    for path, boxes in ((whole, truth), (half, low)):
        detections = write_detections(tmp_path / "d.json", path.name, boxes)
        (found,), _ = tracklets_of(path, detections, min_height=100)
        assert {crop.image.height for crop in found.crops} == {160}
        assert {tuple(crop.box) for crop in found.crops} <= {tuple(map(round, box)) for each in truth for box in each.values()}
