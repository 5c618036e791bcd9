"""The networks: `alexnet` reads a table of layers, `layers` has the parts."""

from alexnet_jax.models.alexnet import AlexNet

__all__ = ['AlexNet']
