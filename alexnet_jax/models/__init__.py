"""The networks: `AlexNet` reads a table of layers, `layers` has its parts."""

from alexnet_jax.models.alexnet import AlexNet

__all__ = ['AlexNet']
