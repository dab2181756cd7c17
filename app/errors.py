"""The exceptions that mean "the user can mend this"."""


class UserError(Exception):
    """Bad input. Its message is one line that names the file or key at fault and the cure.

    Entry points print it as ``error: <message>`` on standard error and exit with status 2; every other exception is a
    defect of Trunkline's own and keeps its traceback.
    """


class OfOneProcess(UserError):
    """Bad input that only this process of several has met: the others know nothing of it, and wait for this one."""
