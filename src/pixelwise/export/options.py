from dataclasses import dataclass
@dataclass(frozen=True)
class ExportOptions:
    layout: str = "nchw"
    outputs: tuple[str, ...] = ("logits",)
    deepness: bool = False
