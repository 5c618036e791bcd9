"""Names of ImageNet's classes."""

import tensorflow_datasets as tfds

from alexnet_jax.data import class_names


def test_ids_are_those_of_tfds_and_have_names(tmp_path):
  label = tfds.builder('imagenet2012', data_dir=tmp_path).info.features['label']
  assert list(class_names.imagenet()) == label.names
  ids = ['n02123045', 'n03126707', 'n02012849', 'red']
  expected = ['tabby', 'crane', 'crane bird', 'red']  # WordNet 3.0's
  assert class_names.readable(ids) == expected
  assert len(set(class_names.imagenet().values())) == 1000
