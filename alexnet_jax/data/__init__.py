"""From pictures to batches.

sources        opens TFDS sets, folders of pictures and the drawn shapes
ilsvrc         finds and checks the files of ILSVRC-2012, names its classes
shapes         draws the embedded data set
images         decodes, scales and crops pictures
prepare        writes a data set once, with its statistics, and checks it
shards         writes the shards of one split
records        reads what was prepared
pipeline       makes batches, a pure function of (seed, step)
augment        draws crops, flips and colour noise; cuts evaluation's views
preprocessing  subtracts the mean and scales; its arrays travel with a run
lazy           imports TensorFlow at its first use
"""
