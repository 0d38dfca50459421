"""Settings under which Django's own tests run, and a runner that writes down every outcome.

Must not know which tests are run.
"""

import json
import os
import unittest

from django.test.runner import DiscoverRunner


def _database(name):
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "HOST": os.environ["PGHOST"],
        "PORT": os.environ["PGPORT"],
        "USER": os.environ["PGUSER"],
        "PASSWORD": os.environ["PGPASSWORD"],
    }


DATABASES = {"default": _database("django_one"), "other": _database("django_two")}
SECRET_KEY = "tests"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False


class Recorder(unittest.TextTestResult):
    """Remembers what came of each test."""

    outcome = {}

    def _note(self, test, result, said=""):
        test = getattr(test, "test_case", test)
        if self.outcome.get(test.id(), ("pass", ""))[0] != "fail":
            self.outcome[test.id()] = (result, said)

    def addSuccess(self, test):
        super().addSuccess(test)
        self._note(test, "pass")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._note(test, "fail", self.failures[-1][1][-1500:])

    def addError(self, test, err):
        super().addError(test, err)
        self._note(test, "fail", self.errors[-1][1][-1500:])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(test, "fail", repr(err[1]))

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._note(test, "skip", reason)

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self._note(test, "pass")


class Runner(DiscoverRunner):
    """The usual one, but that it writes `PGHERD_OUTCOME`."""

    def get_resultclass(self):
        return Recorder

    def run_suite(self, suite, **kwargs):
        try:
            return super().run_suite(suite, **kwargs)
        finally:
            with open(os.environ["PGHERD_OUTCOME"], "w") as file:
                json.dump(Recorder.outcome, file)


TEST_RUNNER = "django_settings.Runner"
