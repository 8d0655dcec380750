"""Times of frames when time stamps restart, jump, repeat or are missing."""

from collections.abc import Sequence

import numpy as np
import pytest

from tbps.video.timeline import Timeline


@pytest.mark.parametrize(
    ("stamps", "times", "jumps"),
    [
        ([5.0, 5.1, 5.2, 5.3], [0, 0.1, 0.2, 0.3], 0),
        ([-0.2, -0.1, 0.0, 0.1], [0, 0.1, 0.2, 0.3], 0),
        ([0.0, 0.1, 0.0, 0.1, 0.2], [0, 0.1, 0.1, 0.1, 0.2], 0),  # out of order by one frame: no jump
        ([0.0, 0.1, 0.2, 0.3, 0.0, 0.1], [0, 0.1, 0.2, 0.3, 0.4, 0.5], 1),
        ([0.0, 0.1, 7200.0, 7200.1, 0.4, 0.5], [0, 0.1, 0.2, 0.3, 0.4, 0.5], 2),
        ([95443.6, 95443.7, 0.0, 0.1], [0, 0.1, 0.2, 0.3], 1),  # the 33-bit counter at 90 kHz overflows
        ([None, None, None], [0, 0.1, 0.2], 0),
        ([None, 3.0, 3.1, None, 3.3], [0, 0.1, 0.2, 0.3, 0.4], 0),
        ([0.0, 0.1, 0.1, 0.2, 0.3], [0, 0.1, 0.1, 0.2, 0.3], 0),
        ([0.0] * 6, [0, 0, 0.1, 0.2, 0.3, 0.4], 0),
        ([0.0, 0.5, 0.51, 3.0, 3.01], [0, 0.5, 0.51, 3.0, 3.01], 0),  # variable frame rate
        ([0.0, 100.0, 200.0, 300.0], [0, 0.1, 0.2, 0.3], 3),
        ([0.0, 30.0, 60.0, 160.0, 220.0], [0, 30, 60, 160, 220], 0),  # time lapse: 100 s are only a few frames
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

    thirty = [round(number / 30, 3) for number in range(100)]  # 33 and 34 ms, as Matroska rounds them
    assert missing(thirty) == 0
    assert missing([*thirty[:20], *thirty[25:60], *thirty[61:]]) == 6
    assert missing([*thirty[:5], thirty[4], *thirty[6:]]) == 0  # one repeats a time stamp
    assert missing(list(np.cumsum(np.random.default_rng(0).uniform(0.01, 0.3, 100)))) == 0  # variable frame rate
