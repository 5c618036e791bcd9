"""What there is to know of trained networks.

error_table      errors of several, one by one and together
comparison       runs side by side
features         what any layer makes of images; feature_file keeps it
retrieval        the nearest images
exciting         what excites a layer's channels; receptive_field: where
ranking          the highest scores of what streams by
"""
