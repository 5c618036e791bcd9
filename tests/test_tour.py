"""The notebook for class runs from top to bottom."""

import json
import os
import pathlib
import subprocess
import sys

DOCS = pathlib.Path(__file__).parents[1] / 'docs'
# What a notebook has besides Python: `display`, here of figures alone.
DISPLAY = """
import io

class Display:
  def update(self, figure):
    figure.savefig(io.BytesIO())

def display(*figures, display_id=False):
  for figure in figures:
    Display().update(figure)
  return Display()
"""


def test_the_tour_runs_and_its_outputs_are_committed():
  cells = json.loads((DOCS / 'tour.ipynb').read_text())['cells']
  code = [cell for cell in cells if cell['cell_type'] == 'code']
  outputs = [output for cell in code for output in cell['outputs']]
  assert sum('image/png' in output.get('data', {}) for output in outputs) == 4
  assert not any(output['output_type'] == 'error' for output in outputs)
  program = '\n'.join([DISPLAY, *(''.join(cell['source']) for cell in code)])
  # A few steps show that the last cell trains; an epoch takes a minute.
  assert '--config.num_epochs=1' in program
  program = program.replace('--config.num_epochs=1', '--config.train_steps=20')
  ran = subprocess.run(
    [sys.executable, '-c', program],
    cwd=DOCS,
    env=os.environ | {'MPLBACKEND': 'agg', 'XLA_FLAGS': ''},
    capture_output=True,
    text=True,
    check=True,
  )
  lines = [line.split() for line in ran.stdout.splitlines()]
  errors = {' '.join(x[: x.index('error')]): x for x in lines if 'error' in x}
  whole = errors['whole']
  assert float(whole[2]) < 0.05
  assert float(errors['without tower 1'][4]) > float(whole[2])
