"""What is a checkpoint? Bytes of headers and indexes become frozen values here, once, with every length capped.

Pure: nothing in this room opens a file or knows a framework. The format is that of safetensors 0.8
(https://github.com/huggingface/safetensors, ``safetensors/src/tensor.rs``); where its reader is laxer than its
specification, this one follows the specification (docs/format.md lists each difference).
"""
