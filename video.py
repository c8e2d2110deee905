"""Video: frames to an mp4 that is whole or absent, and plays even where its writer was killed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np


def write(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> Path:
    """Writes uint8 frames (H, W, 3) as an H.264 mp4, under a temporary name until it is whole.

    Raises ValueError if there are no frames.
    """
    import imageio

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    part.unlink(missing_ok=True)  # of a killed writer
    fragmented = ["-movflags", "+frag_keyframe+empty_moov", "-g", "15"]
    writer = imageio.get_writer(
        part, fps=fps, codec="libx264", quality=7, macro_block_size=2, output_params=fragmented,
        ffmpeg_log_level="error",
    )  # fmt: skip
    try:
        try:
            for frame in frames:
                writer.append_data(frame)
        finally:  # as a context it would not close after an error
            writer.close()
        if not part.exists():
            raise ValueError(f"no frames for {path}; an episode has at least one")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
