"""The parts of `gpu.py`: each yields rows, one after the other."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from gpu_bench import PRECISIONS, Bench, bounds
from gpu_peers import ways
from torch import Tensor, nn

import pixelwise as pw
from pixelwise.kernels import REFUSED
from pixelwise.labels import IGNORE, make_classes
from pixelwise.losses import segmentation_loss, total_loss
from pixelwise.losses.on_gpu import _kernels
from pixelwise.models import Segmenter
from pixelwise.upsampling import _kernel, _plain_argmax, argmax_upsampled, largest_logit


def machine(bench: Bench) -> Iterator[dict]:
    """The device, and its two bounds."""
    row = {"torch": torch.__version__, "device": str(bench.device)}
    if bench.device.type == "cuda":
        about = torch.cuda.get_device_properties(bench.device)
        row |= {"name": about.name, "gib": round(about.total_memory / 2**30), "count": torch.cuda.device_count()}
        row |= {"bf16": torch.cuda.is_bf16_supported(including_emulation=False), "cuda": torch.version.cuda}
    yield row
    yield bounds(bench)


def kernels(bench: Bench) -> Iterator[dict]:
    """Kernels beside plain functions."""
    batch, classes, side = bench.pick(8, 1), bench.pick(150, 3), bench.pick(128, 8)
    logits = torch.randn(batch, classes, side, side, device=bench.device)
    size, largest = (4 * side, 4 * side), largest_logit(logits.dtype)
    plain = bench.seconds(lambda: _plain_argmax(logits, size, False, False, largest, 1.0))
    full = bench.seconds(lambda: F.interpolate(logits, size=size, mode="bilinear").argmax(1))
    row = {"kernel": "decide", "plain": plain, "interpolate and argmax": full}
    if bench.device.type == "cuda":
        row["used"] = _kernel(str(bench.device)) is not None
        row["seconds"] = bench.seconds(lambda: argmax_upsampled(logits, size))
        same = argmax_upsampled(logits, size)[0] == _plain_argmax(logits, size, False, False, largest, 1.0)[0]
        row["same labels"] = float(same.float().mean())
    yield row
    mask = torch.randint(IGNORE, classes, (batch, *size), device=bench.device)
    leaf = logits.requires_grad_()

    def step(loss: Callable[[], Tensor]) -> Tensor:
        leaf.grad = None
        loss().backward()
        assert leaf.grad is not None
        return leaf.grad

    def ours() -> Tensor:
        return segmentation_loss(leaf, mask)

    def theirs() -> Tensor:
        full = F.interpolate(leaf, size=size, mode="bilinear")
        return F.cross_entropy(full, mask, ignore_index=IGNORE)

    row = {"kernel": "pixel_loss", "interpolate and cross-entropy": bench.seconds(lambda: step(theirs))}
    row["used"] = bench.device.type == "cuda" and _kernels(str(bench.device)) is not None
    with bench.memory() as found:
        row["seconds"] = bench.seconds(lambda: step(ours))
    own, other = step(ours).clone(), step(theirs)
    row["gradient differs by"] = float((own - other).abs().max() / other.abs().max())
    yield row | found
    yield {"kernel": "refused", "why": json_of(REFUSED)}


def json_of(table: dict) -> str:
    """Return a table as one text."""
    return "; ".join(f"{key}: {value}" for key, value in table.items()) or "none"


def exact(bench: Bench) -> Iterator[dict]:
    """Every network beside the CPU."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    side = bench.pick(128, 64)
    for name in bench.names():
        torch.manual_seed(0)
        model, image = pw.create(name, classes=5).eval(), torch.randn(1, 3, side, side)
        with torch.no_grad():
            expected, labels = model.decode(image).logits, model.label_map(image)
            there, moved = model.to(bench.device), image.to(bench.device)
            found, own = there.decode(moved).logits.cpu(), there.label_map(moved).cpu()
            fast = pw.fuse(there).label_map(moved).cpu()
        yield {
            "network": name,
            "logits differ by": float((found - expected).abs().max() / expected.abs().max()),
            "same labels": float((own == labels).float().mean()),
            "same labels, fused": float((fast == labels).float().mean()),
        }


def steps(bench: Bench) -> Iterator[dict]:
    """Every network's training step in each precision."""
    batch, side = bench.pick(4, 2), bench.pick(256, 32)
    for name in bench.names():
        row: dict = {"network": name}
        for precision, dtype in PRECISIONS.items():
            torch.manual_seed(0)
            model = pw.create(name, classes=19).to(bench.device).train()
            trained = Trained(model, bench, batch, side, dtype)
            with bench.memory() as found:
                losses = [float(trained.step()) for _ in range(bench.pick(4, 2))]
                row[f"loss {precision}"] = losses[-1]
                row[f"finite {precision}"] = bool(np.isfinite(losses).all())
                row[f"ms {precision}"] = 1000 * bench.seconds(trained.step)
            row |= {f"mib {precision}": found["mib"]} if found else {}
        yield row


