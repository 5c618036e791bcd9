r"""The paper's claims on real pictures, at the paper's width: for a GPU.

python -m experiments.ablation_pictures --workdir=runs/pictures \
    --data=folder=/my/imagenette
"""

from experiments import ablations

if __name__ == '__main__':
  ablations.run('ablation_pictures')
