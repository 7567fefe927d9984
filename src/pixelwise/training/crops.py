"""The batches that a run learns from, in the order of its steps."""

from collections.abc import Iterator

import torch

from pixelwise.config import AugmentConfig
from pixelwise.data.sampler import Batch, Sampler, batches
from pixelwise.data.targets import ROUND
from pixelwise.device import channels_last, upload
from pixelwise.inference.prefetch import read_ahead
from pixelwise.processes import own_range
from pixelwise.training.state import Training

UNLABELLED = 0x0A1B
"""Parts the draws of images without labels from those with labels."""


def read_batches(training: Training, workers: int) -> Iterator[tuple[Batch, Batch | None]]:
    """Yield the batches of the steps that are left, and with ``[data].unlabelled`` those of images without labels.

    Of several processes, each gets its share of every batch. With ``[sampling].hard`` crops are read ahead only to the
    end of a round, after which the new errors count.

    Args:
        workers: threads that read crops.
    """
    settings, targets, first = training.config.train, training.targets, training.step
    size, own_part = settings.batch_size, own_range(settings.batch_size)
    labelled, unlabelled = _samplers(training)
    while first < settings.steps:
        last = settings.steps
        if targets is not None and training.config.sampling.hard:
            last = min(last, (first // ROUND + 1) * ROUND)
            training.record_errors()
            if first % ROUND == 0:
                targets.begin_round()
        own, others = (
            _copied(training, batches(each, batch=size, first=first, last=last, workers=workers, own=own_part))
            if each
            else None
            for each in (labelled, unlabelled)
        )
        assert own is not None, "there are always labelled scenes"
        for batch in own:
            yield batch, next(others) if others is not None else None
        first = last


def batch_of(training: Training, step: int) -> tuple[Batch, Batch | None]:
    """Draw the batch of a step again, and with ``[data].unlabelled`` that of images without labels."""
    size = training.config.train.batch_size
    labelled, unlabelled = _samplers(training)
    return labelled.batch(step, size), unlabelled.batch(step, size) if unlabelled is not None else None


def _samplers(training: Training) -> tuple[Sampler, Sampler | None]:
    labelled = _sampler(training, training.config.augment)
    if not training.unlabelled:
        return labelled, None
    # The teacher sees images as they are, but for their place; the network sees them disturbed.
    plain = AugmentConfig(**training.config.augment.model_dump(include={"flip", "rotate90", "scale", "rotate"}))
    plain = plain.model_copy(update={"brightness": 0.0, "contrast": 0.0})
    return labelled, _sampler(training, plain, unlabelled=True)


def _copied(training: Training, crops: Iterator[Batch]) -> Iterator[Batch]:
    """Yield batches on the run's device; a GPU gets the next one while it is at work."""
    if training.device.type != "cuda":
        yield from crops
        return
    layout = torch.channels_last if channels_last(training.model, training.device) else torch.contiguous_format
    coming = read_ahead(lambda batch: (batch, upload(batch[:2], training.device)), crops, 2)
    for batch, copy in coming:
        images, masks = copy.arrived()
        yield Batch(images.contiguous(memory_format=layout), masks, batch.places)


def _sampler(training: Training, augment: AugmentConfig, *, unlabelled: bool = False) -> Sampler:
    settings = training.config.train
    return Sampler(
        training.unlabelled if unlabelled else training.data.training,
        augment,
        crop=settings.crop_size,
        seed=settings.seed + (UNLABELLED if unlabelled else 0),
        mean=training.card.mean,
        std=training.card.std,
        targets=None if unlabelled else training.targets,
    )
