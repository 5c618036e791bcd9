"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) as a JAX laboratory."""

import os

# Before TensorFlow starts. It only reads images here: it need not say so, nor
# use operations that not every CPU has.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
