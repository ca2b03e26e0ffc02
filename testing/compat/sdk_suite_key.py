"""Gives the tests of the official SDK, which have a key of their own, the key of a live Baton."""

import os
import sys


def pytest_collection_finish(session):
    sys.modules["tests.conftest"].api_key = os.environ["BATON_API_KEY"]
