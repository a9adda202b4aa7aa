"""Trained networks over images, and what they found before and saved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from src.datasets.loaders import unlabelled_loader
from src.experiments.checkpoints import load_checkpoint
from src.experiments.experiment_file import sample_options
from src.experiments.networks import load_network
from src.prediction.collector import PredictionCollector, gather_predictions, progress_bar
from src.prediction.image_sets import ImageSet
from src.prediction.outputs import Place
from src.prediction.predictions import Predictions, load_predictions
from src.prediction.presets import Postprocess
from src.prediction.provenance import NetworkSet, Provenance
from src.radiographs.dicom import DicomError
from src.radiographs.image_files import PictureError
from src.retinanet.acceleration import Acceleration
from src.retinanet.candidates import find_candidates, find_weak
from src.retinanet.ensemble import Ensemble
from src.retinanet.model import RetinaNet
from src.retinanet.settings import NO_WEAK, WeakLimits
from src.structures import Batch
from src.system.distributed import ALONE, Processes
from src.system.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Inference:
    """What it takes to predict, beside networks and images.

    Attributes:
        acceleration: where and how the networks run.
        processes: rank and number of the processes that share the images.
        n_workers: processes that read images ahead; None chooses.
        overwrite: predict again what a run has saved already.
        weak: which boxes are saved beside the candidates.
    """

    acceleration: Acceleration
    processes: Processes = ALONE
    n_workers: int | None = None
    overwrite: bool = False
    weak: WeakLimits = NO_WEAK

    def uses_saved(self, place: Place) -> bool:
        """Say whether predictions are taken from where they were saved before."""
        return place.is_run and not self.overwrite and place.predictions.exists()

    def find_saved(
        self, place: Place, images: ImageSet, networks: NetworkSet, postprocess: Postprocess
    ) -> Predictions | None:
        """Load what a run has saved; None where the images are to be predicted.

        Raises:
            InputError: it is of other images or perhaps of other networks.
        """
        if not self.uses_saved(place):
            return None
        path = place.predictions
        if any(member.path.parent != member.run.checkpoints_dir for member in networks.members):
            raise InputError(f"{path}: is there already; --overwrite makes it again")
        predictions = load_predictions(path)
        same_files = predictions.provenance.images in (None, images.fingerprint)
        if tuple(predictions.ids.tolist()) != images.ids or not same_files:
            raise InputError(f"{path}: is of other images or labels; --overwrite makes it again")
        if not predictions.provenance.is_same(networks.provenance(postprocess)):
            what = "another ensemble" if networks.combines else "another network"
            raise InputError(f"{path}: is of {what}; --overwrite makes it again")
        return predictions

    def predict(
        self, images: ImageSet, networks: NetworkSet, postprocess: Postprocess
    ) -> Predictions:
        """Predict every image by one network or by several at once.

        Args:
            postprocess: how several combine the sizes of their boxes.

        Raises:
            InputError: a checkpoint or an image cannot be used, or the GPU's memory is too small.
        """
        ensemble = Ensemble(
            load_networks(networks),
            weights=[member.weight for member in networks.members],
            size_rule=postprocess.size_rule,
            k=postprocess.k or 0.0,
            hflip=networks.hflip,
        )
        batch_size = min(member.experiment.batch_size for member in networks.members)
        loader = unlabelled_loader(
            images.dataset(sample_options(networks.experiment)),
            batch_size=batch_size,
            n_workers=self.n_workers,
            device=self.acceleration.device,
            share=(self.processes.rank, self.processes.count),
        )
        provenance = replace(
            networks.provenance(postprocess),
            named_by=images.named_by,
            images=images.fingerprint,
        )
        try:
            self.acceleration.place_for_inference(ensemble)
            return predict(
                ensemble,
                loader,
                acceleration=self.acceleration,
                provenance=provenance,
                processes=self.processes,
                weak=self.weak,
            )
        except torch.OutOfMemoryError as error:
            raise self.acceleration.out_of_memory(
                batch_size, networks.experiment.img_size, "a smaller --batch-size needs less"
            ) from error
        except (DicomError, PictureError) as error:
            advice = f"; {images.advice}" if images.advice else ""
            raise InputError(f"{error}{advice}") from error


def load_networks(networks: NetworkSet) -> list[RetinaNet]:
    """Build the networks with their weights.

    Raises:
        InputError: a checkpoint is missing, broken or of another experiment.
    """
    return [
        load_network(load_checkpoint(member.path, member.run.model), member.path)
        for member in networks.members
    ]


def predict(
    model: RetinaNet | Ensemble,
    batches: Iterable[Batch],
    *,
    acceleration: Acceleration,
    provenance: Provenance,
    processes: Processes = ALONE,
    weak: WeakLimits = NO_WEAK,
) -> Predictions:
    """Find candidates in every image; labels, where there are any, are passed on as the truth.

    Args:
        batches: of this process: every `processes.count`-th image.
        weak: which boxes are kept beside the candidates.

    Returns:
        Predictions of all processes.
    """
    collected = PredictionCollector(provenance, weak)
    model.eval()
    with torch.inference_mode(), progress_bar(batches, "predict", processes.is_first) as bar:
        for host_batch in bar:
            images = host_batch.to(acceleration.device).images
            with acceleration.arithmetic():
                outputs = model(images, min_score=weak.least_score(model.limits))
            place = outputs, model.anchors(images), host_batch.image_size
            found = find_candidates(*place, model.limits)
            collected.add(host_batch, found, find_weak(*place, found, model.limits, weak))
    return gather_predictions(collected.finish(), processes)
