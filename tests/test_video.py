"""Videos show the frames that were given, and are whole or absent."""

import os
import signal
import subprocess
import sys

import imageio.v3 as iio
import numpy as np
import pytest

from umwelten import video


def frames(count, height=64, width=96):
    """Each frame has its own grey, with a white bar that moves."""
    for k in range(count):
        frame = np.full((height, width, 3), 20 + 5 * k, np.uint8)
        frame[:, 2 * k : 2 * k + 8] = 255
        yield frame


def test_what_was_given_can_be_seen(tmp_path):
    path = video.write(tmp_path / "new" / "a.mp4", frames(24), fps=12)
    assert path == tmp_path / "new" / "a.mp4"
    seen = iio.imread(path)
    assert seen.shape == (24, 64, 96, 3) and seen.dtype == np.uint8
    for given, shown in zip(frames(24), seen, strict=True):
        assert np.abs(given.astype(int) - shown).mean() < 6
    assert np.abs(next(frames(1)).astype(int) - seen[-1]).mean() > 50  # and the order matters
    facts = iio.immeta(path)
    assert facts["fps"] == 12 and facts["codec"] == "h264" and facts["duration"] == 2
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("height, width", [(48, 64), (50, 62), (480, 480)])
def test_even_sizes_stay(tmp_path, height, width):
    path = video.write(tmp_path / "a.mp4", frames(3, height, width), fps=10)
    assert iio.imread(path).shape == (3, height, width, 3)


def test_a_failure_on_the_way_leaves_the_older_video_and_no_other(tmp_path):
    path = video.write(tmp_path / "a.mp4", frames(3), fps=10)
    before = path.read_bytes()

    def failing():
        yield from frames(5)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        video.write(path, failing(), fps=10)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    video.write(path, frames(7), fps=10)
    assert len(iio.imread(path)) == 7


def test_no_frames_make_no_video(tmp_path):
    with pytest.raises(ValueError, match="no frames"):
        video.write(tmp_path / "a.mp4", iter(()), fps=10)
    assert not list(tmp_path.iterdir())


WRITER = """
import sys, time, numpy as np
from umwelten import video
def frames():
    k = 0
    while True:
        yield np.full((64, 64, 3), k % 200, np.uint8)
        k += 1
        if k == 200:
            print("many", flush=True)
        time.sleep(0.001)
video.write(sys.argv[1], frames(), fps=30)
"""


def test_what_a_killed_writer_leaves_plays(tmp_path):
    path = tmp_path / "a.mp4"
    command = [sys.executable, "-c", WRITER, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout.readline() == "many\n"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the encoder with it
        process.wait(30)
    assert not path.exists()
    (part,) = tmp_path.iterdir()
    assert len(iio.imread(part)) >= 15
    video.write(path, frames(3), fps=10)  # and is in nobody's way
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
