"""Draw true and found boxes over validation images."""

from __future__ import annotations

from collections.abc import Sequence

from src.actions.flags import Flags
from src.actions.generate_predictions import make_inference
from src.actions.resolve import choose_experiment, choose_run, epochs_to_use, settle_postprocess
from src.datasets.annotations import Record
from src.datasets.detection_dataset import ValidationDataset
from src.datasets.loaders import load_labelled_images
from src.experiments.experiment_file import sample_options
from src.prediction.postprocess import select_boxes
from src.prediction.provenance import Member
from src.visualizations.overlays import contact_sheet, draw_predictions, save_picture


def test_model(flags: Flags) -> None:
    """Draw true and found boxes over validation images."""
    run, experiment = choose_run(flags), choose_experiment(flags)
    inference = make_inference(flags)
    images = load_labelled_images(
        flags.data_dir, run.fold, debug=flags.debug, cache_dir=flags.cache_dir
    )
    records = _pick_images(images.valid, flags.num_images)
    dataset = ValidationDataset(records, images.source, sample_options(experiment))
    for epoch in epochs_to_use(run, flags):
        member = Member(run=run, experiment=experiment, epoch=epoch)
        postprocess = settle_postprocess(flags, [member])
        predictions = inference.predict(dataset, [member], postprocess)
        folder = run.pics_dir / f"{epoch:03}"
        pictures = []
        for found in select_boxes(predictions, postprocess):
            image = dataset[found.image].picture()
            pictures.append(draw_predictions(image, predictions, found))
            save_picture(folder / f"{records[found.image].patient_id}.png", pictures[-1])
        save_picture(folder / "overview.png", contact_sheet(pictures))
        print(f"epoch {epoch}: {len(records)} pictures and overview.png\n{folder}")


def _pick_images(records: Sequence[Record], n_images: int) -> list[Record]:
    """Take two images with boxes for each one without, as far as there are."""
    with_boxes = [record for record in records if len(record.boxes_xywh)]
    without = [record for record in records if not len(record.boxes_xywh)]
    n_without = max(n_images // 3, n_images - len(with_boxes))
    return with_boxes[: n_images - min(n_without, len(without))] + without[:n_without]
