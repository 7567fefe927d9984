"""Kernels for GPUs, in Triton's interpreter and through its compiler, beside torch's own functions in float64."""

import json
import os
import subprocess
import sys

import pytest
import torch

from pixelwise.kernels import CLOSE, REFUSED, neighbours, proven

pytest.importorskip("triton")

INTERPRETED = """
import json
import torch
import torch.nn.functional as F
from pixelwise.kernels.decide import argmax_upsampled
from pixelwise.kernels.pixel_loss import gradient_of_cells, softmax_of_pixels

def worst(own, other):
    return float((own.double() - other.double()).abs().max())

torch.manual_seed(0)
rows = []
for coarse, full, aligned in (((2, 3), (4, 6), False), ((3, 2), (5, 7), True), ((1, 2), (3, 2), False)):
    logits = 3 * torch.randn(1, 3, *coarse).transpose(2, 3).contiguous().transpose(2, 3)
    leaf = logits.double().requires_grad_()
    wide = F.interpolate(leaf, size=full, mode="bilinear", align_corners=aligned)
    target = torch.randint(0, 3, (1, *full))
    valid = (torch.rand(1, *full) > 0.3).double()
    weight, smoothing = torch.rand(1, *full).double() * valid, torch.rand(3).double()
    total, own = wide.logsumexp(1), wide.gather(1, target[:, None])[:, 0]
    smoothed = (wide * smoothing[:, None, None]).sum(1)
    (weight * (total - own) + valid * (smoothing.sum() * total - smoothed)).sum().backward()
    found = softmax_of_pixels(logits, target.int(), smoothing.float(), aligned)
    share = (weight + valid * smoothing.sum()).float()
    gradient = gradient_of_cells(
        logits, target.int(), found[0], share, weight.float(), smoothing.float(), valid.float(), aligned
    )
    plain = gradient_of_cells(logits, target.int(), found[0], share, share, None, valid.float(), aligned)
    (alone,) = torch.autograd.grad(
        (share * (F.interpolate(leaf, size=full, mode="bilinear", align_corners=aligned).logsumexp(1)
                  - F.interpolate(leaf, size=full, mode="bilinear", align_corners=aligned)
                    .gather(1, target[:, None])[:, 0])).sum(), leaf)
    labels, confidence = argmax_upsampled(logits, full, True, aligned, 1e30)
    top = wide.softmax(1).max(1)
    hot = argmax_upsampled(logits, full, True, aligned, 1e30, 1.7)
    rows.append({
        "total": worst(found[0], total), "own": worst(found[1], own), "smoothed": worst(found[2], smoothed),
        "gradient": worst(gradient, leaf.grad), "without smoothing": worst(plain, alone),
        "labels": worst(labels, top.indices), "confidence": worst(confidence, top.values),
        "labels at 1.7": worst(hot[0], top.indices),
        "confidence at 1.7": worst(hot[1], (wide / 1.7).softmax(1).amax(1)),
    })
ties = torch.zeros(1, 3, 2, 2)
ties[:, 2] = torch.inf
rows.append({"the lower class of equal ones": float(argmax_upsampled(ties[:, :2], (4, 4), False, False, 1e30)[0].sum()),
             "infinity": worst(argmax_upsampled(ties, (4, 4), False, False, 1e30)[0], torch.tensor(2))})
print(json.dumps(rows))
"""

DISPATCHED = """
import json
import torch
from pixelwise import upsampling
from pixelwise.kernels import REFUSED
from pixelwise.loss_config import LossConfig
from pixelwise.losses import on_gpu, segmentation, segmentation_loss

torch.manual_seed(0)
logits, mask = torch.randn(1, 3, 3, 4), torch.randint(-1, 3, (1, 6, 8))
losses = LossConfig(focal=0.5, label_smoothing=0.1)

def answers():
    leaf = logits.clone().requires_grad_()
    loss = segmentation_loss(leaf, mask, losses)
    loss.backward()
    cells = upsampling.decide_cells(logits, 2, confidence=True)
    return [loss.detach(), leaf.grad, *upsampling.argmax_upsampled(logits, (6, 8), confidence=True), *cells]

plain = answers()
upsampling.on_gpu = on_gpu.on_gpu = lambda tensor: True
kernels = answers()
used = [upsampling._kernel("cpu") is not None, on_gpu._kernels("cpu") is not None]
print(json.dumps([REFUSED, used, [float((a.double() - b.double()).abs().max()) for a, b in zip(plain, kernels)]]))
"""

COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from pixelwise.kernels.decide import _decide
from pixelwise.kernels.pixel_loss import _gather, _softmax

number, whole = "*fp32", "*i32"
tables = {name: whole for name in ("rows", "row_begin", "row_end", "columns", "column_begin", "column_end", "targets")}
floats = ("row_shares", "column_shares", "totals", "own_logits", "smoothed", "smoothing", "gradient", "shares", "valid",
          "at_target", "confidences")
types = tables | dict.fromkeys(floats, number) | {"labels": "*u8", "largest": "fp32", "logits": "*bf16"}
smoothed = {"is_smoothed": True, "block": 32}
for kernel, constants in ((_decide, {"with_confidence": True, "block": 128}), (_softmax, smoothed),
                          (_gather, smoothed | {"some": 8})):
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names}
    made = triton.compile(ASTSource(kernel, signature, constexprs=constants), target=GPUTarget("cuda", 80, 32))
    print(kernel.__name__, len(made.asm["cubin"]) > 0)
"""


def run(script, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_kernels_answer_in_the_interpreter_as_torch_does():
    rows = json.loads(run(INTERPRETED, TRITON_INTERPRET="1"))
    assert len(rows) == 4
    for row in rows:
        assert all(error < 2e-5 for error in row.values()), row


def test_losses_and_class_maps_take_the_kernels_where_they_run():
    refused, used, far = json.loads(run(DISPATCHED, TRITON_INTERPRET="1"))
    assert refused == {}
    assert used == [True, True]
    assert len(far) == 6
    assert max(far) < 1e-5


@pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler for NVIDIA's GPUs comes for Linux")
def test_kernels_compile_for_a_gpu_without_one():
    assert run(COMPILED).splitlines() == ["_decide True", "_softmax True", "_gather True"]


def test_a_kernel_is_used_only_if_it_answers_as_the_plain_function():
    def case(device):
        return (torch.ones(3, device=device),)

    def plain(values):
        return values, None

    assert proven("good", lambda: plain, plain, case, "cpu") is plain
    assert proven("rounding", lambda: lambda x: (x + CLOSE / 2, None), plain, case, "cpu") is not None
    assert proven("wrong", lambda: lambda x: (x + 0.1, None), plain, case, "cpu") is None
    assert proven("not a number", lambda: lambda x: (x * float("nan"), None), plain, case, "cpu") is None

    def missing():
        raise ModuleNotFoundError("No module named 'triton'")

    assert proven("missing", missing, plain, case, "cpu") is None
    assert "0.1" in REFUSED["wrong"]
    assert "triton" in REFUSED["missing"]
    assert "good" not in REFUSED


@pytest.mark.parametrize(("coarse", "full", "aligned"), [(3, 12, False), (4, 10, True), (1, 5, False), (7, 7, False)])
def test_neighbours_are_those_of_bilinear_upsampling(coarse, full, aligned):
    first, share = neighbours(coarse, full, aligned, torch.device("cpu"))
    values = torch.randn(coarse, dtype=torch.float64)
    second = (first + 1).clamp(max=coarse - 1)
    found = values[first.long()] * (1 - share) + values[second.long()] * share
    wide = torch.nn.functional.interpolate(values[None, None, None], (1, full), mode="bilinear", align_corners=aligned)
    torch.testing.assert_close(found, wide[0, 0, 0], rtol=1e-6, atol=1e-6)
