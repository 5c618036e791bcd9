"""Output that nobody reads, that is closed, or that has no room."""

import os
import pathlib
import resource
import subprocess
import sys

import jax
import pytest

from alexnet_jax import command_line, errors

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


def test_names_that_the_terminal_cannot_show_are_printed():
  program = _PROGRAM.replace("print('x' * 100)", r"print('ü\udcff')")
  environment = os.environ | {'PYTHONIOENCODING': 'ascii'}
  ended = _run(
    program, '', '/dev/null', stdout=subprocess.PIPE, env=environment
  )
  assert (ended.returncode, ended.stdout) == (0, 'noise\\xfc\\udcff\n')


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


@pytest.mark.parametrize('gigabytes, is_enough', [(3, False), (8, True)])
def test_a_limit_that_makes_libraries_hang_is_refused(
  monkeypatch, gigabytes, is_enough
):
  monkeypatch.setattr(os, 'cpu_count', lambda: 8)
  limits = (gigabytes * 2**30, resource.RLIM_INFINITY)
  monkeypatch.setattr(resource, 'getrlimit', lambda _: limits)
  if is_enough:
    command_line.set_up_jax()
    return
  with pytest.raises(errors.UserError, match='ulimit -v 3145728 .* 7340032'):
    command_line.set_up_jax()


def test_devices_that_are_not_there_are_named(monkeypatch):
  def raise_as_jax_does() -> None:
    raise RuntimeError("Unable to initialize backend 'tpu': no library\nmore")

  monkeypatch.setattr(jax, 'devices', raise_as_jax_does)
  with pytest.raises(errors.UserError, match="JAX_PLATFORMS=cpu .*'tpu': no l"):
    command_line.set_up_jax()


# Readers that are at work when the program ends.
_HALF_WAY = """
import time
import tensorflow as tf
from alexnet_jax import command_line, errors
def read(number):
  time.sleep(0.3)
  return number
def main(_):
  dataset = tf.data.Dataset.range(1000).map(
    lambda number: tf.numpy_function(read, [number], tf.int64), 2
  )
  reader = dataset.prefetch(2).as_numpy_iterator()
  next(reader)
  raise errors.UserError('enough')
command_line.run(main)
"""


def test_a_program_ends_while_data_are_read():
  ended = _run(_HALF_WAY, '', stdout=subprocess.PIPE, timeout=100)
  assert ended.stderr.splitlines()[-1] == 'error: enough'
  assert ended.returncode == 1
