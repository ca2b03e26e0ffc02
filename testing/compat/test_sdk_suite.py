"""The official Python SDK's own tests of chats, models, responses and conversations, from its source archive,
against a live Baton.

They are written for a mock server, which has every id that they name and answers every body. `sdk_suite_ids.py` puts
real objects in place of the ids of responses and conversations; bodies stay as they are. The upstream has other models
than the tests name, so reading one by name fails.
"""

import os
import subprocess
import xml.etree.ElementTree

from conftest import HERE, ROOT

PYTHON = ROOT / "target" / "compat" / "venv" / "bin" / "python"
SUITE = ["chat", "test_models.py", "test_conversations.py", "conversations", "test_responses.py", "responses"]
FORMS = ["test_method", "test_raw_response", "test_streaming_response"]

STORED = "completions are not stored under OpenAI's routes: /v1/runs has what was asked and answered"
BOTH_FORMS = "a request with `functions` and `tools` is refused, because nobody knows which one is meant"
INCLUDE = "`include` is refused, because there is nothing to include"
EMPTY = "the test names neither a model nor an input, and a live server answers 400"
EVERY_FIELD = "the test sends every field at once, with some that exclude each other and some that are refused"
PHASE = "the test gives a user's message a `phase`, which is a field of assistants' messages"
FAILURES = {
    **{("test_models", f"{form}_delete"): "models are the upstream's" for form in FORMS},
    **{("test_models", f"{form}_retrieve"): "the upstream lacks the model" for form in FORMS},
    **{
        ("test_completions", f"{form}_{what}"): STORED
        for form in FORMS
        for what in ["retrieve", "update", "list", "delete"]
    },
    ("test_completions", "test_method_list_with_all_params"): STORED,
    **{("test_messages", f"{form}_list"): STORED for form in FORMS},
    ("test_messages", "test_method_list_with_all_params"): STORED,
    ("test_conversations", "test_method_create_with_all_params"): PHASE,
    ("test_items", "test_method_create_with_all_params"): PHASE,
    ("test_items", "test_method_retrieve_with_all_params"): INCLUDE,
    ("test_items", "test_method_list_with_all_params"): INCLUDE,
    ("test_input_items", "test_method_list_with_all_params"): INCLUDE,
    **{("test_input_tokens", f"{form}_count"): EMPTY for form in FORMS},
    ("test_input_tokens", "test_method_count_with_all_params"): EVERY_FIELD,
    **{
        ("test_responses", f"{form}_{what}"): EMPTY
        for form in FORMS
        for what in ["create_overload_1", "create_overload_2", "compact"]
    },
    **{
        ("test_responses", f"test_method_{what}"): EVERY_FIELD
        for what in [
            "create_with_all_params_overload_1",
            "create_with_all_params_overload_2",
            "compact_with_all_params",
        ]
    },
    **{
        ("test_responses", f"test_method_retrieve_with_all_params_overload_{overload}"): INCLUDE
        for overload in [1, 2]
    },
    ("test_completions", "test_method_create_with_all_params_overload_1"): BOTH_FORMS,
    ("test_completions", "test_method_create_with_all_params_overload_2"): BOTH_FORMS,
}


def test_the_sdk_s_own_tests_pass_except_those_that_cannot(scripted, tmp_path):
    (suite,) = (ROOT / "target" / "compat" / "sdk").glob("openai-*/tests")
    report = tmp_path / "report.xml"
    ended = subprocess.run(
        [
            PYTHON, "-m", "pytest", "-q", "--tb=line", f"--junitxml={report}",
            # The suite's own options ask for plugins, and make every warning an error.
            "-o", "addopts=", "-W", "ignore", "-p", "no:cacheprovider", "-p", "sdk_suite_key", "-p", "sdk_suite_ids",
            *(f"tests/api_resources/{part}" for part in SUITE),
        ],
        cwd=suite.parent,
        env={
            **os.environ,
            "PYTHONPATH": str(HERE),
            "TEST_API_BASE_URL": f"{scripted['base_url']}/v1",
            "BATON_API_KEY": scripted["api_key"],
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr
    passed, unlike, failed = 0, [], set()
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        names = case.get("classname").split("."), case.get("name").partition("[")[0]
        test = (names[0][-2], names[1])
        fails = any(case.find(kind) is not None for kind in ["failure", "error"])
        if fails != (test in FAILURES):
            unlike.append(f"{case.get('classname')} {case.get('name')} {'fails' if fails else 'passes'}")
        passed += not fails
        failed |= {test} if fails else set()
    assert not unlike, "\n".join([*unlike, ended.stdout])
    assert failed == set(FAILURES), "the list names a test that the suite lacks"
    assert passed > 320
