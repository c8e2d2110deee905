"""Mjcf: a user's own body from an MJCF file that may be hostile; knows no robot.

MuJoCo never opens a file here. The XML is read by expat, which is told to refuse what MJCF does not
need; its includes are put in their places; every file that it names is looked up inside the model's
own folder and handed over by content. What could ask for too much memory or time is refused first.
"""

from __future__ import annotations

import html
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from xml.parsers import expat

import mujoco

EXTENT = 1000.0  # m: nothing in a body is larger or further away
_DEPTH, _ELEMENTS, _NUMBER = 100, 100_000, 1e12
_PLACED = {"pos", "size", "fromto", "scale", "vertex", "refpos", "offset", "radius", "spacing"}
_FILES = {"mesh": "meshdir", "hfield": "meshdir", "skin": "meshdir", "texture": "texturedir"}
_REFUSED = {
    "plugin": "it runs code of an extension",
    "extension": "it runs code of an extension",
    "model": "attach other models in Python, with MjSpec.attach",
    "flexcomp": "it makes a soft body of any size; write a flex",
}
_USER = (
    "nuser_body nuser_jnt nuser_geom nuser_site nuser_cam nuser_tendon nuser_actuator nuser_sensor"
)
_MOST = {  # of an element (or any), attributes, and the largest product of an attribute's numbers
    ("size", "njmax nconmax nstack nuserdata"): 1_000_000,
    ("size", "nkey"): 10_000,
    ("size", _USER): 100,
    ("option", "iterations ls_iterations noslip_iterations ccd_iterations"): 10_000,
    ("option", "sdf_iterations sdf_initpoints"): 1000,
    ("hfield", "nrow ncol"): 4096,
    ("texture", "width height"): 8192,
    ("camera", "resolution"): 2**24,
    ("global", "offwidth offheight"): 2**14,
    ("quality", "shadowsize offsamples numslices numstacks numquads"): 2**14,
    ("numeric", "size"): 100_000,
    ("mesh", "params"): 10_000,
    ("", "nsample num dim cellcount gridsize maxhullvert octree_maxdepth"): 10_000,
}
_CAPS = {(tag, name): most for (tag, names), most in _MOST.items() for name in names.split()}
_MEMORY = 2**28  # bytes that a model may reserve for every simulation


@dataclass
class _Element:
    tag: str
    attributes: dict[str, str]
    children: list[_Element] = field(default_factory=list)

    def walk(self) -> Iterator[_Element]:
        yield self
        for child in self.children:
            yield from child.walk()

    def text(self) -> str:
        told = "".join(f' {k}="{html.escape(v)}"' for k, v in self.attributes.items())
        return f"<{self.tag}{told}>{''.join(c.text() for c in self.children)}</{self.tag}>"


