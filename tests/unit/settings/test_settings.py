"""The environment: every fault named at once, nothing secret shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.settings import EARLIER_NAMES, Settings, SettingsError, load_as, load_settings
from worker.startup_checks import WorkerSettings

GOOD = {
    "DATABASE_URL": "postgresql+psycopg://u:hidden-password@h/d",
    "REDIS_URL": "redis://:other-password@h:6379/0",
    "BASE_URL": "https://mc.example",
}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_three_variables_are_enough(environment: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    assert settings.base_url == "https://mc.example"
    assert (settings.retry_timeout_s, settings.retry_inline_s, settings.lease_s) == (600, 20, 30)
    assert settings.dispatch_interval_s <= 2, "rows are published within two seconds"
    assert settings.gateway_device_key.is_absolute()


def test_a_folder_of_templates_that_would_replace_nothing_is_refused(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("TEMPLATES_DIR", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"TEMPLATES_DIR.*is not a folder"):
        load_settings()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "SOUL.md.j2").write_text("calm")
    environment.setenv("TEMPLATES_DIR", str(tmp_path))
    assert load_settings().templates_dir == tmp_path
    (tmp_path / "SOUL.md.j2").write_text("in the wrong place")
    with pytest.raises(SettingsError, match=r"holds SOUL\.md\.j2, which replaces no .*shared/SOUL"):
        load_settings()


def test_all_that_is_missing_is_named_at_once_with_what_it_is_for() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    lines = str(caught.value).splitlines()
    assert lines[0] == "The environment is not complete:"
    assert [line.split()[0] for line in lines[1:]] == ["DATABASE_URL", "REDIS_URL", "BASE_URL"]
    assert all("is not set. " in line for line in lines[1:])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://u:hidden-password@h/d"),
        ("REDIS_URL", "amqp://:hidden-password@h"),
        ("BASE_URL", "mc.example"),
        ("BASE_URL", "http://"),
        ("BASE_URL", "http://h:99999"),
        ("BASE_URL", "http://x/`id`"),
        ("BASE_URL", "http://x/ y"),
        ("BASE_URL", "http://x/?a=1"),
        ("BASE_URL", "http://x/#a"),
        ("BASE_URL", "http://x\u200b"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
        ("WORKER_CONCURRENCY", "0"),
        ("WORKER_CONCURRENCY", "many"),
        ("LEASE_S", "0"),
        ("RETRY_BUDGET_S", "-1"),
        ("RETRY_INLINE_S", "60"),
        ("CLOCK_TICK_S", "0"),
        ("CRASH_LIMIT", "0"),
    ],
)
def test_a_wrong_value_is_named_and_a_secret_is_not_shown(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert f"  {name}: " in str(caught.value)
    assert "hidden-password" not in str(caught.value)


def test_several_wrong_values_are_named_together(environment: pytest.MonkeyPatch) -> None:
    for name in ("LEASE_S", "LOG_LEVEL", "REDIS_URL"):
        environment.setenv(name, "?")
    environment.delenv("BASE_URL")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    named = {line.split()[0].rstrip(":") for line in str(caught.value).splitlines()[1:]}
    assert named == {"LEASE_S", "LOG_LEVEL", "REDIS_URL", "BASE_URL"}


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_any_spelling_of_a_postgres_url_is_taken(environment: pytest.MonkeyPatch, scheme: str) -> None:
    environment.setenv("DATABASE_URL", f"{scheme}://u:p@h/d")
    assert load_settings().database_url.get_secret_value() == "postgresql+psycopg://u:p@h/d"


def test_levels_and_formats_are_taken_in_any_case(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("LOG_LEVEL", "debug")
    environment.setenv("LOG_FORMAT", "JSON")
    assert (load_settings().log_level, load_settings().log_format) == ("DEBUG", "json")


def test_a_slash_at_the_end_of_base_url_is_dropped(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("BASE_URL", "https://mc.example/api/")
    assert load_settings().base_url == "https://mc.example/api"


def test_passwords_are_in_no_representation(environment: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    for shown in (repr(settings), str(settings), repr(settings.model_dump())):
        assert "hidden-password" not in shown
        assert "other-password" not in shown


@pytest.mark.parametrize("name", ["TEMPLATES_DIR", "GATEWAY_DEVICE_KEY", "HEALTH_FILE"])
@pytest.mark.parametrize("value", ["~nobody-of-that-name/x", "x" * 5000, "x\udcff" * 500])
def test_a_path_that_cannot_be_one_is_a_sentence(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(SettingsError, match=f"  {name}: "):
        load_settings()


@pytest.mark.parametrize("value", ["1e10", "9" * 30, "inf", "nan", "-1", "0"])
def test_a_budget_that_no_clock_holds_is_refused(environment: pytest.MonkeyPatch, value: str) -> None:
    environment.setenv("RETRY_BUDGET_S", value)
    with pytest.raises(SettingsError, match="  RETRY_BUDGET_S: "):
        load_settings()


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_an_empty_variable_is_unset(environment: pytest.MonkeyPatch, blank: str) -> None:
    for name, field in Settings.model_fields.items():
        if not field.is_required():
            environment.setenv(name.upper(), blank)
    settings = load_settings()
    for name, field in Settings.model_fields.items():
        if not field.is_required() and name != "gateway_device_key":
            assert getattr(settings, name) == field.default, name
    environment.setenv("REDIS_URL", blank)
    with pytest.raises(SettingsError, match="REDIS_URL is not set"):
        load_settings()


def test_a_line_end_behind_a_value_is_not_part_of_it(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", f" {GOOD['DATABASE_URL']}\n")
    assert load_settings().database_url.get_secret_value() == GOOD["DATABASE_URL"]


def test_passwords_can_stand_in_variables_of_their_own(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", "postgresql://u@h/d")
    environment.setenv("DATABASE_PASSWORD", "p@ss/word")
    environment.setenv("REDIS_URL", "redis://h:6379/0")
    environment.setenv("REDIS_PASSWORD", "p#ss")
    settings = load_settings()
    assert settings.database_url.get_secret_value() == "postgresql+psycopg://u:p%40ss%2Fword@h/d"
    assert settings.broker.password == "p#ss"
    assert "p#ss" not in repr(settings) + repr(settings.broker)


def test_a_worker_names_its_files_with_all_the_rest(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key, sign, templates = tmp_path / "key", tmp_path / "none" / "sign", tmp_path / "none"
    key.write_text("no key")
    key.chmod(0o600)
    environment.setenv("GATEWAY_DEVICE_KEY", str(key))
    environment.setenv("HEALTH_FILE", str(sign))
    environment.setenv("TEMPLATES_DIR", str(templates))
    environment.setenv("LEASE_S", "soon")
    environment.delenv("REDIS_URL")
    with pytest.raises(SettingsError) as caught:
        load_as(WorkerSettings)
    said = str(caught.value)
    for part in (
        "REDIS_URL is not set",
        "GATEWAY_DEVICE_KEY: the device key file",
        "is damaged",
        "HEALTH_FILE: ",
        "cannot be written (No such file",
        "TEMPLATES_DIR: ",
        "LEASE_S: ",
    ):
        assert part in said
    environment.setenv("GATEWAY_DEVICE_KEY", str(key / "below"))
    with pytest.raises(SettingsError, match=r"GATEWAY_DEVICE_KEY: .*cannot be used"):
        load_as(WorkerSettings)


def test_a_look_at_the_settings_makes_nothing(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("GATEWAY_DEVICE_KEY", str(tmp_path / "new" / "key"))
    environment.setenv("HEALTH_FILE", str(tmp_path / "sign"))
    load_as(WorkerSettings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "old"), EARLIER_NAMES.items())
def test_a_variable_is_read_by_its_earlier_name_too(
    environment: pytest.MonkeyPatch, name: str, old: str
) -> None:
    environment.setenv(old, "3")
    assert getattr(load_settings(), name.lower()) == 3
    environment.setenv(name, "3.0")
    with pytest.raises(
        SettingsError, match=f"{name} and {old}, its earlier name, are set to different values"
    ):
        load_settings()
    environment.setenv(name, "3")
    assert getattr(load_settings(), name.lower()) == 3
    environment.setenv(name, " ")
    assert getattr(load_settings(), name.lower()) == 3
    environment.delenv(name)
    environment.setenv(old, "much")
    with pytest.raises(SettingsError, match=f"  {old}: "):
        load_settings()
