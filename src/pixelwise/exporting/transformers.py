"""A SegFormer as a folder that transformers loads, with labels and normalisation."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from pixelwise import __version__
from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.exported.about import About, metadata_of
from pixelwise.exported.options import ExportOptions
from pixelwise.exporting.certificate import DIFFERENCE, EQUAL_LABELS, Certificate, certify
from pixelwise.exporting.outputs import CERTIFICATE
from pixelwise.exporting.samples import Samples
from pixelwise.files import replacing_folder
from pixelwise.hub.licences import Origin, notice, records
from pixelwise.models import Segmenter
from pixelwise.models.segformer import AllMLPDecoder, MixTransformer
from pixelwise.optional import optional_module
from pixelwise.runs.model_folder import NOTICE, ORIGINS_KEY, ModelCard
from pixelwise.weights.segformer import TRANSFORMERS

CARD = "pixelwise.json"
"""Of the folder: the metadata that files for other runtimes have inside."""


def export_transformers(
    model: Segmenter, card: ModelCard, out: Path, options: ExportOptions, samples: Samples, model_hash: str
) -> Certificate:
    """Write the folder, load it with transformers and compare; it gets its name if the answers agree.

    Raises:
        ConfigError: another network than SegFormer, options that such a folder does not know, or an output that is
            there and is something else.
        MissingExtraError: transformers is not installed.
        PixelwiseError: transformers answers otherwise.
    """
    if options != ExportOptions(resolution=options.resolution):
        raise ConfigError(
            "A folder for transformers has logits and an image processor. Leave the other options out.", code="PW700"
        )
    if os.path.lexists(out) and not (out / CARD).is_file():
        raise ConfigError(
            f"{out} is there and not a folder that was exported for transformers, so it is kept. Choose another one.",
            code="PW801",
        )
    config = _config(model, card)
    transformers = optional_module("transformers")
    about = About(card, model_hash, options, stride=4, multiple=1, align_corners=False)
    with replacing_folder(out) as temporary, _no_bars(transformers):
        _write(transformers, model, card, config, temporary)
        loaded = _Loaded(transformers, temporary)
        versions = (f"transformers {transformers.__version__}", f"pixelwise {__version__}")
        certificate = certify(loaded.run, model, about, samples, runtime=versions[0], made_by=versions[1])
        if not certificate.sound:
            worst = certificate.worst()
            reason = worst.error or (
                f"The largest difference is {worst.difference:.3g} of {worst.largest:.3g} (allowed: {DIFFERENCE:g} of "
                f"it), and {certificate.equal_labels:.4%} of all labels are equal (allowed: at least "
                f"{EQUAL_LABELS:.2%}). Its layer norms have one epsilon, 1e-05"
            )
            raise PixelwiseError(
                f"{out} is not written: transformers would answer otherwise. {reason}. Export to onnx instead.",
                code="PW701",
            )
        told = json.dumps({out.name: certificate.to_dict()}, indent=2)
        (temporary / CERTIFICATE).write_text(told, encoding="utf-8")
        card_text = json.dumps(metadata_of(about, certificate.to_dict()), indent=2)
        (temporary / CARD).write_text(card_text, encoding="utf-8")
        _keep_others(out, temporary)
    return certificate


def _keep_others(out: Path, made: Path) -> None:
    """Check that the folder that is replaced has nothing but what the new one has.

    Raises:
        ConfigError: somebody put a file there.
    """
    if not out.is_dir():
        return
    others = sorted({path.name for path in out.iterdir()} - {path.name for path in made.iterdir()} - {NOTICE})
    if others:
        raise ConfigError(
            f"{out} holds {others[0]}, which no export wrote, so the folder is kept. Move that file, or choose another "
            "folder.",
            code="PW801",
        )


@contextmanager
def _no_bars(transformers: ModuleType) -> Iterator[None]:
    """Keep transformers from drawing bars for work of a moment."""
    shown = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.logging.enable_progress_bar()


class _Loaded:
    """A folder, loaded as its users do."""

    def __init__(self, transformers: ModuleType, folder: Path) -> None:
        self.model = transformers.SegformerForSemanticSegmentation.from_pretrained(folder).eval()
        # Without torchvision, transformers has this one alone.
        processor = getattr(transformers, "SegformerImageProcessorPil", None) or transformers.SegformerImageProcessor
        self.processor = processor.from_pretrained(folder)

    @torch.no_grad()
    def run(self, image: Float32[np.ndarray, "B C H W"]) -> dict[str, np.ndarray]:
        """Return logits."""
        given = self.processor(list(image), return_tensors="pt", input_data_format="channels_first")
        return {"logits": self.model(**given).logits.numpy()}


def _config(model: Segmenter, card: ModelCard) -> dict[str, Any]:
    """Return what ``config.json`` holds.

    Raises:
        ConfigError: it is no SegFormer of transformers' kind.
    """
    encoder, decoder, name = model.encoder, model.decoder, model.architecture.name
    if not isinstance(encoder, MixTransformer) or not isinstance(decoder, AllMLPDecoder):
        raise ConfigError(
            f"Only a SegFormer goes out to transformers, and this is {name}. Export to onnx instead.", code="PW700"
        )
    if not all(isinstance(projection, torch.nn.Linear) for projection in decoder.projections):
        raise ConfigError(
            "This SegFormer has mmsegmentation's decoder (a norm after each projection), which transformers does not "
            "know. Export to onnx instead.",
            code="PW700",
        )
    first: list[Any] = [stage[0] for stage in encoder.stages]  # pyright: ignore[reportIndexIssue]
    return {
        "num_channels": model.architecture.bands,
        "depths": [len(stage) for stage in encoder.stages],  # pyright: ignore[reportArgumentType]
        "sr_ratios": [block.attention.reduction for block in first],
        "hidden_sizes": list(encoder.channels),
        "num_attention_heads": [block.attention.heads for block in first],
        "mlp_ratios": [block.feed_forward.expand.out_features // block.norm1.normalized_shape[0] for block in first],
        "decoder_hidden_size": decoder.fuse.out_channels,
        "id2label": dict(enumerate(card.classes.names)),
        "label2id": {name: i for i, name in enumerate(card.classes.names)},
        "num_labels": len(card.classes),
    }


def _write(transformers: ModuleType, model: Segmenter, card: ModelCard, config: dict[str, Any], folder: Path) -> None:
    theirs = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**config))
    ours = model.state_dict()
    theirs.load_state_dict({name: _tensor(name, ours) for name in theirs.state_dict()})
    try:
        theirs.save_pretrained(folder)
        if card.origins:
            _name_origins(folder, card.origins)
    except SafetensorError as error:
        raise ConfigError(f"Writing the weights failed: {error}. Free space on that disk.", code="PW803") from None
    processor = {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": False,
        # Raw units; mean and deviation are in raw units too.
        "do_rescale": False,
        "do_normalize": True,
        "image_mean": list(card.mean),
        "image_std": list(card.std),
        "do_reduce_labels": False,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2), encoding="utf-8")


def _name_origins(folder: Path, origins: Sequence[Origin]) -> None:
    """Write what the model descends from into the header of its weights, and into a notice for people."""
    weights = folder / "model.safetensors"
    state, mode = load(weights.read_bytes()), weights.stat().st_mode
    save_file(state, weights, metadata={"format": "pt", ORIGINS_KEY: json.dumps(records(origins))})
    weights.chmod(mode)
    (folder / NOTICE).write_text(notice(origins), encoding="utf-8", newline="\n")


def _tensor(name: str, state: dict[str, Tensor]) -> Tensor:
    """Return the tensor that transformers calls so: keys and values are one here."""
    ours = TRANSFORMERS.ours(name)
    for part, letter in enumerate("kv"):
        if f".attention.{letter}." in ours:
            return state[ours.replace(f".attention.{letter}.", ".attention.key_value.")].chunk(2)[part]
    return state[ours]
