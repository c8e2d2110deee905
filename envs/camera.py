"""Camera: what every camera is: pictures, depth, segmentation and normals of every row.

It knows no way of drawing them, no task and no clock.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from typing import ClassVar

import gymnasium as gym
import mujoco
import numpy as np

from .sim import Sim

KINDS = ("rgb", "depth", "segmentation", "normal")
FORM = {  # kind -> (channels, dtype)
    "rgb": ((3,), np.uint8),
    "depth": ((), np.float32),
    "segmentation": ((), np.int32),
    "normal": ((3,), np.float32),
}


class Camera(ABC):
    """Cameras of a model, seen in all rows of a Sim by one call.

    Draws geoms of groups 0 to 2 that are not wholly transparent, but none of the body that carries
    the camera (unless that is the world, or the camera tracks it from outside); sites, tendons,
    skins and flexes are not drawn. What is not drawn casts no shadow. Build it before the first
    reset (`Sim.seal`). `far`, in m, is where sight ends.

    Args:
        sim: the rows.
        names: cameras of the model.
        size: (height, width) of every picture, in pixels.
        kinds: what to draw, of "rgb", "depth", "segmentation" and "normal"; no other costs time.
        shadows: whether the model's lamps cast shadows.

    Raises ValueError for a name that is no camera of the model, an orthographic camera, a size
    that is no pair of 1 to 4096 pixels, and an unknown kind.
    """

    drawable: ClassVar[tuple[str, ...]] = KINDS

    def __init__(
        self,
        sim: Sim,
        names: tuple[str, ...],
        size: tuple[int, int] = (64, 64),
        kinds: tuple[str, ...] = ("rgb", "depth", "segmentation"),
        shadows: bool = False,
    ):
        self.sim, self.names, self.kinds, self.shadows = sim, tuple(names), tuple(kinds), shadows
        if not self.names or isinstance(names, str):
            raise ValueError(f"cameras {names!r}; name at least one, in a tuple")
        self.cameras = [_camera_id(sim.model, name) for name in self.names]
        self.size = _checked_size(size)
        for kind in self.kinds:
            if kind not in self.drawable:
                raise ValueError(f"a {type(self).__name__} draws no {kind!r}: {self.drawable}")
        self.far = float(sim.model.vis.map.zfar * sim.model.stat.extent)

    def render(self, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Draws the rows (sorted ints; None: all n), m of them, as they stand.

        Returns new arrays: `rgb/<name>` (m, H, W, 3) uint8; `depth/<name>` (m, H, W) float32, m
        along the optical axis, `far` where nothing nearer is; `segmentation/<name>` (m, H, W)
        int32, a geom's id or -1; `normal/<name>` (m, H, W, 3) float32, the unit normal of the
        surface in the world's frame, 0 where nothing is.
        """
        count = self.sim.n if rows is None else len(rows)
        images = {
            f"{kind}/{name}": np.empty((count, *self.size, *FORM[kind][0]), FORM[kind][1])
            for kind in self.kinds
            for name in self.names
        }
        if count:
            self._draw(np.arange(self.sim.n) if rows is None else np.asarray(rows), images)
        return images

    def spaces(self) -> dict[str, gym.Space]:
        """Returns the space of one row's image under every key of `render`."""
        ends = {
            "rgb": (0, 255),
            "depth": (0, np.float32(self.far)),
            "segmentation": (-1, self.sim.model.ngeom - 1),
            "normal": (-1, 1),
        }
        return {
            f"{kind}/{name}": gym.spaces.Box(
                *ends[kind], (*self.size, *FORM[kind][0]), FORM[kind][1]
            )
            for kind in self.kinds
            for name in self.names
        }

    @abstractmethod
    def _draw(self, rows: np.ndarray, images: dict[str, np.ndarray]) -> None:
        """Fills the images, (m, ...), of the m rows."""


def _camera_id(model: mujoco.MjModel, name: str) -> int:
    names = [model.camera(i).name for i in range(model.ncam)]
    if not names:
        raise ValueError(f"no camera {name!r}: the model has none; add a <camera> to the scene")
    if name not in names:
        near = difflib.get_close_matches(str(name), names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no camera {name!r} among {', '.join(map(repr, names))}{hint}")
    camera = names.index(name)
    if int(model.cam_projection[camera]) != int(mujoco.mjtProjection.mjPROJ_PERSPECTIVE):
        raise ValueError(f"camera {name!r} is orthographic; only perspective cameras are drawn")
    return camera


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    whole = isinstance(size, (tuple, list)) and all(isinstance(x, (int, np.integer)) for x in size)
    if not whole or len(size) != 2 or not all(1 <= x <= 4096 for x in size):
        raise ValueError(f"size {size!r}; give (height, width), each of 1 to 4096 pixels")
    return int(size[0]), int(size[1])
