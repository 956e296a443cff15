"""Tie the API reference to the chapters: what derives a name, and which names a chapter derives.

One table, three uses: an entry of the API reference says where the book derives it, a chapter ends with the
names that it derives, and in the map from the original's source the last column links to the section. A
heading or a name that does not exist is a warning, so it fails the build.
"""

from __future__ import annotations

from collections.abc import Iterator

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging

LOG = logging.getLogger(__name__)
API, MAP = "book/api", "book/original"

#: Page, heading, and the names (below ``mvsnet_edu``) that are derived there; a heading as the page shows it.
DERIVED: dict[str, dict[str, str]] = {
    "welcome": {
        "MVSNet in one picture": "models.MVSNet models.DepthEstimate",
    },
    "conventions": {
        "Where is a pixel?": "camera.pixel_grid",
        "Exactly D hypotheses": "depth.uniform_depths",
    },
    "cameras": {
        "The package's functions": "camera.project camera.backproject camera.camera_center",
        "Resizing and cropping": "camera.scale_intrinsics camera.crop_intrinsics",
    },
    "views": {
        "A scene folder, by hand": """
            data.formats.Camera data.formats.read_cam data.formats.write_cam data.formats.read_pair
            data.formats.write_pair data.formats.read_pfm data.formats.write_pfm data.formats.read_image
            data.formats.write_image data.formats.image_size data.formats.atomic_write
            data.scene.Scene data.scene.Sample data.scene.write_scene
            data.folders.SceneDataset data.folders.SceneFolders""",
        "Points, and who sees them": "data.colmap.SparseModel data.colmap.read_model",
        "The package's function": """
            data.views.baseline_angles data.views.angle_weight data.views.pair_score data.views.view_scores
            data.views.select_sources""",
        "The depth range": "data.views.depth_range",
        "How many planes?": "data.views.plane_count",
        "Uniform in depth, or in 1 / depth?": "depth.inverse_depths",
        "What goes wrong": "errors.InputError",
    },
    "features": {
        "The package's functions": "features.standardize features.FeatureNet",
    },
    "homographies": {
        "The package's functions": "homography.plane_homographies homography.homography_warp",
        "What came after": "homography.depth_warp",
    },
    "cost_volume": {
        "The package's function": "cost_volume.variance_cost_volume",
    },
    "regularization": {
        "The paper's network": "regularization.CostRegNet layers.ConvBlock3d layers.DeconvBlock3d",
        "Down and up again": "layers.pad_to_multiple",
        "What the normalisation does in 3D": "layers.normalization",
    },
    "regression": {
        "The package's function": "depth.soft_argmin depth.winner_take_all",
        "The probability map": "depth.probability_map",
    },
    "refinement": {
        "The package's function": "refinement.depth_refine refinement.RefineNet",
    },
    "loss": {
        "The package's function": "losses.non_zero_mean_absolute_diff",
        "less_one and less_three do not train anything": """
            losses.less_one_percentage losses.less_three_percentage losses.mvsnet_regression_loss""",
        "Two depth maps, one loss": "losses.mvsnet_loss",
        "What came after": "losses.mvsnet_classification_loss",
    },
    "generator": {
        "Seven kinds of world": "data.worlds.wild_world data.render.World",
        "Surfaces": "data.textures.noise_texture",
        "What a camera adds": "data.photograph.photograph",
        "The depth is exact": "data.render.cast data.render.render",
        "A sample is a function of its number": """
            data.synthetic.random_sample data.synthetic.SyntheticScenes data.dice.Dice""",
    },
    "training": {
        "The package's loop": "training.train",
        "The learning rate's course": "optimization.learning_rate",
        "RMSProp is not RMSProp": "optimization.make_optimizer",
        "Averaged weights": "optimization.update_average",
        "Your own data": "recipe.read_recipe",
    },
    "rmvsnet": {
        "The package's functions": "models.RMVSNet recurrence.ConvGRUCell recurrence.RecurrentRegNet",
    },
    "testing": {
        "Running a network on a scene": "inference.estimate_scene inference.read_estimates",
        "Finer than a feature pixel": """
            enlargement.estimate_enlarged enlargement.enlarge_images enlargement.pool_estimate
            inference.how_much_to_enlarge""",
        "A second hearing": "subsets.most_trusted subsets.subsets_of_views inference.which_subsets",
        "Without the loop": "fusion.geometric_consistency fusion.sample_depth",
        "How many views must agree?": "fusion.filter_depth_maps",
    },
    "fusion": {
        "The package's function": """
            fusion.fuse_depth_maps data.ply.PointCloud data.ply.read_ply data.ply.write_ply""",
        "Colours and normals": "fusion.depth_normals",
        "How good is it?": "evaluation.cloud_metrics",
        "DTU's rules": "evaluation.dtu_metrics evaluation.thin_cloud evaluation.ObservationMask",
    },
    "photos": {
        "One command": "reconstruction.reconstruct",
        "Step by step, on disk": """
            reconstruction.prepare_photos reconstruction.match_photos reconstruction.register_photos
            reconstruction.undistort_photos reconstruction.fuse_scene
            data.photos.Photo data.photos.find_photos data.photos.read_photo data.photos.read_mask
            data.colmap.cover data.colmap.scene_from_colmap""",
    },
    "speed": {
        "Vectorised": "streaming.sweep_convolutions",
        "The package's function": "streaming.streamed_cost streaming.PlaneSweep",
        "Break it": "kernels.fused_spread",
    },
    "datasets": {
        "DTU, to train on": "data.dtu.DTU",
        "BlendedMVS": "data.blendedmvs.BlendedMVS",
    },
}
SECTION = {
    f"mvsnet_edu.{name}": (f"book/{page}", heading)
    for page, sections in DERIVED.items()
    for heading, names in sections.items()
    for name in names.split()
}


