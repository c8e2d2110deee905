"""Pictures: what a world model imagined beside what was; it knows numbers and frames, no model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from . import video

STYLES = {  # colour and line of each curve
    "imagined": ("C0", "-"), "observed": ("C2", "-"), "persistence": ("C1", "--"),
    "velocity": ("C3", ":"), "held": ("C6", "--"), "recorded": ("C4", "-."),
    "untrained": ("C5", "-."),
}  # fmt: skip
SHADED = ("imagined", "observed", "persistence")  # curves whose interval is drawn
LINES = 4  # components of a vector in the strip
FPS = 4  # of the video: slow enough to see


def draw(folder: Path, found: dict, views, shown: int) -> list[Path]:
    """Writes curves.png, probes.png, strip.png and imagined.mp4, as far as there is what to show.

    found: what the verb `probe` measured. views: its Views; windows of `shown` episodes are drawn,
    the first of each, whatever they look like. Returns the files.
    """
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    episode = views.episode.numpy()
    rows = np.unique(episode, return_index=True)[1][: max(shown, 1)]
    real = {k: v[:, rows].numpy() for k, v in views.truth.items()}
    told = {k: v[:, rows].numpy() for k, v in views.dreamt.items()}
    made = [_curves(folder / "curves.png", found)]
    if found["probes"]:
        made.append(_probes(folder / "probes.png", found["probes"]))
    if vectors := [k for k in told if real[k].ndim == 3]:
        made.append(
            _strip(folder / "strip.png", *({k: s[k] for k in vectors} for s in (real, told)))
        )
    if images := [k for k in told if real[k].ndim == 5]:
        pair = [{k: s[k] for k in images} for s in (real, told)]
        made += [video.write(folder / "imagined.mp4", _frames(*pair), FPS)]
        made += [_sheet(folder / "imagined.png", *pair)]
    return made


def _grid(count: int, width: float = 3.6, height: float = 2.6):
    """Returns a figure and `count` axes, at most four beside each other."""
    from matplotlib import pyplot

    columns = min(count, 4)
    lines = -(-count // columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(width * columns, height * lines), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for spare in axes.flat[count:]:
        spare.set_axis_off()
    return figure, list(axes.flat[:count])


def _line(axes, name: str, curve: dict, first: int = 0) -> None:
    """Draws a curve over k with its interval; gaps where it is not defined."""
    colour, style = STYLES[name]
    mean, low, high = (_gaps(curve[key]) for key in ("mean", "low", "high"))
    ks = np.arange(first, first + len(mean))
    axes.plot(ks, mean, color=colour, ls=style, label=name)
    if name in SHADED:
        axes.fill_between(ks, low, high, color=colour, alpha=0.15, lw=0)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _gaps(values: list) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values])


def _save(figure, path: Path) -> Path:
    from matplotlib import pyplot

    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _curves(path: Path, found: dict) -> Path:
    """Writes errors, beliefs and retrieval over k, with 95 % intervals over episodes."""
    panels = {f"{k} (by {v['by']})": (v, 0, "error") for k, v in found["errors"].items()}
    if found["reward"]:
        panels["reward"] = (found["reward"], 1, "error")
    panels["belief"] = (found["belief"], 0, "error")
    panels["future found"] = (found["retrieval"]["mrr"], 0, "mean reciprocal rank")
    figure, axes = _grid(len(panels))
    for ax, (title, (curves, first, label)) in zip(axes, panels.items(), strict=True):
        for name in (n for n in STYLES if isinstance(curves.get(n), dict)):
            _line(ax, name, curves[name], first)
        if "chance" in curves:
            ax.axhline(curves["chance"], color="C7", ls=":", label="chance")
        tops = [max(_gaps(curves[n]["mean"])) for n in (*SHADED, "held") if n in curves]
        ax.set(title=title, xlabel="steps imagined, k", ylabel=label)
        ax.set_ylim(0, 1.02 if "chance" in curves else 1.3 * max(*tops, 1e-6))
        ax.legend(fontsize=7)
    figure.suptitle(
        f"{found['model']} on {found['task']}: open loop, {found['episodes']['test']} held-out "
        "episodes; error 1 is that of predicting the mean"
    )
    return _save(figure, path)


def _probes(path: Path, probes: dict) -> Path:
    """Writes what linear probes read off beliefs over k, with 95 % intervals over episodes."""
    figure, axes = _grid(len(probes))
    for ax, (title, ways) in zip(axes, probes.items(), strict=True):
        for name in (n for n in STYLES if n in ways):
            _line(ax, name, ways[name])
        ax.plot(_gaps(ways["imagined"]["chance"]), color="C7", ls=":", label="chance")
        ax.set(title=title, xlabel="steps imagined, k", ylabel=ways["imagined"]["measure"])
        ax.set_ylim(-0.25, 1.05)
    axes[0].legend(fontsize=6)
    return _save(figure, path)


def _strip(path: Path, real: dict, told: dict) -> Path:
    """Writes the components that move most, real and imagined, a row of panels for each window."""
    from matplotlib import pyplot

    picked = []
    for key, x in real.items():
        spread = np.abs(np.diff(x, axis=0)).sum((0, 1)) / np.maximum(x.std((0, 1)), 1e-9)
        spread = np.where(np.ptp(x, axis=(0, 1)) > 1e-3, spread, -1)
        best = [j for j in np.argsort(-spread, kind="stable")[:LINES].tolist() if spread[j] >= 0]
        picked += [(key, j) for j in sorted(best)]
    windows = next(iter(real.values())).shape[1]
    figure, axes = pyplot.subplots(
        windows, len(picked), figsize=(2.3 * len(picked), 1.9 * windows), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for i, line in enumerate(axes):
        for ax, (key, j) in zip(line, picked, strict=True):
            ax.plot(real[key][:, i, j], "k-", label="real")
            ax.plot(told[key][:, i, j], "C0--", label="imagined")
            ax.set_title(f"{key}[{j}], episode {i}", fontsize=8)
            ax.tick_params(labelsize=7)
    axes[0][0].legend(fontsize=7)
    for ax in axes[-1]:
        ax.set_xlabel("steps imagined, k", fontsize=8)
    return _save(figure, path)


def _three(real: np.ndarray, told: np.ndarray) -> list[np.ndarray]:
    """Returns images (h, w, 3): real, imagined and their difference, grey where there is none."""
    gap = (told.astype(np.int16) - real.astype(np.int16)) // 2 + 128
    return [real, told, gap.clip(0, 255).astype(np.uint8)]


def _frames(real: dict, told: dict) -> Iterator[np.ndarray]:
    """Yields frames of one window after the other: a row for each camera, the step above."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    keys = list(real)
    last, windows = len(real[keys[0]]) - 1, real[keys[0]].shape[1]
    figure = Figure(figsize=(6.4, 2.4 * len(keys) + 0.4), dpi=100, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.subplots(len(keys), 3, squeeze=False)
    pictures = []
    for line, key in zip(axes, keys, strict=True):
        for ax, title in zip(line, ("real", "imagined", "imagined - real"), strict=True):
            ax.set_axis_off()
            ax.set_title(f"{key}: {title}", fontsize=9)
            pictures.append(ax.imshow(np.zeros_like(real[key][0, 0])))
    for i in range(windows):
        for k in range(last + 1):
            how = "still observed" if k == 0 else f"step {k} of {last}, imagined"
            figure.suptitle(f"episode {i}: {how}", fontsize=10)
            parts = [x for key in keys for x in _three(real[key][k, i], told[key][k, i])]
            for picture, part in zip(pictures, parts, strict=True):
                picture.set_data(part)
            canvas.draw()
            yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _sheet(path: Path, real: dict, told: dict) -> Path:
    """Writes six moments of the first window of each camera: real, imagined, difference."""
    from matplotlib import pyplot

    ks = np.unique(np.linspace(0, len(next(iter(real.values()))) - 1, 6).round().astype(int))
    figure, axes = pyplot.subplots(
        3 * len(real), len(ks), figsize=(1.6 * len(ks), 1.75 * 3 * len(real)),
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for i, key in enumerate(real):
        for column, k in enumerate(ks):
            for j, part in enumerate(_three(real[key][k, 0], told[key][k, 0])):
                axes[3 * i + j, column].imshow(part)
            axes[3 * i, column].set_title(f"k = {k}", fontsize=8)
        for j, title in enumerate(("real", "imagined", "difference")):
            axes[3 * i + j, 0].set_ylabel(f"{key}\n{title}", fontsize=8)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    return _save(figure, path)