class Trained:
    """A network, its optimiser and a batch of noise."""

    def __init__(self, model: Segmenter, bench: Bench, batch: int, side: int, dtype: torch.dtype | None) -> None:
        self.model, self.dtype, self.device = model, dtype, bench.device
        self.image = torch.randn(batch, 3, side, side, device=bench.device)
        rows, columns = model.padded_size((side, side))
        self.mask = torch.randint(0, model.architecture.classes, (batch, rows, columns), device=bench.device)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        self.scaler = torch.amp.GradScaler(bench.device.type, enabled=dtype is torch.float16)
        self.decode = model.decode

    def step(self) -> Tensor:
        """Make a step."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            decoded = self.decode(self.image)
        loss = total_loss(
            decoded, self.mask, aux_weights=self.model.aux_weights, align_corners=self.model.align_corners
        )
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()


def questions(bench: Bench) -> Iterator[dict]:
    """A run of `pixelwise.train`, whose steps set off torch's alarm if they wait for the device."""
    from pixelwise.training import state

    learn, alarms, steps_made = state.Training.learn, [], []

    def watched(training: state.Training, *batch: object) -> object:
        # The first steps make the optimiser's state and try the kernels.
        watching = bench.device.type == "cuda" and training.step >= 3
        torch.cuda.set_sync_debug_mode("error") if watching else None
        try:
            return learn(training, *batch)
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            alarms.append(" ".join(str(error).split())[:200])
            torch.cuda.set_sync_debug_mode("default")
            return learn(training, *batch)
        finally:
            steps_made.append(time.perf_counter())
            torch.cuda.set_sync_debug_mode("default") if watching else None

    state.Training.learn = watched
    try:
        for precision in ("bf16", "fp16") if bench.device.type == "cuda" else ("fp32",):
            with tempfile.TemporaryDirectory() as place:
                config = small_run(Path(place), bench, precision)
                run = pw.train(config)
                losses = [row["loss"] for row in run.log]
                waited = statistics.median(row["waited"] for row in run.log[3:] or run.log)
            yield {
                "precision": precision,
                "steps": len(losses),
                "first loss": losses[0],
                "last loss": losses[-1],
                "waits for data, s": waited,
                "alarms": json_of(dict(enumerate(dict.fromkeys(alarms)))),
            }
            alarms.clear()
    finally:
        state.Training.learn = learn


