"""What a user's mistake ends in."""


class UserError(Exception):
  """What the user gave cannot work; the message is one sentence that says so.

  It names the argument, its value and the remedy. Entry points print it
  without a traceback and exit with code 1.
  """


class Interrupted(Exception):
  """A signal has asked the process to stop.

  Entry points exit with 128 + its number, as shells have it.

  Attributes:
    number: of the signal.
  """

  def __init__(self, number: int, message: str = ''):
    super().__init__(message)
    self.number = number


def first_line(error: Exception) -> str:
  """The first line of another library's message, to quote in a sentence."""
  lines = str(error).strip().splitlines()
  return lines[0][:200] if lines else type(error).__name__