def load(path: str | Path, *, max_bytes: int = 2**26, max_bodies: int = 500) -> mujoco.MjSpec:
    """Returns the spec of an MJCF file, with its includes, meshes, textures and height fields.

    max_bytes: of all its files together. max_bodies: after `replicate` and `composite`. The spec
    has been compiled once, so it compiles. Raises ValueError that says what is wrong and what is
    allowed: for XML that is no MJCF, documents with a DTD or entities, files outside the model's
    folder, plugins, and for what is too large.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} is no file")
    files = _Folder(Path(path), max_bytes)
    root = files.parse(files.main)
    if root.tag != "mujoco":
        raise ValueError(f"{path}: the root is <{root.tag}>; an MJCF file's is <mujoco>")
    root.children = files.included(root, files.main)
    for element in root.walk():
        _check(element)
    bodies, elements = _count(root)
    if bodies > max_bodies or elements > _ELEMENTS:
        raise ValueError(
            f"{path}: {bodies} bodies and {elements} elements; at most {max_bodies} (max_bodies) "
            f"and {_ELEMENTS} are allowed"
        )
    assets = files.assets(root)
    try:
        spec = mujoco.MjSpec.from_string(root.text(), assets=assets)
        model = spec.compile()
    except (ValueError, mujoco.FatalError) as error:
        raise ValueError(f"{path}: MuJoCo says: {error}") from error
    if model.nbody > max_bodies + 1:
        raise ValueError(f"{path}: {model.nbody - 1} bodies; at most {max_bodies} (max_bodies)")
    largest = max((float(x) for x in model.geom_rbound), default=0.0)
    if not largest <= EXTENT:
        raise ValueError(f"{path}: a geom of {largest:g} m; at most {EXTENT:g} m is allowed")
    return spec


def check_arm(spec: mujoco.MjSpec, joints: Sequence[str]) -> None:
    """Raises ValueError that lists all that a spec lacks to be the arm of a `robots.body.Body`.

    joints: the arm's, which must be its first, in order.
    """
    model = spec.compile()
    kinds = {
        "body": (mujoco.mjtObj.mjOBJ_BODY, ["base"]),
        "joint": (mujoco.mjtObj.mjOBJ_JOINT, list(joints)),
        "site": (mujoco.mjtObj.mjOBJ_SITE, ["tcp"]),
        "camera": (mujoco.mjtObj.mjOBJ_CAMERA, ["wrist"]),
        "geom": (mujoco.mjtObj.mjOBJ_GEOM, ["left", "right"]),
        "actuator": (mujoco.mjtObj.mjOBJ_ACTUATOR, [*joints, "gripper"]),
    }
    lacks = [
        f"{kind} {name!r}"
        for kind, (number, names) in kinds.items()
        for name in names
        if mujoco.mj_name2id(model, number, name) < 0
    ]
    first = [model.joint(i).name for i in range(min(len(joints), model.njnt))]
    driven = [model.actuator(i).name for i in range(min(len(joints) + 1, model.nu))]
    if not lacks and first != list(joints):
        lacks.append(f"its joints in front: they are {', '.join(first)}")
    if not lacks and driven != [*joints, "gripper"]:
        lacks.append(f"its actuators in the joints' order: they are {', '.join(driven)}")
    if lacks:
        raise ValueError(f"the arm {spec.modelname!r} lacks {', '.join(lacks)}")


class _Folder:
    """The files of one model, all inside its folder, read at most once and of limited size."""

    def __init__(self, path: Path, max_bytes: int):
        self.main = path.resolve()
        self.root, self.left, self.most = self.main.parent, max_bytes, max_bytes
        self.seen = {self.main}
        self.names: dict[Path, str] = {}

    def find(self, name: str, *folders: Path) -> Path:
        """Returns the first regular file of that name; raises ValueError if it lies outside."""
        plain = PurePosixPath(name.replace("\\", "/"))
        if plain.is_absolute() or ":" in name or not name.isprintable() or not name:
            raise ValueError(f"file {name!r} is no relative path inside the model's folder")
        for folder in folders:
            try:
                place = (folder / plain).resolve()
                regular = place.is_file()
            except (OSError, RuntimeError) as error:  # a name too long, links in a circle
                raise ValueError(f"file {name!r} cannot be found: {error}") from error
            inside = place.is_relative_to(self.root)
            if regular and inside:
                return place
            if not inside and folder == folders[-1]:
                raise ValueError(
                    f"file {name!r} lies outside the model's folder; copy it into that folder"
                )
        raise ValueError(f"file {name!r} is not in the model's folder, or is no regular file")

    def read(self, place: Path) -> bytes:
        """Returns a file's content, and counts its bytes; raises ValueError beyond the limit."""
        try:
            with place.open("rb") as file:
                content = file.read(self.left + 1)
        except OSError as error:
            raise ValueError(f"{place.name} cannot be read: {error.strerror}") from error
        self.left -= len(content)
        if self.left < 0:
            raise ValueError(f"the model's files exceed {self.most} bytes (max_bytes)")
        return content

    def parse(self, place: Path) -> _Element:
        """Returns a file's tree; raises ValueError for what is no plain XML."""
        top = _Element("", {})
        open_ = [top]
        count = 0

        def start(tag: str, attributes: dict) -> None:
            nonlocal count
            count += 1
            if len(open_) > _DEPTH or count > _ELEMENTS:
                raise ValueError(
                    f"{place.name}: over {_ELEMENTS} elements, or nested deeper than {_DEPTH}"
                )
            element = _Element(tag, attributes)
            open_[-1].children.append(element)
            open_.append(element)

        def doctype(*_) -> None:
            raise ValueError(f"{place.name} has a DTD; MJCF needs none, and entities are refused")

        parser = expat.ParserCreate("utf-8")
        parser.StartElementHandler, parser.EndElementHandler = start, lambda _: open_.pop()
        parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = doctype
        try:
            parser.Parse(self.read(place), True)
        except expat.ExpatError as error:
            raise ValueError(f"{place.name} is no XML in utf-8: {error}") from error
        return top.children[0]

    def included(self, element: _Element, place: Path, depth: int = 1) -> list[_Element]:
        """Returns an element's children with includes replaced by what is in their files.

        As in MuJoCo a name is looked up beside the main file, then beside the including one, and a
        file is included once.
        """
        if depth > _DEPTH:
            raise ValueError(f"{place.name}: elements are nested deeper than {_DEPTH}")
        out = []
        for child in element.children:
            if child.tag != "include":
                child.children = self.included(child, place, depth + 1)
                out.append(child)
                continue
            other = self.find(child.attributes.get("file", ""), self.root, place.parent)
            if other in self.seen:
                raise ValueError(f"{other.name} is included twice, or in a circle; once is allowed")
            self.seen.add(other)
            out += self.included(self.parse(other), other, depth + 1)
        return out

    def assets(self, root: _Element) -> dict[str, bytes]:
        """Returns the contents of all files that elements name, which are renamed to its keys."""
        folders, strip = {"meshdir": "", "texturedir": ""}, False
        for compiler in (e for e in root.children if e.tag == "compiler"):
            a = compiler.attributes
            both = a.pop("assetdir", None)
            for kind in folders:
                folders[kind] = a.pop(kind, folders[kind] if both is None else both)
            strip = a.pop("strippath", str(strip)).lower() == "true"
        found: dict[str, bytes] = {}
        for element in root.walk():
            for key in [k for k in element.attributes if k.startswith("file")]:
                if element.tag not in _FILES:
                    allowed = ", ".join(_FILES)
                    raise ValueError(f"<{element.tag} {key}> is refused; only {allowed} name files")
                name = element.attributes[key].replace("\\", "/")
                name = name.rpartition("/")[2] if strip else name
                if key == "file":
                    element.attributes.setdefault("name", PurePosixPath(name).stem)
                folder = folders[_FILES[element.tag]].replace("\\", "/")
                place = self.find(str(PurePosixPath(folder) / name), self.root)
                if place not in self.names:
                    self.names[place] = f"{len(self.names)}{place.suffix}"
                    found[self.names[place]] = _picture(place.name, self.read(place))
                element.attributes[key] = self.names[place]
        return found


