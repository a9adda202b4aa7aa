"""Draw true and found boxes over validation images."""

from __future__ import annotations

from pathlib import Path

from src.actions.device import choose_acceleration
from src.actions.flags import Flags
from src.actions.networks import settle_boxes, settle_networks
from src.actions.resolve import choose_run
from src.datasets.loaders import load_labelled_images
from src.prediction.image_sets import labelled_image_set
from src.prediction.inference import Inference
from src.prediction.postprocess import choose_boxes
from src.system.files import check_place
from src.visualizations.examples import pick_examples
from src.visualizations.overlays import contact_sheet, draw_predictions, save_picture, sheet_tile
from src.visualizations.picture_names import picture_names

OVERVIEW = "overview.png"


def test_model(flags: Flags, *, downloads_dir: Path) -> None:
    """Draw true and found boxes over validation images, for each epoch that is asked for.

    Args:
        downloads_dir: see `settle_networks`.
    """
    run = choose_run(flags)
    inference = Inference(
        acceleration=choose_acceleration(flags),
        n_workers=flags.num_workers,
    )
    labelled = load_labelled_images(
        flags.data_dir, run.fold, debug=flags.debug, cache_dir=flags.cache_dir
    )
    picked = pick_examples([len(each.boxes_xywh) for each in labelled.valid], flags.num_images)
    images = labelled_image_set(labelled, [labelled.valid[i] for i in picked])
    names = picture_names(images.ids, taken=[OVERVIEW])
    all_networks = settle_networks(flags, downloads_dir=downloads_dir)
    for networks in all_networks:
        networks.require_weights()
        check_place(run.pics_dir / f"{networks.last_epoch:03}")
    for networks in all_networks:
        postprocess = settle_boxes(flags, networks)
        predictions = inference.predict(images, networks, postprocess)
        chosen = choose_boxes(predictions, postprocess)
        folder = run.pics_dir / f"{networks.last_epoch:03}"
        tiles = []
        for image, name in enumerate(names):
            picture = draw_predictions(images.read(image), predictions, chosen, image)
            save_picture(folder / name, picture)
            tiles.append(sheet_tile(picture))
        save_picture(folder / OVERVIEW, contact_sheet(tiles))
        print(f"epoch {networks.last_epoch}: {len(images)} pictures and {OVERVIEW}\n{folder}")
