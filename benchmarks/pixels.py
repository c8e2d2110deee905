"""Pixels: how many camera frames a core draws in a second, by rays and by MuJoCo's renderer.

The scene is an arm of seven capsules with a gripper over a table with three boxes, a floor and a
lamp. A frame is rgb, depth and segmentation unless said otherwise; times are CPU times of all
threads, so that a number is per core; medians of repeats. Takes about two minutes.

    python benchmarks/pixels.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import mujoco
import numpy as np

from record import record

SIZES = (64, 84, 128, 224)
ALL, FLAT = ("rgb", "depth", "segmentation"), ("depth", "segmentation")


def scene() -> str:
    """Returns the MJCF of the arm over the table."""
    arm, links = "", 7
    for i in range(links):
        axis = "0 0 1" if i % 2 == 0 else "0 1 0"
        arm += f"""<body pos="0 0 {0.1 if i == 0 else 0.14}">
            <joint axis="{axis}"/>
            <geom type="capsule" fromto="0 0 0 0 0 0.14" size="{0.05 - 0.004 * i}"
              rgba="0.75 0.75 0.78 1"/>"""
    rest = " ".join(f"{0.45 + 0.09 * i} {0.15 * (i - 1)} 0.425 1 0 0 0" for i in range(3))
    boxes = "".join(
        f"""<body pos="{0.45 + 0.09 * i} {0.15 * (i - 1)} 0.425"><freejoint/>
            <geom type="box" size="0.025 0.025 0.025" rgba="{colour} 1"/></body>"""
        for i, colour in enumerate(("0.85 0.2 0.2", "0.2 0.7 0.25", "0.2 0.35 0.85"))
    )
    return f"""<mujoco><compiler angle="radian"/>
      <visual><headlight ambient="0.4 0.4 0.4" diffuse="0.4 0.4 0.4"/></visual>
      <asset>
        <texture name="grid" type="2d" builtin="checker" rgb1="0.35 0.4 0.45" rgb2="0.5 0.55 0.6"
          width="256" height="256"/>
        <texture type="skybox" builtin="gradient" rgb1="0.6 0.7 0.85" rgb2="0.15 0.2 0.3"
          width="64" height="384"/>
        <material name="grid" texture="grid" texrepeat="8 8" texuniform="true"/>
      </asset>
      <worldbody>
        <light pos="0.3 -0.6 2" dir="0 0.3 -1" diffuse="0.7 0.7 0.7"/>
        <geom type="plane" size="3 3 0.1" material="grid"/>
        <geom type="box" pos="0.5 0 0.2" size="0.35 0.5 0.2" rgba="0.6 0.45 0.3 1"/>
        <camera name="front" pos="1.5 0 1" xyaxes="0 1 0 -0.45 0 0.9" fovy="50"/>
        <body pos="0 0 0.4">
          <geom type="cylinder" size="0.08 0.05" pos="0 0 0.05" rgba="0.3 0.3 0.35 1"/>
          <geom type="box" size="0.09 0.09 0.2" pos="0 0 -0.2" rgba="0.4 0.4 0.4 1"/>
          {arm}
          <body pos="0 0 0.15">
            <geom type="box" size="0.03 0.05 0.02" rgba="0.3 0.3 0.35 1"/>
            <camera name="wrist" pos="0.07 0 0" xyaxes="0 1 0 1 0 0" fovy="70"/>
            <geom type="box" size="0.012 0.006 0.035" pos="0 0.03 0.05" rgba="0.2 0.2 0.22 1"/>
            <geom type="box" size="0.012 0.006 0.035" pos="0 -0.03 0.05" rgba="0.2 0.2 0.22 1"/>
          </body>{"</body>" * links}
        </body>
        {boxes}
      </worldbody>
      <keyframe><key qpos="0 0.4 0 1.5 0 1.2 0 {rest}"/></keyframe></mujoco>"""


def seconds(draw, repeats: int = 7) -> float:
    """Returns the median CPU seconds of a call, after one that does not count."""
    draw()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        draw()
        times.append(time.process_time() - start)
    return statistics.median(times)


def by_rays(size: int, camera: str, kinds: tuple[str, ...], shadows: bool, engine: bool) -> float:
    """Returns the frames per core-second of a RayCamera, or of the engine's own rays."""
    from umwelten.envs.raycast import BatchRayCamera, RayCamera
    from umwelten.envs.sim import Sim

    rows = max(4, 32 * 64**2 // size**2)
    sim = Sim(mujoco.MjModel.from_xml_string(scene()), rows, 1)
    made = (BatchRayCamera if engine else RayCamera)(sim, (camera,), (size, size), kinds, shadows)
    sim.reset(np.arange(rows))
    sim.forward(np.arange(rows))
    return rows / seconds(made.render, 3 if engine else 7)


def by_renderer(size: int) -> dict[str, float]:
    """Returns the frames per core-second of mujoco.Renderer at its defaults."""
    model = mujoco.MjModel.from_xml_string(scene())
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, size, size) as renderer:

        def picture():
            renderer.update_scene(data, "front")
            renderer.render()

        def all_kinds():
            picture()
            renderer.enable_depth_rendering()
            renderer.render()
            renderer.enable_segmentation_rendering()
            renderer.render()
            renderer.disable_segmentation_rendering()

        return {"rgb": 1 / seconds(picture, 5), "rgb_depth_segmentation": 1 / seconds(all_kinds, 5)}


