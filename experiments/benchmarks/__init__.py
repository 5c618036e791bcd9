"""Speed of the training step, of its input and of preparation.

step, input, prepare     programs: python -m experiments.benchmarks.step --help
convolutions             program: AlexNet's convolutions alone
profile                  program: the operations of a step that take longest
contest                  starts processes and times them in turn
machine                  machine, versions and command, for every result
step_jax, step_flax, step_torch   training steps that are compared
step_product             a matrix product with as many operations
step_worker              what their processes have in common
tricks                   replacements for the sections "One trick less"
convolutions_jax, convolutions_torch   convolutions that are compared
input_tf, input_torch    loaders that are compared
input_worker             what their processes have in common
"""
