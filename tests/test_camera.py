"""Cameras: what a picture holds, that three ways to draw agree, and that light obeys its laws."""

import mujoco
import numpy as np
import pytest

from umwelten.envs import backdrop, gl, rays, shading, sight
from umwelten.envs.camera import KINDS
from umwelten.envs.cameras import make_camera
from umwelten.envs.gl import GLCamera, gl_works
from umwelten.envs.raycast import BatchRayCamera, RayCamera
from umwelten.envs.sim import Sim

DESK = """<mujoco>
  <visual><headlight ambient="0.3 0.3 0.3" diffuse="0.3 0.3 0.3" specular="0 0 0"/></visual>
  <asset>
    <texture name="grid" type="2d" builtin="checker" rgb1="0.3 0.4 0.5" rgb2="0.5 0.6 0.7"
      width="64" height="64"/>
    <texture type="skybox" builtin="gradient" rgb1="0.6 0.7 0.8" rgb2="0.1 0.2 0.3" width="64"
      height="384"/>
    <material name="grid" texture="grid" texrepeat="4 4" texuniform="true" specular="0"/>
    <material name="red" rgba="0.9 0.2 0.1 1" specular="0"/>
    <material name="glass" rgba="1 1 1 0"/>
  </asset>
  <worldbody>
    <light pos="0.5 -0.5 2" dir="-0.2 0.2 -1" cutoff="60" exponent="1" diffuse="0.5 0.5 0.5"
      specular="0 0 0"/>
    <geom name="floor" type="plane" size="2 2 0.1" material="grid"/>
    <geom name="pane" type="box" size="0.01 1 1" pos="0.8 0 0.5" material="glass"/>
    <geom name="hidden" type="sphere" size="0.4" pos="0 0 0.4" group="3"/>
    <geom name="pole" type="cylinder" size="0.05 0.2" pos="-0.3 0.2 0.2" rgba="0.2 0.3 0.9 1"/>
    <geom name="egg" type="ellipsoid" size="0.1 0.06 0.15" pos="-0.2 -0.3 0.15"/>
    <geom name="rod" type="capsule" size="0.04 0.2" pos="0.1 -0.2 0.1" euler="0 80 30"/>
    <camera name="front" pos="1.5 0 0.8" xyaxes="0 1 0 -0.4 0 1"/>
    <body name="cube" pos="0 0 0.1"><freejoint/>
      <geom name="cube" type="box" size="0.08 0.08 0.08" material="red"/>
      <geom name="horn" type="sphere" size="0.05" pos="0 0 0.12" rgba="0.8 0.8 0.2 1"/>
      <camera name="head" pos="0 0 0.12" xyaxes="0 -1 0 0.3 0 1" fovy="80"/>
    </body>
  </worldbody>
</mujoco>"""
WEDGE = '<asset><mesh name="wedge" vertex="0 0 0 0.3 0 0 0 0.3 0 0 0 0.3"/>'
MESH = DESK.replace("<asset>", WEDGE).replace(
    'type="ellipsoid" size="0.1 0.06 0.15"', 'type="mesh" mesh="wedge"'
)


def desk(n=3, nthread=1, xml=DESK):
    """Returns n rows of the desk; a row's cube stands by the row's number, wherever it is."""
    return Sim(mujoco.MjModel.from_xml_string(xml), n, nthread)


def arrange(sim, rows=None, seeds=None):
    """Puts every row's cube somewhere, by the row's seed."""
    rows = np.arange(sim.n) if rows is None else rows
    sim.reset(rows)
    for row, seed in zip(rows, rows if seeds is None else seeds, strict=True):
        rng = np.random.default_rng(seed)
        sim.qpos[row, :3] = rng.uniform([-0.3, -0.4, 0.1], [0.4, 0.4, 0.4])
        sim.qpos[row, 3:7] = rng.normal(size=4)
    sim.forward(rows)
    return sim


def drawn(camera_class, n=3, nthread=1, seeds=None, xml=DESK, **options):
    sim = desk(n, nthread, xml)
    camera = camera_class(sim, ("front", "head"), **options)
    sim.seal()
    arrange(sim, seeds=seeds)
    return camera.render()


