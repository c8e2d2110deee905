"""Cameras: the fastest one that can draw a model, or the one that is asked for by its kind."""

from __future__ import annotations

from . import gl, rays
from .camera import Camera
from .raycast import BatchRayCamera, RayCamera
from .sim import Sim


def make_camera(
    sim: Sim,
    names: tuple[str, ...],
    size: tuple[int, int] = (64, 64),
    kind: str = "auto",
    kinds: tuple[str, ...] = ("rgb", "depth", "segmentation"),
    shadows: bool = False,
) -> Camera:
    """Returns the fastest Camera that can draw the model; see `Camera` for the other arguments.

    `kind` is "rays" (RayCamera), "batch" (BatchRayCamera), "gl" (GLCamera) or "auto": rays where
    all geoms are primitives, else OpenGL where this machine has it, else the engine's rays.
    Raises ValueError for another kind, or for "gl" where OpenGL does not work.
    """
    classes = {"rays": RayCamera, "batch": BatchRayCamera, "gl": gl.GLCamera}
    if kind == "auto":
        if all(int(kind) in rays.PRIMITIVES for kind in sim.model.geom_type):
            kind = "rays"
        else:
            kind = "gl" if "normal" not in kinds and gl.gl_works()[0] else "batch"
    if kind not in classes:
        raise ValueError(f"no camera kind {kind!r}; there is auto, {', '.join(classes)}")
    return classes[kind](sim, names, size, kinds, shadows)