def link_names_and_sections(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Add the links of one page that is about to be written, to the pages that this build has."""
    built = {name: section for name, section in SECTION.items() if section[0] in app.env.found_docs}
    if docname == API:
        for name, entry in api_entries(doctree):
            if name in built:
                link = section_link(app, docname, name, "{chapter}: {heading}")
                entry.insert(1, nodes.paragraph("", "", nodes.Text("Derived in "), link, nodes.Text(".")))
    elif docname == MAP:
        for row in doctree.findall(nodes.row):
            names = [link["reftitle"] for link in row.findall(nodes.reference) if "reftitle" in link]
            names = [name for name in names if name in built]
            links = {built[name][0]: section_link(app, docname, name, "{chapter}") for name in names}
            if links:
                row[-1].children = [in_a_row("", list(links.values()))]
    elif API in app.env.found_docs and (names := [n for n, (page, _) in SECTION.items() if page == docname]):
        chapter = next(doctree.findall(nodes.section))
        links = [api_link(app, docname, name) for name in names]
        chapter += in_a_row("Derived in this chapter: ", links)


def api_entries(doctree: nodes.document) -> Iterator[tuple[str, nodes.Element]]:
    """Every documented name with the body of its entry."""
    for entry in doctree.findall(addnodes.desc):
        for name in entry[0].get("ids", []):
            yield name, entry[-1]


def section_link(app: Sphinx, docname: str, name: str, text: str) -> nodes.reference:
    page, heading = SECTION[name]
    text = text.format(chapter=app.env.titles[page].astext(), heading=heading)
    for entry in app.env.tocs[page].findall(nodes.reference):
        if entry.astext().replace("’", "'") == heading:
            uri = app.builder.get_relative_uri(docname, page) + entry["anchorname"]
            return nodes.reference("", text, internal=True, refuri=uri)
    LOG.warning("%s has no section '%s', where %s should be derived", page, heading, name)
    return nodes.reference("", text, internal=True, refuri=app.builder.get_relative_uri(docname, page))


def api_link(app: Sphinx, docname: str, name: str) -> nodes.reference:
    if name not in app.env.domaindata["py"]["objects"]:
        LOG.warning("%s is said to derive %s, which the API reference does not have", docname, name)
    uri = app.builder.get_relative_uri(docname, API)
    return nodes.reference("", "", nodes.literal("", name.rpartition(".")[2]), refuri=f"{uri}#{name}")


def in_a_row(start: str, links: list[nodes.reference]) -> nodes.paragraph:
    line = nodes.paragraph("", start)
    for k, link in enumerate(links):
        line += [nodes.Text(", " * (k > 0)), link]
    return line


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", link_names_and_sections)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
