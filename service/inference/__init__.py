"""One item in, its own rows out: models run on lanes, in batches that mix callers and never their answers.

engine      submit an item, await its answer
batcher     which items run next, and which are dropped (policy only)
worker      the lanes: threads that run batches
backend     what runs a model; opened without silent fallback
backends/   onnxruntime  openvino  fake
"""
