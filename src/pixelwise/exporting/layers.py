"""The layers of an exported graph, by names that a person can say: which of them stay float32 in a lower precision."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pixelwise.errors import ConfigError

NETWORK = ("/encoder/", "/decoder/", "/network/")
"""How names of the network's own nodes begin. All others are normalisation and the decision, which stay float32."""
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
BETWEEN = ("Add", "AveragePool", "Clip", "Concat", "MaxPool", "Relu", "Resize")
"""Kinds of nodes that work on eight bits too, in networks without attention, so that nothing is turned back between
products."""


@dataclass(frozen=True)
class Layers:
    """The nodes of an ONNX graph."""

    outside: tuple[str, ...]
    """Nodes around the network: normalisation, padding, upsampling to the image, the decision; and sizes of maps."""
    products: tuple[str, ...]
    """Convolutions and matrix products, in the order in which they are computed."""
    attention: tuple[str, ...]
    """Of these, products of two tensors that depend on the image."""
    rest: tuple[str, ...] = ()
    """Nodes of the network that stay float32 whatever is chosen: softmax, norms, activations of other kinds."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of nodes that eight bits are for."""
        return PRODUCTS if self.attention else (*PRODUCTS, *BETWEEN)


@dataclass(frozen=True)
class Kept:
    """Nodes that stay float32, and what they are called."""

    words: tuple[str, ...]
    nodes: tuple[str, ...]


def layers_of(graph: Any) -> Layers:
    """Read the nodes of an ``onnx.ModelProto``, which are in the order in which they are computed."""
    constants = {each.name for each in graph.graph.initializer}
    # What is computed from sizes alone.
    sizes, nodes = set[str](), graph.graph.node
    outside, products, attention, others = (list[Any]() for _ in range(4))
    for node in nodes:
        given = {name for name in node.input if name}
        if node.op_type == "Constant":
            constants |= set(node.output)
        elif node.op_type == "Shape" or (given & sizes and given <= sizes | constants):
            sizes |= set(node.output)
        if not node.name.startswith(NETWORK) or set(node.output) & sizes:
            outside.append(node.name)
        elif node.op_type in PRODUCTS:
            products.append(node.name)
            if node.op_type == "MatMul" and not constants & given:
                attention.append(node.name)
        else:
            others.append(node)
    kinds = () if attention else BETWEEN
    rest = (node.name for node in others if node.op_type not in kinds)
    return Layers(tuple(outside), tuple(products), tuple(attention), tuple(rest))


def module_of(node: str) -> str:
    """Return the module that a node of a traced graph is in: ``encoder.stages.0.0.attention``.

    torch names nodes by the way to them, on which containers have the names of all before: ``/stages.0/stages.0.0``.
    """
    parts = list[str]()
    for part in node.strip("/").split("/")[:-1]:
        before = parts[-1] if parts else ""
        if before and part.startswith(f"{before}."):
            parts[-1] = part
        else:
            parts.append(part)
    return ".".join(parts)


def chosen(layers: Layers, patterns: Sequence[str]) -> Kept:
    """Return the nodes in modules that a user names, such as ``decoder*`` or ``encoder.stages.0.*``.

    Raises:
        ConfigError: a pattern that fits no module.
    """
    modules = {node: module_of(node) for node in layers.products}
    found = list[str]()
    for pattern in patterns:
        fitting = [node for node, module in modules.items() if fits(module, pattern)]
        if not fitting:
            known = sorted(set(modules.values()))
            shown = ", ".join(known[:4] + known[-2:])
            raise ConfigError(
                f"No layer is called {pattern!r}, so none is kept in float32 for it. Layers are {shown} and others "
                f"between ({len(known)} in all); * stands for any text.",
                code="PW700",
            )
        found += fitting
    return Kept(tuple(patterns), tuple(dict.fromkeys(found)))


def fits(module: str, pattern: str) -> bool:
    """Return whether a module, or one that it is in, has a name of this pattern."""
    parts = module.split(".")
    return any(fnmatchcase(".".join(parts[:count]), pattern) for count in range(1, len(parts) + 1))


def ladder(layers: Layers) -> list[Kept]:
    """Return what stays float32, from the classifier to more and more of what commonly costs accuracy.

    The classifier's answers would have 256 levels, and it is small. Attention multiplies what varies most, the first
    layer sees the widest range of values, and decoders are small.
    """
    decoder = tuple(node for node in layers.products if node.startswith("/decoder/"))
    steps = [
        ("attention", layers.attention),
        ("the first layer", layers.products[:1]),
        ("the decoder", decoder),
    ]
    kept = [Kept(("the classifier",), layers.products[-1:])]
    for words, nodes in steps:
        last = kept[-1]
        if set(nodes) - set(last.nodes):
            kept.append(Kept((*last.words, words), _together(last.nodes, nodes)))
    return kept


def joined(first: Kept, second: Kept) -> Kept:
    """Return what either keeps."""
    return Kept((*first.words, *second.words), _together(first.nodes, second.nodes))


def _together(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))
