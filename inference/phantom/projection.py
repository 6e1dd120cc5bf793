"""Bones and soft tissue to attenuation: the path of the beam through each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from inference.phantom.bone import Bone, Points
from inference.phantom.flesh import half_width_mm, skin_depth_mm, thickness_mm
from inference.phantom.skeleton import Pose, Skeleton

Picture = NDArray[np.float32]
"""Shape (Rows, Columns)."""

_COARSE = 5
"""The soft tissue is drawn on a grid this much coarser than the bones'."""
_FAT_PER_MM, _CORTEX_PER_MM, _SPONGIOSA_PER_MM = 0.028, 0.050, 0.014
_SCATTER = 0.05
_TEXTURE = 0.27
_TEXTURE_SIDE = 512


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The drawing grid, and where the hand lies on it."""

    rows: int
    columns: int
    pixel_mm: float
    turn_degrees: float
    origin: tuple[float, float]
    """Column and row of the base of the third metacarpal."""

    def to_pixels(self, points: Points) -> Points:
        """Millimetres of the hand, shape (N, 2), to columns and rows."""
        return np.asarray(turned(points, self.turn_degrees) / self.pixel_mm + self.origin)

    def to_mm(self, columns: Picture, rows: Picture) -> tuple[Picture, Picture]:
        """Columns and rows to millimetres of the hand."""
        flat = np.stack([columns - self.origin[0], rows - self.origin[1]], axis=-1) * self.pixel_mm
        points = turned(flat, -self.turn_degrees).astype(np.float32)
        return points[..., 0], points[..., 1]


def turned(points: Points, degrees: float) -> Points:
    """Turn clockwise, as seen on the screen, around the origin; shape (..., 2)."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]))


def flesh_attenuation(skeleton: Skeleton, pose: Pose, frame: Frame) -> tuple[Picture, Picture]:
    """Attenuation of the soft tissue with its scatter, and the distance to the skin (mm, positive
    inside); both of the frame's shape."""
    shape = (frame.rows // _COARSE + 1, frame.columns // _COARSE + 1)
    rows, columns = (np.indices(shape, dtype=np.float32) + 0.5) * _COARSE - 0.5
    x_mm, y_mm = frame.to_mm(columns, rows)
    coarse = skin_depth_mm(skeleton, pose, x_mm=x_mm, y_mm=y_mm)
    coarse_mm = frame.pixel_mm * _COARSE
    widths = half_width_mm(coarse, scale=skeleton.scale, pixel_mm=coarse_mm)
    scatter = ndimage.gaussian_filter((coarse > 0).astype(np.float32), 14 / coarse_mm)
    depth = _fine(coarse, frame)
    thickness = thickness_mm(depth, _fine(widths, frame), scale=skeleton.scale)
    return _FAT_PER_MM * thickness + _SCATTER * _fine(scatter, frame), depth


def bone_attenuation(skeleton: Skeleton, frame: Frame) -> Picture:
    """Attenuation of all bones, of the frame's shape."""
    picture = np.zeros((frame.rows, frame.columns), dtype=np.float32)
    texture = _texture()
    for bone in skeleton.bones:
        outlines = [frame.to_pixels(outline) for outline in bone.outlines]
        window = _window(outlines, frame)
        if window is not None:
            depth_mm = _depth_pixels(outlines, window) * frame.pixel_mm
            picture[window] += _bone(bone, depth_mm, frame, window, texture)
    return picture


def _fine(coarse: Picture, frame: Frame) -> Picture:
    size = (coarse.shape[1] * _COARSE, coarse.shape[0] * _COARSE)
    fine = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(fine)[: frame.rows, : frame.columns]


_Window = tuple[slice, slice]


def _window(outlines: list[Points], frame: Frame) -> _Window | None:
    """Rows and columns around the outlines, cut by the frame; None when they lie outside."""
    low = np.floor(np.min([outline.min(axis=0) for outline in outlines], axis=0)).astype(int) - 2
    high = np.ceil(np.max([outline.max(axis=0) for outline in outlines], axis=0)).astype(int) + 3
    low, high = np.maximum(low, 0), np.minimum(high, (frame.columns, frame.rows))
    if (low >= high).any():
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])


def _depth_pixels(outlines: list[Points], window: _Window) -> Picture:
    """Distance to the edge of the union of the outlines in pixels, 0 outside."""
    rows, columns = window
    margin = 40  # a bone that the frame cuts has no edge there
    size = (columns.stop - columns.start + 2 * margin, rows.stop - rows.start + 2 * margin)
    mask = Image.new("L", size)
    corner = np.array([columns.start - margin, rows.start - margin])
    for outline in outlines:
        ImageDraw.Draw(mask).polygon((outline - corner).ravel().tolist(), fill=255)
    depth = ndimage.distance_transform_edt(np.asarray(mask))[margin:-margin, margin:-margin]
    return np.asarray(np.maximum(depth - 0.5, 0), dtype=np.float32)


def _bone(
    bone: Bone, depth_mm: Picture, frame: Frame, window: _Window, texture: Picture
) -> Picture:
    """Cortex and spongiosa of one bone, a tube or a shell around its half depth."""
    start, end = frame.to_pixels(bone.axis)
    length = float(np.hypot(*(end - start)))
    columns = np.arange(window[1].start, window[1].stop, dtype=np.float32)[None]
    rows = np.arange(window[0].start, window[0].stop, dtype=np.float32)[:, None]
    (dx, dy), (x, y) = (end - start) / length, start
    along = (columns - x) * dx + (rows - y) * dy
    across = (columns - x) * dy - (rows - y) * dx
    middle = np.sin(np.pi * np.clip(along / length, 0, 1))
    wall = bone.shell_mm + (bone.cortex_mm - bone.shell_mm) * middle
    whole = _chord(depth_mm, bone.half_depth_mm)
    inner = _chord(depth_mm - wall, np.maximum(bone.half_depth_mm - wall, 0.1))
    cells = texture[(along * 0.45).astype(int) % _TEXTURE_SIDE, across.astype(int) % _TEXTURE_SIDE]
    spongiosa = inner * (1 - (1 - bone.marrow) * middle) * (1 + _TEXTURE * cells)
    density = _CORTEX_PER_MM * (whole - inner) + _SPONGIOSA_PER_MM * spongiosa
    return np.asarray(bone.strength * density, dtype=np.float32)


def _chord(depth_mm: Picture, half_depth_mm: Picture | float) -> Picture:
    """Path through a round edge of this radius that goes over into a plate; 0 outside."""
    inside = np.clip(depth_mm, 0, half_depth_mm)
    return np.asarray(2 * np.sqrt(inside * (2 * half_depth_mm - inside)), dtype=np.float32)


def _texture() -> Picture:
    """Trabeculae: band-pass noise of unit variance, shape (512, 512), that repeats without seam."""
    noise = np.random.default_rng(0).standard_normal((_TEXTURE_SIDE, _TEXTURE_SIDE))
    fine = ndimage.gaussian_filter(noise, 0.7, mode="wrap")
    cells = fine - ndimage.gaussian_filter(noise, 2.0, mode="wrap")
    return np.asarray(cells / cells.std(), dtype=np.float32)
