"""Flat shapes with a length and a width, for limbs, torsos, skirts and heads.

A tube is a list of cross sections in pixels. A point on it is `(t, s)`: t from 0 (top) to 1 (bottom), s from -1 (left edge
in the image) to 1 (right edge). Folds, seams, stripes and buttons use these coordinates and so follow every pose.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import hypot

Point = tuple[float, float]
Points = list[Point]


class Tube:
    """Cross sections from `left[i]` to `right[i]` at the positions t = `stations[i]`.

    `sags[i]`: how far the middle of a section lies below the line between its edges, in pixels, as in a ring seen from above.
    """

    __slots__ = ("left", "right", "sags", "stations")

    def __init__(self, left: Points, right: Points, stations: Sequence[float], sags: Sequence[float] | None = None) -> None:
        self.left, self.right = left, right
        self.stations = stations
        self.sags = sags if sags is not None else (0.0,) * len(left)

    def at(self, t: float, s: float) -> Point:
        """Returns the pixel of `(t, s)`."""
        stations, left, right, sags = (
            self.stations,
            self.left,
            self.right,
            self.sags,
        )  # inlines `section`, because this is called most
        index = bisect_right(stations, t, 1, len(stations) - 1) - 1
        after = index + 1
        f = (t - stations[index]) / (stations[after] - stations[index])
        g, w = 1.0 - f, (s + 1.0) * 0.5
        v = 1.0 - w
        (lx, ly), (mx, my) = left[index], left[after]
        (rx, ry), (nx, ny) = right[index], right[after]
        sag = (sags[index] * g + sags[after] * f) * (1.0 - s * s)
        return (lx * g + mx * f) * v + (rx * g + nx * f) * w, (ly * g + my * f) * v + (ry * g + ny * f) * w + sag

    def section(self, t: float) -> tuple[float, float, float, float, float]:
        """Returns left edge (x, y), right edge (x, y) and sag at `t`."""
        stations, left, right, sags = self.stations, self.left, self.right, self.sags
        index = bisect_right(stations, t, 1, len(stations) - 1) - 1
        after = index + 1
        f = (t - stations[index]) / (stations[after] - stations[index])
        g = 1.0 - f
        (lx, ly), (mx, my) = left[index], left[after]
        (rx, ry), (nx, ny) = right[index], right[after]
        return lx * g + mx * f, ly * g + my * f, rx * g + nx * f, ry * g + ny * f, sags[index] * g + sags[after] * f

    def across(self, t: float, places: Sequence[float]) -> Points:
        """Returns the pixels of the section at `t` for several values of s."""
        lx, ly, rx, ry, sag = self.section(t)
        dx, dy = (rx - lx) * 0.5, (ry - ly) * 0.5
        cx, cy = lx + dx, ly + dy
        return [(cx + dx * s, cy + dy * s + sag * (1.0 - s * s)) for s in places]

    def outline(self) -> Points:
        """Returns the silhouette, with the bottom edge lowered by its sag."""
        if not self.sags[-1]:
            return self.left + self.right[::-1]
        return self.left + self.across(1.0, (-0.6, 0.0, 0.6)) + self.right[::-1]

    def patch(self, t0: float, t1: float, s0: float, s1: float) -> Points:
        """Returns the outline of the piece from t0 to t1 and from s0 to s1."""
        wide = s1 - s0
        places = (s0, s1) if wide < 0.7 else (s0, s0 + 0.3 * wide, s0 + 0.7 * wide, s1)
        top, bottom = self.across(t0, places), self.across(t1, places)
        inner = [self.across(t, (s0, s1)) for t in self.stations if t0 < t < t1]
        down = [edge[0] for edge in inner]
        up = [edge[1] for edge in reversed(inner)]
        return [top[0], *down, *bottom, *up, *top[:0:-1]]

    def strip(self, s0: float, s1: float) -> Points:
        """Returns the outline of the piece from s0 to s1 over the whole length; faster than `patch`: corners only at sections."""
        down, up = self.lane(s0), self.lane(s1)
        up.reverse()
        return down + up

    def lane(self, s: float) -> Points:
        """Returns the line at `s` along the tube, with one point per section."""
        if s in (-1.0, 1.0):
            return list(self.left if s < 0 else self.right)
        b = (s + 1) / 2
        a = 1 - b
        return [(x * a + u * b, y * a + v * b) for (x, y), (u, v) in zip(self.left, self.right, strict=True)]

    def width(self, t: float) -> float:
        """Returns the distance between the two edges at `t`, in pixels."""
        (ax, ay), (bx, by) = self.at(t, -1.0), self.at(t, 1.0)
        return hypot(bx - ax, by - ay)

    def length(self) -> float:
        """Returns the length of the middle line in pixels."""
        middles = [((x + u) / 2, (y + v) / 2) for (x, y), (u, v) in zip(self.left, self.right, strict=True)]
        return sum(hypot(bx - ax, by - ay) for (ax, ay), (bx, by) in pairwise(middles))

    def cut(self, t0: float, t1: float) -> "Tube":
        """Returns the piece from t0 to t1 as a tube."""
        inner = [i for i, t in enumerate(self.stations) if t0 < t < t1]
        stations = [t0, *(self.stations[i] for i in inner), t1]
        left = [self.at(t0, -1.0), *(self.left[i] for i in inner), self.at(t1, -1.0)]
        right = [self.at(t0, 1.0), *(self.right[i] for i in inner), self.at(t1, 1.0)]
        sag = self.sags[-1]
        return Tube(left, right, [(t - t0) / (t1 - t0) for t in stations], [sag] * len(stations) if sag else None)


def limb(middles: Sequence[Point], radii: Sequence[float]) -> Tube:
    """Builds a tube around a bent middle line that runs down the image; `s` = -1 is its left edge."""
    left: Points = []
    right: Points = []
    last = len(middles) - 1
    for index, ((x, y), radius) in enumerate(zip(middles, radii, strict=True)):
        ax, ay = middles[max(index - 1, 0)]
        bx, by = middles[min(index + 1, last)]
        dx, dy = bx - ax, by - ay
        scale = radius / (hypot(dx, dy) or 1.0)
        left.append((x - dy * scale, y + dx * scale))
        right.append((x + dy * scale, y - dx * scale))
    return Tube(left, right, [index / last for index in range(last + 1)])


def bent(joints: Sequence[Point], radii: Sequence[float]) -> Tube:
    """Builds a limb through its joints and the points half-way between them; `radii`: one per point, from the first joint on."""
    middles = [joints[0]]
    for (ax, ay), (bx, by) in pairwise(joints):
        middles += [((ax + bx) / 2, (ay + by) / 2), (bx, by)]
    return limb(middles, radii)


def hull(points: Sequence[Point]) -> Points:
    """Returns the convex hull, counter-clockwise in mathematical axes (Andrew's monotone chain)."""
    ordered = sorted(set(points))
    if len(ordered) < 3:
        return ordered
    return _chain(ordered)[:-1] + _chain(ordered[::-1])[:-1]


def _chain(ordered: Sequence[Point]) -> Points:
    kept: Points = []
    for x, y in ordered:
        while len(kept) > 1:
            (ax, ay), (bx, by) = kept[-2], kept[-1]
            if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                break
            kept.pop()
        kept.append((x, y))
    return kept
