"""How weights in other formats than safetensors are called: no load reads them, and other readers do."""

from __future__ import annotations

OTHER_WEIGHTS = (
    ".bin", ".pth", ".pt", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".onnx_data", ".npz", ".tflite",
)  # fmt: skip
"""What they end in."""
