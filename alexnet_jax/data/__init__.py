"""From pictures to batches.

sources        where pictures come from: TFDS, folders, the drawn shapes;
               ilsvrc has what concerns ImageNet's tars, class_names its names
images         decodes, scales and cuts them
prepare        stores them once, with their statistics; shards writes them,
               check reads them again
records        reads what was prepared
pipeline       batches as a pure function of (seed, step)
augment        the random draws of training, the views of evaluation
preprocessing  mean subtraction and scale, which travel with a run
"""
