"""What relu_vs_tanh is made of.

race        trains networks, looks for the best rates, runs other seeds
report      the table of epochs and ratios, and the figure
"""
