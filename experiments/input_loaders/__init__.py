"""What `experiments.benchmark_input` compares.

layout      the same images in every form that a contender reads
contenders  the loaders; each runs under the Python that has its library
decoders    whether their JPEG decoders give the same pixels
worker      one loader's process
training    input and training step, alone and together
report      table, chart and JSON
"""
