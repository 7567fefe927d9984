"""SegFormer-B0 from scratch on the example fields: pixelwise beside transformers, for the same wall-clock time.

    python benchmarks/from_scratch.py --seeds 3

For each seed, `pixelwise train examples/fields.toml` is timed. Then transformers' SegFormer-B0 learns from the same
scenes for as many seconds, as its own documentation trains: AdamW 1e-3, linear warm-up and decay to zero over that
time, cross-entropy at full size. It gets the same crops (256, batch 4, mirrored and turned by quarters). The same code
scores both on the same unseen scenes. Ours pays for reading, crops and validation; the clock of transformers runs only
in its training steps.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation

import pixelwise as pw
from pixelwise.config import AugmentConfig, Config, RunConfig, load_config
from pixelwise.data.sampler import Sampler
from pixelwise.data.scenes import open_scenes
from pixelwise.evaluation.evaluate import Evaluation, evaluate, evaluate_scenes
from pixelwise.models import Segmenter
from pixelwise.runs.model_folder import ModelCard, load_model
from pixelwise.training.train import train

EXAMPLES = Path(__file__).parent.parent / "examples"


def train_peer(config: Config, card: ModelCard, seconds: float, seed: int) -> tuple[Segmenter, int]:
    """Train transformers' network; return it as ours with its weights, which gives the same answers."""
    torch.manual_seed(seed)
    _, scenes = open_scenes(config.data)
    plain = AugmentConfig(scale=(1.0, 1.0), brightness=0, contrast=0, band_jitter=0)
    sampler = Sampler(scenes, plain, crop=config.train.crop_size, seed=seed, mean=card.mean, std=card.std)
    network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=len(card.classes))).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    spent, step = 0.0, 0
    while spent < seconds:
        samples = [sampler.sample(step * config.train.batch_size + i) for i in range(config.train.batch_size)]
        image = torch.stack([torch.from_numpy(image) for image, _ in samples])
        mask = torch.stack([torch.from_numpy(mask) for _, mask in samples]).long()
        started = time.monotonic()
        done = spent / seconds
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, done / 0.05 + 0.01) * (1 - done)
        mask[mask < 0] = 255
        loss = network(pixel_values=image, labels=mask).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        spent += time.monotonic() - started
        step += 1
    ours = pw.create("segformer-b0", classes=len(card.classes), bands=len(card.bands))
    pw.load_weights(ours, network.state_dict())
    return ours.eval(), step


def score(result: Evaluation) -> dict:
    return {"mIoU": result.scores.miou, **{each.name: each.iou for each in result.scores.classes}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of ours; none: as in examples/fields.toml")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "from_scratch.json")
    arguments = parser.parse_args()
    base = load_config(EXAMPLES / "fields.toml")
    test = load_config(EXAMPLES / "fields_test.toml")
    _, test_scenes = open_scenes(test.data)
    rows = []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            steps = arguments.steps or base.train.steps
            settings = base.train.model_copy(update={"seed": seed, "steps": steps, "evaluate_every": None})
            config = base.model_copy(update={"train": settings, "run": RunConfig(folder=Path(folder) / "run")})
            started = time.monotonic()
            run = train(config)
            seconds = time.monotonic() - started
            _, card, _ = load_model(run.folder)
            ours = score(evaluate(run.folder, test))
            peer, peer_steps = train_peer(config, card, seconds, seed)
            theirs = score(evaluate_scenes(peer, test_scenes, card, config.predict))
        row = {
            "seed": seed,
            "seconds": seconds,
            "pixelwise": {"steps": steps, **ours},
            "transformers": {"steps": peer_steps, **theirs},
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    medians = {name: statistics.median(row[name]["mIoU"] for row in rows) for name in ("pixelwise", "transformers")}
    print(f"median mIoU over {len(rows)} seeds: {medians}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "machine": platform.platform(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
    arguments.output.write_text(json.dumps({"about": about, "median_mIoU": medians, "runs": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