def first_frame() -> dict[str, float]:
    """Returns the seconds until a fresh process has drawn its first frame, imports left out."""
    from umwelten.envs.raycast import RayCamera
    from umwelten.envs.sim import Sim

    start, cpu = time.perf_counter(), time.process_time()
    sim = Sim(mujoco.MjModel.from_xml_string(scene()), 1, 1)
    camera = RayCamera(sim, ("front",), shadows=True)
    sim.forward(np.arange(1))
    camera.render()
    return {"s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}


def child(*args: str, **environment: str):
    """Returns what this script prints as JSON in a child process."""
    done = subprocess.run(
        [sys.executable, __file__, *args],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure() -> dict:
    """Returns all numbers of the benchmark."""
    from umwelten.envs.gl import gl_works

    with tempfile.TemporaryDirectory() as folder:
        cold, cached = (child("--first", NUMBA_CACHE_DIR=folder) for _ in range(2))
    works, where = gl_works()
    results = {
        "unit": "frames per core-second, rgb + depth + segmentation",
        "first_frame_compiling": cold,
        "first_frame_cached": cached,
        "opengl": where,
        "sizes": {},
    }
    for size in SIZES:
        row = results["sizes"][str(size)] = {
            f"rays_{camera}{'_shadows' if shadows else ''}": by_rays(
                size, camera, ALL, shadows, False
            )
            for camera in ("front", "wrist")
            for shadows in (False, True)
        }
        row["rays_front_depth_segmentation"] = by_rays(size, "front", FLAT, False, False)
        row["engine_rays_front"] = by_rays(size, "front", ALL, False, True)
        if works:
            other = child("--renderer", str(size), MUJOCO_GL="egl")
            row |= {f"mujoco_renderer_{key}": value for key, value in other.items()}
            default = other["rgb_depth_segmentation"]  # draws shadows
            row["rays_over_renderer"] = row["rays_front"] / default
            row["rays_with_shadows_over_renderer"] = row["rays_front_shadows"] / default
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", action="store_true", help="only time a first frame")
    parser.add_argument("--renderer", type=int, metavar="SIZE", help="only time mujoco.Renderer")
    args = parser.parse_args()
    if args.first:
        print(json.dumps(first_frame()))
    elif args.renderer:
        print(json.dumps(by_renderer(args.renderer)))
    else:
        results = measure()
        print(json.dumps(results, indent=1))
        print(record("pixels", results))


if __name__ == "__main__":
    main()
