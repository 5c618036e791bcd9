"""The one exception that a user's mistake raises."""


class UserError(Exception):
  """What the user gave cannot work; the message is one sentence that says so.

  It names the argument, its value and the remedy. Entry points print it
  without a traceback and exit with code 1.
  """
