import pytest

from ftp_gateway.config import App, FtpGatewaySettings, FtpUser, account_of, check_app, check_user, rules_of
from shared.config.registry import ConfigEntry
from shared.config.secret import Secret
from shared.errors import InvalidError
from shared.runtime.settings import read_settings


def test_an_unknown_timezone_is_refused() -> None:
    check_app(App(timezone="Europe/Istanbul"))
    for timezone in ("Nowhere/City", "../etc/passwd", ""):
        with pytest.raises(InvalidError):
            check_app(App(timezone=timezone))


def test_a_user_needs_something_to_sign_in_with() -> None:
    check_user(FtpUser(password=Secret("long enough")))
    with pytest.raises(InvalidError) as refused:
        check_user(FtpUser())
    assert refused.value.field == "password"


def test_a_disabled_user_has_no_account() -> None:
    user = FtpUser(password=Secret("$argon2id$…"), allowed_ips=("10.0.0.1",))

    account = account_of(ConfigEntry("shop", "nightly", user, 1))

    assert account is not None
    assert ("shop.nightly", "$argon2id$…") == (account.login, account.password_hash)
    assert account_of(ConfigEntry("shop", "nightly", FtpUser(password=Secret("x"), disabled=True), 1)) is None


def test_the_rules_are_those_of_the_app() -> None:
    rules = rules_of(App(settle_s=0.2, fallback_encoding="windows-1254", profile_attributes={"age": "number"}))

    assert (0.2, "windows-1254", {"age": "number"}) == (rules.settle_s, rules.fallback_encoding, rules.attributes)


def test_settings_of_sftp_come_from_their_variables() -> None:
    settings = read_settings(
        FtpGatewaySettings, {"MILLRACE_SFTP_PORT": "0", "MILLRACE_SFTP_IDLE_S": "5", "MILLRACE_HTTP_PORT": "8083"}
    )

    assert FtpGatewaySettings(sftp_port=0, sftp_idle_s=5.0, http_port=8083) == settings


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MILLRACE_SFTP_PORT", "65536"),
        ("MILLRACE_SFTP_CONNECTIONS", "1"),
        ("MILLRACE_SFTP_LOGIN_S", "0"),
        ("MILLRACE_SFTP_BAN_S", "86401"),
        ("MILLRACE_SFTP_PROT", "22"),
    ],
)
def test_a_wrong_setting_of_sftp_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(InvalidError) as refused:
        read_settings(FtpGatewaySettings, {variable: value})

    assert refused.value.field == variable
