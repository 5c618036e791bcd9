"""Speed of the training step, of its input and of preparation.

step, input, prepare     programs: python -m experiments.benchmarks.step --help
contest                  starts processes and times them in turn
machine                  machine, versions and command, for every result
step_jax, step_flax, step_torch   training steps that are compared
step_worker              what their processes have in common
tricks                   replacements for the section "One trick less"
input_tf, input_torch    loaders that are compared
input_worker             what their processes have in common
"""