def small_run(folder: Path, bench: Bench, precision: str) -> object:
    """Return the configuration of a short run on images of noise with bright fields."""
    from PIL import Image

    from pixelwise.config import Config

    rng, side = np.random.default_rng(0), bench.pick(512, 64)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for i in range(4):
        mask = np.kron(rng.integers(0, 2, (8, 8)), np.ones((side // 8, side // 8), int))
        image = (mask[..., None] * 100 + rng.integers(0, 100, (side, side, 3))).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"{i}.png")
    data = {"images": folder / "images", "labels": folder / "masks", "classes": ["dark", "bright"], "validation": 0.25}
    size = {"steps": bench.pick(40, 2), "batch_size": bench.pick(8, 1), "crop_size": side}
    train = {"device": str(bench.device), "precision": precision, **size}
    model = {"name": "segformer-b0"} if not bench.tiny else {"name": "unet", "options": {"filters": [4, 8]}}
    tables = {"data": data, "model": model, "train": train, "run": {"folder": folder / "run"}}
    return Config.model_validate(tables | ({"predict": {"tile": 64, "overlap": 0}} if bench.tiny else {}))


def _bound(bench: Bench, network: str, batch: int, side: int, classes: int, precision: str, passes: int) -> float:
    """Return the seconds that the roofline allows: operations, or bytes that must move, whichever takes longer."""
    options = {"encoder": "resnet50"} if network == "deeplabv3" else {}
    with torch.device("meta"):
        cost = pw.cost(pw.create(network, classes=classes, **options), size=(side, side))
    found, halved = bounds(bench), 1 if precision == "float32" else 2
    moved = cost.traffic_bytes / halved / (found["gb per second"] * 1e9)
    return passes * batch * max(cost.flops / (found[f"tflops {precision}"] * 1e12), moved)


def _cases(bench: Bench, classes: int) -> Iterator[tuple[str, str, str, str, nn.Module]]:
    """Yield the way, the precision, the tool, the network's name, and the network; what takes longest comes last."""
    for way in ("eager",) if bench.tiny else ("eager", "compiled"):
        for precision in ("float32",) if bench.tiny else ("bf16", "float32"):
            for tool, network, make in ways(classes, tiny=bench.tiny):
                torch.manual_seed(0)
                yield way, precision, tool, network, make().to(bench.device)


def _measured(bench: Bench, call: Callable[[], object], case: tuple[str, str, str, str], bound: float) -> dict:
    with bench.memory() as found:
        seconds = bench.seconds(call)
    row = dict(zip(("way", "precision", "tool", "network"), case, strict=True))
    return row | {"ms": 1000 * seconds, "of the bound": bound / seconds, **found}


def maps(bench: Bench) -> Iterator[dict]:
    """Class maps of a batch of images."""
    batch, side, classes = bench.pick(8, 1), bench.pick(512, 64), bench.pick(150, 3)
    image = torch.randn(batch, 3, side, side, device=bench.device)
    yield {"batch": batch, "side": side, "classes": classes}
    for way, precision, tool, network, made in _cases(bench, classes):
        model, dtype, compiled = made.eval(), PRECISIONS[precision], way == "compiled"

        def theirs(pixels: Tensor, model: nn.Module = model) -> Tensor:
            return F.interpolate(model(pixels), size=(side, side), mode="bilinear").argmax(1)

        if not isinstance(model, Segmenter):
            call = torch.compile(theirs) if compiled else theirs
        elif compiled:
            decode = torch.compile(model.decode)

            def call(pixels: Tensor, decode: Callable = decode) -> Tensor:
                return argmax_upsampled(decode(pixels).logits, (side, side))[0]
        else:
            call = pw.fuse(model).label_map
        bound = _bound(bench, network, batch, side, classes, precision, 1)
        with torch.no_grad(), torch.autocast(bench.device.type, dtype=dtype, enabled=dtype is not None):
            row = _measured(bench, lambda call=call: call(image), (way, precision, tool, network), bound)
        yield row


def training(bench: Bench) -> Iterator[dict]:
    """Steps of training."""
    batch, side, classes = bench.pick(8, 1), bench.pick(512, 64), bench.pick(150, 3)
    yield {"batch": batch, "side": side, "classes": classes}
    for way, precision, tool, network, model in _cases(bench, classes):
        step = _step(bench, model.train(), batch, side, classes, PRECISIONS[precision], way)
        bound = _bound(bench, network, batch, side, classes, precision, 3)
        yield _measured(bench, step, (way, precision, tool, network), bound)


def _step(
    bench: Bench, model: nn.Module, batch: int, side: int, classes: int, dtype: torch.dtype | None, way: str
) -> Callable[[], object]:
    if isinstance(model, Segmenter):
        trained = Trained(model, bench, batch, side, dtype)
        trained.decode = torch.compile(model.decode) if way == "compiled" else model.decode
        return trained.step
    image = torch.randn(batch, 3, side, side, device=bench.device)
    mask = torch.randint(0, classes, (batch, side, side), device=bench.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def loss_of(pixels: Tensor) -> Tensor:
        return F.cross_entropy(F.interpolate(model(pixels), size=(side, side), mode="bilinear"), mask)

    asked = torch.compile(loss_of) if way == "compiled" else loss_of

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(bench.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            loss = asked(image)
        loss.backward()
        optimizer.step()

    return step


def scene(bench: Bench) -> Iterator[dict]:
    """A scene to its map."""
    import rasterio

    from pixelwise.predictor import Predictor
    from pixelwise.runs.model_folder import ModelCard

    side, tile, bands = bench.pick(8192, 160), bench.pick(512, 64), (1, 2, 3)
    model = pw.create("segformer-b0", classes=3).to(bench.device).eval()
    classes = make_classes(["water", "field", "wood"])
    numbers = {"mean": (100.0,) * 3, "std": (50.0,) * 3, "tile": tile, "overlap": tile // 4 // 32 * 32}
    predictor = Predictor(model, ModelCard(model.architecture, classes, bands, "uint8", **numbers), "benchmark")
    several = [None]
    if bench.device.type == "cuda" and torch.cuda.device_count() > 1:
        several.append(",".join(f"cuda:{i}" for i in range(torch.cuda.device_count())))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "scene.tif"
        shape = {"height": side, "width": side, "count": 3, "dtype": "uint8", "tiled": True, "crs": 32616}
        with rasterio.open(path, "w", "GTiff", transform=rasterio.Affine(2, 0, 0, 0, -2, 0), **shape) as file:
            file.write(np.random.default_rng(0).integers(1, 255, (3, side, side), np.uint8))
        for devices in several:
            with bench.memory() as found:
                made = predictor.map_scene(path, Path(place) / f"map{len(devices or '')}.tif", devices=devices)
            row = {"devices": devices or str(bench.device), "side": side, "tile": tile, "seconds": made.seconds}
            yield row | {"megapixels per second": side**2 / 1e6 / made.seconds, **found}


PARTS: dict[str, Callable[[Bench], Iterator[dict]]] = {
    "machine": machine,
    "kernels": kernels,
    "exact": exact,
    "steps": steps,
    "questions": questions,
    "maps": maps,
    "training": training,
    "scene": scene,
}
"""Part -> what yields its rows."""
