"""Collect and play: a policy's episodes, to a folder to learn from or to a video to look at."""

from __future__ import annotations

from pathlib import Path

from .rollout import rollout


def collect(
    task: str,
    policy: str = "expert",
    episodes: int = 50,
    out: str = "",
    run: str = "",
    n: int = 16,
    seed: int = 0,
    cameras: tuple = (),
    size: int = 64,
    labels: bool = False,
    physics: bool = False,
    action_repeat: int = 1,
    video: int = 3,
) -> None:
    """Records whole episodes of a policy into a folder, and a video of the first ones.

    task: what is asked, as `umwelten list tasks` says
    policy: random, expert, a planner, or prior (of a run)
    episodes: how many to record
    out: the folder, default runs/<task>-<policy>; an existing one is added to
    run: folder of a training whose model plans
    n: episodes at a time, at most
    seed: the first row's; row i has seed + i
    cameras: names of cameras to record rgb, depth and segmentation of
    size: height and width of their images
    labels: record ground truth too
    physics: record the whole simulation rows too, for exact replay
    action_repeat: control steps that an action lasts; a run's own where one is given
    video: how many episodes the video shows

    umwelten collect task=pick_place policy=expert episodes=50
    umwelten collect task=push episodes=20 cameras=[front,wrist] labels=true
    """
    from rich.progress import track

    from . import build
    from .episodes import Recorder
    from .score import rows_for

    folder = Path(out or f"runs/{task}-{policy}")
    rows = rows_for(episodes, n)
    plans = policy not in ("random", "expert") and not run
    world = build.world_of(run, action_repeat, cameras)
    action_repeat = world["action_repeat"]
    env = build.make_env(
        task, rows, size=(size, size), labels=labels, physics=physics or plans, **world
    )
    actor = build.make_policy(policy, env, run)
    info = {
        "task": task, "policy": type(actor).__name__, "fingerprint": env.fingerprint,
        "action_repeat": action_repeat, "fps": env.metadata["render_fps"],
    }  # fmt: skip
    if video:
        path = film(task, policy, folder / "first.mp4", run, min(video, rows), seed, action_repeat)
        print(f"video of the first episodes: {path}")
    steps = round(env.task.time_limit / env.task.control_dt / action_repeat) + 2
    with Recorder(folder, info) as recorder:
        finished = 0
        loop = rollout(env, actor, seed, episodes // rows)
        for step in track(loop, "collecting", total=steps * (episodes // rows)):
            seeds = {"episode/seed": loop.seeds, "episode/number": loop.finished}
            finished += recorder.add(step | seeds)
    print(f"{finished} episodes in {folder}")


def play(
    task: str,
    policy: str = "expert",
    run: str = "",
    episodes: int = 1,
    seed: int = 0,
    out: str = "",
    action_repeat: int = 1,
) -> None:
    """Films a policy: an mp4 of whole episodes, with what was asked and whether it was done.

    task: what is asked, as `umwelten list tasks` says
    policy: random, expert, a planner, or prior (of a run)
    run: folder of a training whose model plans
    episodes: how many, one after the other
    seed: the first episode's; the next ones count on
    out: the file, default runs/<task>-<policy>.mp4
    action_repeat: control steps that an action lasts; a run's own where one is given

    umwelten play task=push
    umwelten play task=reach policy=mppi run=runs/demo/train
    """
    path = Path(out or f"runs/{task}-{policy}.mp4")
    print(f"video: {film(task, policy, path, run, episodes, seed, action_repeat)}")


def film(
    task: str, policy: str, path: Path, run: str, episodes: int, seed: int, action_repeat: int = 1
) -> Path:
    """Writes an mp4 of the episodes that rows with the seeds seed, seed + 1, ... begin with."""
    from . import build, video

    plans = policy not in ("random", "expert") and not run
    world = build.world_of(run, action_repeat)
    env = build.make_env(task, 1, render_mode="rgb_array", physics=plans, **world)
    actor = build.make_policy(policy, env, run)

    def frames():
        for k in range(episodes):
            for step in rollout(env, actor, [seed + k], episodes_per_row=1):
                yield env.render()[0]
                if step["last"][0]:
                    break
            won = bool(step["label/success"][0])
            words = str(env.words()[0]) or task
            print(f"  {words}: {'done' if won else 'not done'}")

    return video.write(path, frames(), fps=env.metadata["render_fps"])