def test_images_lie_in_their_spaces_and_are_new():
    sim = desk()
    camera = RayCamera(sim, ("front", "head"), (20, 30), KINDS)
    arrange(sim)
    images, again = camera.render(), camera.render()
    assert set(images) == {f"{kind}/{name}" for kind in KINDS for name in ("front", "head")}
    for key, space in camera.spaces().items():
        assert images[key].shape == (3, *space.shape)
        assert all(space.contains(image) for image in images[key])
        np.testing.assert_array_equal(images[key], again[key])
        assert not np.shares_memory(images[key], again[key])
    assert images["rgb/front"].std() > 10
    sky = images["segmentation/front"] == -1
    assert sky.any()
    assert (images["depth/front"][sky] == np.float32(camera.far)).all()
    assert (images["depth/front"][~sky] < 10).all()
    assert (images["normal/front"][sky] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(images["normal/front"][~sky], axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("kinds", [("rgb",), ("depth",), ("segmentation",), ("normal", "depth")])
def test_a_kind_alone_is_what_it_is_among_others(kinds):
    every = drawn(RayCamera, kinds=KINDS)
    some = drawn(RayCamera, kinds=kinds)
    assert set(some) == {f"{kind}/{name}" for kind in kinds for name in ("front", "head")}
    for key, image in some.items():
        np.testing.assert_array_equal(image, every[key])


@pytest.mark.parametrize("shadows", [False, True])
def test_a_row_has_the_same_bits_at_any_thread_count_number_and_place(shadows):
    seeds = list(range(40))
    options = {"kinds": KINDS, "shadows": shadows}
    images = drawn(RayCamera, 40, 1, seeds, **options)
    for nthread in (2, 3):
        for key, image in drawn(RayCamera, 40, nthread, seeds, **options).items():
            np.testing.assert_array_equal(image, images[key])
    few = drawn(RayCamera, 3, 2, [31, 4, 17], **options)
    for key, image in few.items():
        np.testing.assert_array_equal(image, images[key][[31, 4, 17]])
    assert (images["rgb/front"][31] != images["rgb/front"][4]).any()


@pytest.mark.parametrize("shadows", [False, True])
def test_what_was_seen_before_changes_no_bit(shadows, monkeypatch):
    """The backdrop: the second picture has it drawn, the third copies it."""
    sim = desk(4)
    colour, seen = sim.vary("mat_rgba"), []
    camera = RayCamera(sim, ("front", "head"), (40, 50), KINDS, shadows)
    begin = backdrop.Backdrop.begin

    def record(self, view, images):
        seen.append(begin(self, view, images))
        return seen[-1]

    monkeypatch.setattr(backdrop.Backdrop, "begin", record)
    for k in range(6):
        arrange(sim, seeds=range(4 * k, 4 * k + 4))
        if k == 4:
            colour[2, 0, 0] = 0.5  # the floor of one row
        images = camera.render()
        anew = RayCamera(sim, ("front", "head"), (40, 50), KINDS, shadows).render()
        for key, image in images.items():
            np.testing.assert_array_equal(image, anew[key])
    front = np.array(seen[::4])
    np.testing.assert_array_equal(front[:2], False)
    np.testing.assert_array_equal(front[2:4], True)
    assert front[4:].sum(1).tolist() == [4, 4] if shadows else [3, 3]
    assert not np.any(seen[1::4])  # the head turns


def test_chosen_rows_are_drawn_alone():
    sim = desk(5)
    camera = RayCamera(sim, ("front",), kinds=("rgb", "depth"))
    arrange(sim)
    images, some = camera.render(), camera.render(np.array([1, 4]))
    for key in images:
        np.testing.assert_array_equal(some[key], images[key][[1, 4]])
    assert camera.render(np.array([], int))["rgb/front"].shape == (0, 64, 64, 3)


@pytest.mark.parametrize("camera_class", [RayCamera, BatchRayCamera])
def test_what_is_hidden_is_not_drawn(camera_class):
    images = drawn(camera_class, kinds=("segmentation",))
    model = desk().model
    front, head = images["segmentation/front"], images["segmentation/head"]
    assert {model.geom(name).id for name in ("floor", "cube", "pole", "egg", "rod")} <= {
        *front.flat
    }
    for name in ("pane", "hidden"):
        assert not (front == model.geom(name).id).any()
        assert not (head == model.geom(name).id).any()
    assert not (head == model.geom("cube").id).any()  # carries the camera
    assert not (head == model.geom("horn").id).any()
    assert (front == model.geom("horn").id).any()


@pytest.mark.parametrize("shadows", [False, True])
def test_the_engines_rays_draw_the_same_picture(shadows):
    ours = drawn(RayCamera, kinds=KINDS, shadows=shadows)
    theirs = drawn(BatchRayCamera, kinds=KINDS, shadows=shadows)
    for name in ("front", "head"):
        same = ours[f"segmentation/{name}"] == theirs[f"segmentation/{name}"]
        assert same.mean() >= 0.999
        depth = ours[f"depth/{name}"], theirs[f"depth/{name}"]
        np.testing.assert_allclose(depth[0][same], depth[1][same], rtol=1e-5, atol=1e-5)
        turn = np.abs(ours[f"normal/{name}"] - theirs[f"normal/{name}"]).max(-1)
        assert (turn[same] < 2e-3).mean() > 0.998
        change = np.abs(ours[f"rgb/{name}"].astype(int) - theirs[f"rgb/{name}"]).max(-1)
        assert (change > 2).mean() < (0.01 if shadows else 0.003)
    other = drawn(BatchRayCamera, seeds=[7, 8, 9])
    assert (other["segmentation/front"] != ours["segmentation/front"]).mean() > 0.01


def test_shadows_only_darken():
    bright = drawn(RayCamera, kinds=("rgb",))["rgb/front"]
    dark = drawn(RayCamera, kinds=("rgb",), shadows=True)["rgb/front"]
    assert (dark <= bright).all()
    assert (dark < bright).any(-1).mean() > 0.01


def test_varied_fields_show():
    sim = desk(2)
    camera = RayCamera(sim, ("front",))
    size, rgba = sim.vary("geom_size"), sim.vary("geom_rgba")
    fovy, light = sim.vary("cam_fovy"), sim.vary("light_diffuse")
    arrange(sim, seeds=[0, 0])
    before = camera.render()
    np.testing.assert_array_equal(before["rgb/front"][0], before["rgb/front"][1])
    pole = sim.model.geom("pole").id
    size[1, pole, 0] *= 2
    rgba[1, pole] = [1, 0, 0, 1]
    after = camera.render()
    count = (after["segmentation/front"] == pole).sum((1, 2))
    assert count[1] > 1.5 * count[0]
    red = after["rgb/front"][1][after["segmentation/front"][1] == pole]
    assert (red[:, 0] > 50).all() and (red[:, 1:] == 0).all()
    rgba[1, pole, 3] = 0
    assert not (camera.render()["segmentation/front"][1] == pole).any()
    fovy[1], light[0] = 10, 0
    last = camera.render()
    assert last["rgb/front"][0].mean() < before["rgb/front"][0].mean() - 5
    sky = (last["segmentation/front"] == -1).mean((1, 2))
    assert sky[1] != sky[0]


def test_no_scene_makes_a_kernel_compile_again():
    kernels = rays.place, rays.cast, rays.normals, rays.occlude, shading.shade
    kernels += backdrop._recognise, sight._survey
    drawn(RayCamera, kinds=KINDS, shadows=True)
    before = [len(kernel.signatures) for kernel in kernels]
    bare = (
        '<mujoco><worldbody><camera name="eye" sensorsize="1 1" focal="1 1"/></worldbody></mujoco>'
    )
    bare = bare.replace("/></world", ' resolution="8 8"/></world')
    full = bare.replace("<camera", '<light/><geom size="1" pos="0 0 -3"/><camera')
    for xml, n in ((bare, 1), (full, 1), (full, 4)):
        sim = desk(n, xml=xml)
        camera = RayCamera(sim, ("eye",), (1, 7), KINDS, shadows=True)
        for field in ("geom_rgba", "geom_size", "geom_type", "cam_fovy", "light_diffuse"):
            if n > 1:
                sim.vary(field)
        sim.forward(np.arange(n))
        camera.render()
        camera.render(np.array([n - 1]))
    assert [len(kernel.signatures) for kernel in kernels] == before


def test_intrinsics_give_the_picture_of_their_field_of_view():
    focal = 0.5 / np.tan(np.deg2rad(45) / 2)
    own = DESK.replace(
        '<camera name="front"',
        f'<camera name="lens" pos="1.5 0 0.8" xyaxes="0 1 0 -0.4 0 1" sensorsize="1 1" '
        f'focal="{focal} {focal}" resolution="64 64"/><camera name="front"',
    )
    sim = desk(1, xml=own)
    camera = RayCamera(sim, ("front", "lens"))
    images = (arrange(sim), camera.render())[1]
    for kind in ("rgb", "segmentation"):
        assert (images[f"{kind}/front"] == images[f"{kind}/lens"]).mean() > 0.999


def lone_plane(light, size="2 2 0.1", look="", asset="", eye="0 0 3"):
    """Returns the middle of a picture of a plane from above, and the whole of it."""
    xml = f"""<mujoco><visual><headlight ambient="0.1 0.1 0.1" diffuse="0.2 0.2 0.2"/></visual>
        <asset>{asset}</asset><worldbody>{light}<geom type="plane" size="{size}" {look}/>
        <geom type="sphere" size="0.01" pos="3 3 0"/>
        <camera name="top" pos="{eye}" fovy="60"/></worldbody></mujoco>"""
    sim = desk(1, xml=xml)
    camera = RayCamera(sim, ("top",), (201, 201), ("rgb",))
    sim.forward(np.arange(1))
    image = camera.render()["rgb/top"][0].astype(float)
    return image[100, 100], image


def test_light_falls_by_lamberts_law_with_cone_and_distance():
    colour, look = np.array([0.5, 0.4, 0.3]), 'rgba="0.5 0.4 0.3 1"'
    slanted = '<light type="directional" dir="0 1 -2" diffuse="0.3 0.3 0.3"/>'
    expected = 255 * colour * (0.1 + 0.2 + 0.3 * 2 / np.sqrt(5))
    np.testing.assert_allclose(lone_plane(slanted, look=look)[0], expected, atol=0.51)
    off = slanted.replace("<light", '<light active="false"')
    np.testing.assert_allclose(lone_plane(off, look=look)[0], 255 * colour * 0.3, atol=0.51)
    spot = (
        '<light type="spot" pos="0 0 2" dir="0 0.5 -1" diffuse="0.6 0.6 0.6" cutoff="40" '
        'exponent="2.5" attenuation="1 0.1 0.2" ambient="0.05 0.05 0.05"/>'
    )
    cosine = 1 / np.sqrt(1.25)
    power = 0.6 * cosine**2.5 / (1 + 0.2 + 0.8)
    expected = 255 * colour * (0.1 + 0.2 + 0.05 + power)
    np.testing.assert_allclose(lone_plane(spot, look=look)[0], expected, atol=0.51)
    narrow = lone_plane(spot.replace('"40"', '"20"'), look=look)[0]
    np.testing.assert_allclose(narrow, 255 * colour * 0.35, atol=0.51)


@pytest.mark.parametrize(
    ("uniform", "size", "side"),
    [("false", "2 2 0.1", 1.0), ("true", "2 2 0.1", 0.5), ("true", "0 0 0.1", 0.5)],
)
def test_checkers_have_the_size_that_mujoco_gives_them(uniform, size, side):
    asset = f"""<texture name="t" type="2d" builtin="checker" rgb1="0 0 0" rgb2="1 1 1" width="128"
        height="128"/><material name="m" texture="t" texrepeat="2 2" texuniform="{uniform}"/>"""
    image = lone_plane("", size, 'material="m"', asset)[1][..., 0]
    x = 3 * np.tan(np.deg2rad(30)) * (np.arange(201) - 100) / 100.5
    a, b = np.meshgrid(x / side, -x / side)
    inner = (abs(a - np.round(a)) > 0.1) & (abs(b - np.round(b)) > 0.1)
    odd = (np.floor(a) + np.floor(b)) % 2 == 1
    white = 255 * 0.3
    bright = image[inner & odd], image[inner & ~odd]
    low, high = sorted(bright, key=np.mean)
    assert (low < 0.05 * white).all()
    assert (high > 0.95 * white).all()


def test_the_sky_is_the_skybox_or_black():
    xml = '<mujoco><asset>{}</asset><worldbody><camera name="{}" {}/></worldbody></mujoco>'
    box = (
        '<texture type="skybox" builtin="flat" rgb1="0.8 0.4 0.2" rgb2="0.1 0.2 0.4" width="8" '
        'height="48"/>'
    )
    ways = {"up": 'xyaxes="1 0 0 0 -1 0"', "level": 'xyaxes="1 0 0 0 0 1"', "down": ""}
    colours = {}
    for name, way in ways.items():
        sim = desk(1, xml=xml.format(box, name, way))
        image = RayCamera(sim, (name,), (9, 9), ("rgb",))
        sim.forward(np.arange(1))
        colours[name] = image.render()[f"rgb/{name}"][0, 4, 4]
    np.testing.assert_allclose(colours["up"], [204, 102, 51], atol=1)
    np.testing.assert_allclose(colours["level"], [204, 102, 51], atol=1)
    np.testing.assert_allclose(colours["down"], [26, 51, 102], atol=1)
    sim = desk(1, xml=xml.format("", "up", ways["up"]))
    assert not RayCamera(sim, ("up",), (4, 4), ("rgb",)).render()["rgb/up"].any()


def test_mistakes_are_named():
    sim = desk()
    with pytest.raises(ValueError, match=r"no camera 'fron' among 'front', 'head'; did you mean"):
        RayCamera(sim, ("fron",))
    with pytest.raises(ValueError, match="the model has none"):
        make_camera(desk(xml="<mujoco/>"), ("front",))
    for size in (64, (64,), (0, 4), (4, 5000), (2.5, 2)):
        with pytest.raises(ValueError, match="height, width"):
            RayCamera(sim, ("front",), size)
    with pytest.raises(ValueError, match="draws no 'colour'"):
        RayCamera(sim, ("front",), kinds=("colour",))
    with pytest.raises(ValueError, match="name at least one"):
        RayCamera(sim, ())
    with pytest.raises(ValueError, match="in a tuple"):
        RayCamera(sim, "front")
    with pytest.raises(ValueError, match="no camera kind 'ray'"):
        make_camera(sim, ("front",), kind="ray")
    with pytest.raises(ValueError, match="geom 'egg' is of type mjGEOM_MESH"):
        RayCamera(desk(xml=MESH), ("front",))
    flat = DESK.replace('name="front"', 'name="front" projection="orthographic"')
    with pytest.raises(ValueError, match="orthographic"):
        RayCamera(desk(xml=flat), ("front",))


def test_auto_takes_what_can_draw_the_model(monkeypatch):
    assert type(make_camera(desk(), ("front",))) is RayCamera
    monkeypatch.setattr(gl, "gl_works", lambda: (False, "not here"))
    assert type(make_camera(desk(xml=MESH), ("front",))) is BatchRayCamera
    with pytest.raises(ValueError, match="not here; draw with"):
        make_camera(desk(), ("front",), kind="gl")


def test_meshes_are_drawn_by_the_engines_rays():
    images = drawn(BatchRayCamera, xml=MESH)
    egg = desk().model.geom("egg").id
    seen = images["segmentation/front"] == egg
    assert seen.sum() > 30
    assert images["rgb/front"][seen].mean() > 20


@pytest.mark.parametrize("fault", ["import os; os.abort()", "raise SystemExit(3)", "print('hm')"])
def test_a_probe_that_dies_means_no_opengl(monkeypatch, fault):
    monkeypatch.setattr(gl, "_PROBE", fault)
    works, reason = gl_works.__wrapped__()
    assert not works
    assert "does not work here" in reason


def test_opengl_draws_the_same_scene():
    works, reason = gl_works()
    if not works:
        pytest.skip(reason)
    lens = 'name="front" sensorsize="1 0.8" focal="0.9 1.1" principal="0.1 0.2" resolution="64 64"'
    lens = DESK.replace('name="front"', lens)
    for xml, ray_class in ((DESK, RayCamera), (MESH, BatchRayCamera), (lens, RayCamera)):
        ours, theirs = drawn(ray_class, xml=xml), drawn(GLCamera, xml=xml)
        for name in ("front", "head"):
            same = ours[f"segmentation/{name}"] == theirs[f"segmentation/{name}"]
            assert same.mean() > 0.99
            error = np.abs(ours[f"depth/{name}"] - theirs[f"depth/{name}"])[same]
            assert np.median(error) < 1e-3
            change = np.abs(ours[f"rgb/{name}"].astype(int) - theirs[f"rgb/{name}"])[same]
            assert change.mean() < 6
