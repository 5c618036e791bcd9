"""Output that nobody reads, that is closed, or that has no room."""

import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_PROGRAM = """
import os, sys
from alexnet_jax import command_line
def main(arguments):
  with open(arguments[0], 'w') as file:
    os.write(1, b'noise'); os.write(2, b'noise')
    file.write('mine')
  print('x' * 100)
command_line.run(main, takes_arguments=True)
"""


def _run(program: str, redirected: str, *arguments, **options):
  command = ['sh', '-c', f'exec "$@" {redirected}', 'sh', sys.executable, '-c']
  return subprocess.run(
    [*command, program, *arguments],
    cwd=_ROOT,
    check=False,
    stderr=subprocess.PIPE,
    text=True,
    **options,
  )


@pytest.mark.parametrize('closed', ['>&-', '2>&-', '<&- >&- 2>&-'])
def test_nothing_is_written_into_files_in_place_of_closed_output(
  tmp_path, closed
):
  path = tmp_path / 'file'
  ended = _run(_PROGRAM, closed, path, stdout=subprocess.PIPE)
  assert ended.returncode == 0
  assert path.read_text() == 'mine'
  assert 'Traceback' not in ended.stderr


@pytest.mark.parametrize('argument', ['file', '--help'])
def test_a_reader_that_has_gone_ends_a_program_without_a_word(
  tmp_path, argument
):
  reader, writer = os.pipe()
  os.close(reader)
  program = _PROGRAM.replace("os.write(1, b'noise'); ", '')
  program = program.replace("os.write(2, b'noise')", 'pass')
  argument = argument.replace('file', str(tmp_path / 'file'))
  ended = _run(program, '', argument, stdout=writer)
  os.close(writer)
  assert (ended.returncode, ended.stderr) == (128 + 13, '')


@pytest.mark.parametrize('argument', ['file', '--help'])
def test_output_without_room_is_one_sentence(tmp_path, argument):
  argument = argument.replace('file', str(tmp_path / 'file'))
  program = _PROGRAM.replace('os.write', 'id or ')
  ended = _run(program, '>/dev/full', argument)
  assert ended.returncode == 1
  assert ended.stderr.startswith('error: [Errno 28] No space left on device')
  assert ended.stderr.count('\n') == 1


def test_libraries_do_not_report_what_they_raise_too():
  program = """
from absl import logging
from alexnet_jax import command_line, errors
class Unraisable:
  def __init__(self, message): self.message = message
  def __del__(self): raise RuntimeError(self.message)
def main(_):
  try:
    raise ValueError('told twice')
  except ValueError:
    logging.exception('from a thread')
  Unraisable('Event loop is closed')
  Unraisable('something else')
  logging.error('told once')
  raise errors.UserError('a sentence')
command_line.run(main)
"""
  lines = _run(program, '').stderr.splitlines()
  assert lines[-1] == 'error: a sentence'
  text = '\n'.join(lines)
  assert 'told once' in text and 'something else' in text
  for repeated in ('told twice', 'from a thread', 'Event loop'):
    assert repeated not in text
