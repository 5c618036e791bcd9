"""Weights from elsewhere, and for elsewhere.

weight_files   reads and writes files of weights by name
caffe          reads Caffe's
convert        our layout and PyTorch's
pretrained     makes a run of weights that were trained elsewhere
publish        hands a run's network to other programs
"""
