"""What `experiments.benchmark_step` compares.

contenders     who takes part in which section, and with which settings
with_jax       the project's step, also with one of its tricks left out
with_flax      the same network as one would first write it with Flax
with_torch     its step in PyTorch; torch_network has the network
worker         one contender's process
layer_times    where a step's time goes, layer by layer
start          from the start of a process to its first step
cost_model     operations and bytes of a step; what an accelerator would need
report         tables, charts and JSON
"""
