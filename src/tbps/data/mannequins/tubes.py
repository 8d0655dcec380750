"""Flat shapes with a length and a width: a limb, a torso, a skirt, a head are all tubes seen from the side.

A tube is a list of cross sections in pixels. A point on it is `(t, s)`: t from 0 (top) to 1 (bottom), s from -1 (left edge in the
image) to 1 (right edge). Folds, seams, stripes and buttons are laid out in these coordinates and so follow every pose.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import hypot

Point = tuple[float, float]
Points = list[Point]


class Tube:
    """Cross sections `left[i]`-`right[i]` at the lengths `stations[i]`; `sags[i]` is how far the middle of a section hangs below
    the line between its edges, in pixels: a ring seen from slightly above."""

    __slots__ = ("left", "right", "sags", "stations")

    def __init__(self, left: Points, right: Points, stations: Sequence[float], sags: Sequence[float] | None = None) -> None:
        self.left, self.right = left, right
        self.stations = stations
        self.sags = sags if sags is not None else (0.0,) * len(left)

    def at(self, t: float, s: float) -> Point:
        """The pixel of `(t, s)`."""
        index = min(max(bisect_right(self.stations, t) - 1, 0), len(self.left) - 2)
        low, high = self.stations[index], self.stations[index + 1]
        f = (t - low) / (high - low)
        (lx, ly), (mx, my) = self.left[index], self.left[index + 1]
        (rx, ry), (nx, ny) = self.right[index], self.right[index + 1]
        ax, ay, bx, by = lx + (mx - lx) * f, ly + (my - ly) * f, rx + (nx - rx) * f, ry + (ny - ry) * f
        sag = self.sags[index] + (self.sags[index + 1] - self.sags[index]) * f
        w = (s + 1) / 2
        return ax + (bx - ax) * w, ay + (by - ay) * w + sag * (1 - s * s)

    def outline(self) -> Points:
        """The silhouette, with the bottom edge hanging by its sag."""
        bottom = [self.at(1.0, s) for s in (-0.6, 0.0, 0.6)] if self.sags[-1] else []
        return self.left + bottom + self.right[::-1]

    def patch(self, t0: float, t1: float, s0: float, s1: float) -> Points:
        """The piece between two lengths and two widths."""
        inner = [t for t in self.stations if t0 < t < t1]
        down = [self.at(t, s0) for t in (t0, *inner, t1)]
        up = [self.at(t, s1) for t in (t1, *reversed(inner), t0)]
        if s1 - s0 < 0.7:
            return down + up
        low = [self.at(t1, s0 + (s1 - s0) * f) for f in (0.3, 0.7)]
        high = [self.at(t0, s0 + (s1 - s0) * f) for f in (0.7, 0.3)]
        return down + low + up + high

    def strip(self, s0: float, s1: float) -> Points:
        """The piece between two widths over the whole length (corners at the sections only: quick)."""
        a, b = (s0 + 1) / 2, (s1 + 1) / 2
        pairs = list(zip(self.left, self.right, strict=True))
        down = [(x + (u - x) * a, y + (v - y) * a) for (x, y), (u, v) in pairs]
        up = [(x + (u - x) * b, y + (v - y) * b) for (x, y), (u, v) in reversed(pairs)]
        return down + up

    def width(self, t: float) -> float:
        """Distance of the two edges at `t`, in pixels."""
        (ax, ay), (bx, by) = self.at(t, -1.0), self.at(t, 1.0)
        return hypot(bx - ax, by - ay)

    def length(self) -> float:
        """Length of the middle line in pixels."""
        middles = [((x + u) / 2, (y + v) / 2) for (x, y), (u, v) in zip(self.left, self.right, strict=True)]
        return sum(hypot(bx - ax, by - ay) for (ax, ay), (bx, by) in pairwise(middles))

    def cut(self, t0: float, t1: float) -> "Tube":
        """The piece between two lengths, as a tube of its own."""
        inner = [i for i, t in enumerate(self.stations) if t0 < t < t1]
        stations = [t0, *(self.stations[i] for i in inner), t1]
        left = [self.at(t0, -1.0), *(self.left[i] for i in inner), self.at(t1, -1.0)]
        right = [self.at(t0, 1.0), *(self.right[i] for i in inner), self.at(t1, 1.0)]
        sag = self.sags[-1]
        return Tube(left, right, [(t - t0) / (t1 - t0) for t in stations], [sag] * len(stations) if sag else None)


def limb(middles: Sequence[Point], radii: Sequence[float]) -> Tube:
    """A tube around a bent middle line; `s` = -1 lies to the left of someone who looks down along it from the top of the image."""
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
    """A limb through its joints, with a section half-way between each two; `radii` names joints and half-ways in turn."""
    middles = [joints[0]]
    for (ax, ay), (bx, by) in pairwise(joints):
        middles += [((ax + bx) / 2, (ay + by) / 2), (bx, by)]
    return limb(middles, radii)


def hull(points: Sequence[Point]) -> Points:
    """The convex hull, counter-clockwise in mathematical axes (Andrew's monotone chain): silhouettes of boxes and shoes."""
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
