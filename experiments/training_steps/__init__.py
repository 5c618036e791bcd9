"""What `experiments.benchmark_step` compares.

contenders     who takes part in which section, and with which settings
with_jax       the project's step, also with one of its tricks left out
with_flax      the same network as one would first write it with Flax
jax_device     what both of these know of their device
with_torch     its step in PyTorch; torch_network has the network
worker         one contender's process
layers_jax     each layer of our network by itself; layers_torch, of PyTorch's
start          from the start of a process to its first step
cost_model     operations and bytes of a step; what an accelerator would need
report         tables, charts and JSON
"""
