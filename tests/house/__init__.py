import pytest

# What fails there is to say why, as it does in a test module.
pytest.register_assert_rewrite("tests.house.scenarios")
