"""Weights of other programs: their files and their layouts.

weight_files   reads .safetensors and .caffemodel, writes .safetensors
caffe          reads the files of Caffe
torch_layout   turns our parameters into PyTorch's and back
"""
