"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) as a JAX laboratory."""
