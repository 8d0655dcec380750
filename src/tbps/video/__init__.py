"""Finds people in videos and photographs: decoding, detection, tracking, crops. Other packages import from here."""

from typing import TYPE_CHECKING

from tbps.faces import lazy

if TYPE_CHECKING:
    from tbps.video.crops import Crop, cut
    from tbps.video.decode import Every, open_video
    from tbps.video.detectors.hog import HOG
    from tbps.video.detectors.open import open_detector
    from tbps.video.detectors.protocol import Detection, Detector, Frame
    from tbps.video.detectors.ready_made import JsonDetector
    from tbps.video.following import Following, OnFrame, tracklets
    from tbps.video.tally import Tally
    from tbps.video.tracking import Appearance, colour_signature
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "tbps.video.crops": ["Crop", "cut"],
            "tbps.video.decode": ["Every", "open_video"],
            "tbps.video.detectors.hog": ["HOG"],
            "tbps.video.detectors.open": ["open_detector"],
            "tbps.video.detectors.protocol": ["Detection", "Detector", "Frame"],
            "tbps.video.detectors.ready_made": ["JsonDetector"],
            "tbps.video.following": ["Following", "OnFrame", "tracklets"],
            "tbps.video.tally": ["Tally"],
            "tbps.video.tracking": ["Appearance", "colour_signature"],
        },
    )

__all__ = [
    "HOG",
    "Appearance",
    "Crop",
    "Detection",
    "Detector",
    "Every",
    "Following",
    "Frame",
    "JsonDetector",
    "OnFrame",
    "Tally",
    "colour_signature",
    "cut",
    "open_detector",
    "open_video",
    "tracklets",
]
