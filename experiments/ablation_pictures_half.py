r"""The paper's claims on real pictures, at half of the width: for a CPU.

python -m experiments.ablation_pictures_half --workdir=runs/pictures_half \
    --data=folder=/my/imagenette
"""

from experiments import ablations

if __name__ == '__main__':
  ablations.run('ablation_pictures_half')
