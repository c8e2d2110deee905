"""Ranges: lidar and points. What distances rays and depth cameras tell of a scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from .sense import Form, Moment, Sense, keyed, mount
from .sim import Sim

_SEEN = (np.arange(mujoco.mjNGROUP) < 3).astype(np.uint8)  # geom groups, as cameras draw them


@dataclass(frozen=True, kw_only=True)
class Lidar(Sense):
    """Distances (beams,) in m along rays spread evenly in a plane; `reach` where nothing is nearer.

    The plane is x, y of the site `lidar`, or of one added 2 cm above the foot of the body `base`;
    beam k points `fov` * (k / beams - 1/2) degrees to the left of x, for k = 0 ... beams - 1. The
    site's own body is not seen, nor is what cameras do not draw.
    """

    at: str | None = None
    beams: int = 64
    fov: float = 360.0
    reach: float = 4.0

    unit = "m"

    def samples(self, dt: float, substeps: int) -> int:
        return _once(self, super().samples(dt, substeps))

    def prepare(self, spec: mujoco.MjSpec) -> None:
        if self.beams < 1 or self.reach <= 0 or not 0 < self.fov <= 360:
            raise ValueError(
                f"{self.key} has beams >= 1, reach > 0 m and 0 < fov <= 360 degrees, "
                f"got {self.beams}, {self.reach} and {self.fov}"
            )
        mount(spec, self.key, self.at, ("lidar",), "base", height=0.02)

    def bind(self, sim: Sim, dt: float, substeps: int) -> dict[str, np.ndarray]:
        sim.once((self.key, "mount"), lambda: self._mount(sim))
        return {}

    def _mount(self, sim: Sim):
        names = [sim.model.site(i).name for i in range(sim.model.nsite)]
        own = next(n for n in (self.at, f"{self.key}:mount", "lidar") if n in names)
        angle = math.radians(self.fov) * (np.arange(self.beams) / self.beams - 0.5)
        way = np.stack([np.cos(angle), np.sin(angle)], -1)
        return sim.site(own), sim.turn(own), way, int(sim.model.site(own).bodyid[0]) or -1

    def form(self, sim: Sim) -> Form:
        return Form((self.beams,), 0.0, float(np.float32(self.reach)))

    def measure(self, sim: Sim, now: Moment, memory: dict[str, np.ndarray]) -> np.ndarray:
        place, turn, way, body = sim.once((self.key, "mount"), lambda: None)
        place, turn = place[now.rows], turn[now.rows].reshape(-1, 1, 3, 3)
        ways = way[:, :1] * turn[..., 0] + way[:, 1:] * turn[..., 1]
        ids = None if len(now.rows) == sim.n else now.rows
        distance, _ = sim.batch.ray(place[:, None], ways, _SEEN, True, body, ids=ids)
        return np.where((distance < 0) | (distance > self.reach), self.reach, distance)[:, None]


@dataclass(frozen=True, kw_only=True)
class Points(Sense):
    """Points (H W, 3) in m that a camera's pixels see, row by row: `points/<camera>`.

    frame: "world" or "camera" (x right, y up, the camera looks along -z). Pixels that see nothing
    up to the camera's far plane are exactly (0, 0, 0). size: (H, W) of its own depth picture.
    Noise is on the depth, along the pixel's ray.
    """

    at: str | None = None
    size: tuple[int, int] = (32, 32)
    frame: str = "world"

    unit = "m"

    def samples(self, dt: float, substeps: int) -> int:
        return _once(self, super().samples(dt, substeps))

    def prepare(self, spec: mujoco.MjSpec) -> None:
        if self.frame not in ("world", "camera"):
            raise ValueError(f"no frame {self.frame!r}; there are 'world' and 'camera'")
        if np.ndim(self.noise):
            raise ValueError(f"{self.key}: noise is one number, of the depth; got {self.noise}")
        names = [camera.name for camera in spec.cameras]
        if self.at not in names:
            raise ValueError(
                f"{self.key} needs a camera: say 'points/<camera>'; the scene has "
                f"{', '.join(names) or 'none'}"
            )

    def bind(self, sim: Sim, dt: float, substeps: int) -> dict[str, np.ndarray]:
        # numba costs 0.5 s and 60 MB: only if needed
        from .cameras import make_camera
        from .sight import Sight

        camera = make_camera(sim, (self.at,), self.size, kinds=("depth",))
        sim.once((self.key, "camera"), lambda: (camera, Sight(sim, camera.size)))
        return {}

    def form(self, sim: Sim) -> Form:
        return Form((self.size[0] * self.size[1], 3))

    def measure(self, sim: Sim, now: Moment, memory: dict[str, np.ndarray]) -> np.ndarray:
        camera, sight = sim.once((self.key, "camera"), lambda: None)
        depth = camera.render(now.rows)[f"depth/{self.at}"].reshape(len(now.rows), -1, 1)
        view = sight.view(camera.cameras[0], now.rows)
        seen = depth < np.float32(camera.far)
        if self.frame == "camera":
            view = view._replace(eye=np.zeros_like(view.eye), look=np.zeros_like(view.look))
            view.look[:, ::4] = 1
        ways = sight.ways(view)
        depth = super().disturb(depth.astype(np.float64), keyed(now.keys, 1))
        return np.where(seen, view.eye[:, None] + depth * ways, 0.0)[:, None]

    def disturb(self, sample: np.ndarray, keys: np.ndarray) -> np.ndarray:
        return sample  # the depth is disturbed already


def _once(sense: Sense, rate: int) -> int:
    if sense.rate is not None:
        raise ValueError(f"{sense.key} is sensed once a control step; leave rate None, got {rate}")
    return rate