def _check(element: _Element) -> None:
    """Raises ValueError for an element that runs foreign code, or asks for too much."""
    tag = element.tag
    if tag in _REFUSED or "plugin" in element.attributes:
        why = _REFUSED.get(tag, _REFUSED["plugin"])
        raise ValueError(f"<{tag}> is refused: {why}")
    for key, value in element.attributes.items():
        most = _CAPS.get((tag, key), _CAPS.get(("", key)))
        numbers = _numbers(value)
        told = f"<{tag} {key}={value[:40]!r}>"
        if key == "memory" and _bytes(value) > _MEMORY:
            raise ValueError(f"{told}: at most {_MEMORY} bytes are allowed")
        if numbers is None:
            if most or key in _PLACED:
                raise ValueError(f"{told} must be plain numbers")
        elif not all(abs(x) <= _NUMBER for x in numbers):
            raise ValueError(f"{told}: numbers must be finite, at most {_NUMBER:g}")
        elif most:
            if math.prod(abs(x) for x in numbers) > most:
                raise ValueError(f"{told}: at most {most} is allowed")
        elif key in _PLACED and not all(abs(x) <= EXTENT for x in numbers):
            raise ValueError(f"{told}: at most {EXTENT:g} m is allowed")


def _count(element: _Element, times: int = 1) -> tuple[int, int]:
    """Returns how many bodies and elements there are when replicas and composites are made."""
    made = 1
    if element.tag in ("replicate", "composite"):
        counts = _numbers(element.attributes.get("count", "1"))
        if not counts:
            raise ValueError(f"<{element.tag} count> must be plain numbers")
        made = math.prod(max(1, round(abs(x))) for x in counts)
    times *= made
    bodies = times if element.tag in ("body", "composite") else 0
    elements = times
    for child in element.children:
        more = _count(child, times)
        bodies, elements = bodies + more[0], elements + more[1]
    return bodies, elements


def _numbers(value: str) -> list[float] | None:
    try:
        return [float(x) for x in value.split()]
    except ValueError:
        return None


def _bytes(value: str) -> float:
    """Returns the bytes that `<size memory>` asks for: a number and a letter of KMGTPE, or -1."""
    value = value.strip().upper()
    power = "KMGTPE".find(value[-1:]) + 1 if value else 0
    number = _numbers(value[:-1] if power else value)
    if not number or len(number) > 1:
        raise ValueError(f"<size memory={value[:40]!r}> must be a number of bytes")
    return number[0] * 1024**power


def _picture(name: str, content: bytes) -> bytes:
    """Returns a file's content; raises ValueError for a PNG that would unpack to too much."""
    if content.startswith(b"\x89PNG") and len(content) >= 24:
        width, height = struct.unpack(">II", content[16:24])
        if width * height > 2**26:
            raise ValueError(f"{name}: {width} x {height} pixels; at most {2**26} are allowed")
    return content
