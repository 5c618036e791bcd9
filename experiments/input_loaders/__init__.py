"""What `experiments.benchmark_input` compares, and how it is timed.

layout      the same images in every form that a contender reads
loaders     the contenders; each runs under the Python that has its library
decoders    whether their JPEG decoders give the same pixels
worker      one contender's process, which works when it is told to
contest     starts, stops and times the workers, in turn
busy        how much of the machine other programs used meanwhile
training    input and training step, alone and together
report      table, chart and JSON
"""
