"""URLs of servers: read strictly, and never shown."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.certificates import self_signed
from worker.database_url import connect_arguments, read_database_url
from worker.redis_url import read_redis_url

PIECES = ("s3k", "r3t")
HARD = "s:/?#[]@ %25&=+;'\"\\é"


@pytest.mark.parametrize("mark", [*"@/:?#[]%\n", "@@", "/@", ":1/", "?a=b", "@h:1/x?y=", "%4"])
@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgresql", "postgres", "redis", "rediss"])
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(scheme: str, mark: str) -> None:
    read = read_redis_url if "redis" in scheme else read_database_url
    for user in ("user", ""):
        with pytest.raises(ValueError, match=r"holds|has|names") as caught:
            read(f"{scheme}://{user}:s3k{mark}r3t@host:1234/0")
        said = str(caught.value)
        assert not any(piece in said for piece in PIECES)
        assert "percent-encoded" in said or mark == "@h:1/x?y=", "a whole URL before the rest of the password"
        assert len(said.splitlines()) == 1


def test_an_encoded_password_is_the_password() -> None:
    encoded = quote(HARD, safe="")
    assert connect_arguments(read_database_url(f"postgresql://u:{encoded}@h/d"))["password"] == HARD
    broker = read_redis_url(f"redis://u:{encoded}@h/3")
    assert (broker.user, broker.password, broker.database) == ("u", HARD, 3)
    assert read_redis_url(broker.url) == broker


def test_a_password_of_its_own_needs_no_encoding_and_gives_way_to_the_urls() -> None:
    url = read_database_url("postgresql://u@h/d", HARD)
    assert connect_arguments(read_database_url(url.render_as_string(hide_password=False)))["password"] == HARD
    assert read_database_url("postgresql://u:p@h/d", HARD).password == "p"
    assert read_redis_url("redis://h", HARD).password == HARD
    assert read_redis_url("redis://u:p@h", HARD).password == "p"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://u:sekret@h:x/d", "port"),
        ("postgresql://u:sekret@h:/d", "port"),
        ("postgresql://u:sekret@h:0/d", "port"),
        ("postgresql://u:sekret@h:65536/d", "port"),
        ("postgresql://u:sekret@h,g:5x/d", "port"),
        ("postgresql://u:sekret@h/d?sslmod=require", "unknown option `sslmod`"),
        ("postgresql://u:sekret@h/d?sslmode=maybe", "`sslmode` with a value"),
        ("postgresql://u:sekret@h/d?target_session_attrs=any-old", "`target_session_attrs` with a value"),
        ("postgresql://u:sekret@h/d?connect_timeout=soon", "`connect_timeout`, which must be a number"),
        ("postgresql://u:sekret@h/d?sslrootcert=/no/such/file", "`sslrootcert`, whose file cannot be read"),
        ("postgresql://u:sekret@h/d?service=none-such", "service that is not defined"),
        ("postgresql://u:sekret@h/d?sslmode", "options that cannot be read"),
        ("postgresql://u:sekret@h/d?a=%ff", "options that cannot be read"),
        ("postgresql://u:sekret@h/d?port=abc", "`port`, which must be a number"),
        ("postgresql://u:sekret@h/d?port=1,x", "`port`, which must be a number"),
        ("postgresql://u:sekret@/d?host=a&host=b&port=1,2,3", "do not go together"),
        ("postgresql://u:sekret@h/d?password=sekret2", "two passwords"),
        ("postgresql://u:sekret@h/d?connect_timeout=1&connect_timeout=2", "`connect_timeout` twice"),
        ("postgresql://u:sekret@h/d?options=-cwork_mem%3D1MB&options=-cjit%3Doff", "`options` twice"),
        ("postgresql://u:sekret%00x@h/d", "NUL character"),
        ("postgresql://u:sekret%FF@h/d", "no UTF-8"),
        ("postgresql://u:sekret\udcff@h/d", "no UTF-8"),
        ("postgresql://u:sekret@h%00/d", "NUL character"),
        ("postgresql://u:sekret@h/d%00", "NUL character"),
        ("postgresql://u:sekret@h/d?application_name=%00", "NUL character"),
        ("redis://:sekret%00@h/0", "NUL character"),
        ("redis://:sekret%ff@h/0", "no UTF-8"),
        ("rediss://:sekret@h/0?ssl_ca_certs=%00", "NUL character"),
        ("postgresql://u:sekret@h!/d", "no host that can be read"),
        ("postgresql://u:sekret@h/d?port=sekret", "`port`, which must be a number"),
        ("postgresql://u:pa%00sekret@h/d", "NUL character"),
        ("postgresql://u:sekret@h/d?application_name=a%00b", "NUL character"),
        ("postgresql://u:sekret%ff@h/d", "no UTF-8"),
        ("postgresql://u:sekret@h/d/e", "second slash"),
        ("postgresql:u:sekret@h/d", "must begin with postgresql"),
        ("redis://:sekret@/0", "names no host"),
        ("redis:///0", "names no host"),
        ("redis://", "names no host"),
        ("redis://:sekret@a,b/0", "names no host, or several"),
        ("redis://:sekret@h:70000/0", "port"),
        ("redis://:sekret@h:-1/0", "port"),
        ("redis://:sekret@h/jobs", "database that is no number"),
        ("redis://:sekret@h/-1", "database that is no number"),
        ("redis://:sekret@h/0/1", "second slash"),
        ("redis://:sekret@h/0?db=3", "an unknown option"),
        ("redis://:sekret@h/0?socket_timeout=3", "unknown option `socket_timeout`"),
        ("redis://:sekret@h/0?ssl_cert_reqs=none", "wants TLS"),
        ("rediss://:sekret@h/0?ssl_cert_reqs=maybe", "required, optional, none"),
        ("rediss://:sekret@h/0?ssl_check_hostname=maybe", "true or false"),
        ("rediss://:sekret@h/0?ssl_ca_certs=/no/such/file", r"cannot be used \(No such file"),
        ("rediss://:sekret@h/0?ssl_cert_reqs=required&ssl_cert_reqs=none", "`ssl_cert_reqs` twice"),
        ("rediss://:sekret@h/0?ssl_cert_reqs=none&ssl_check_hostname=true", "leave out ssl_cert_reqs=none"),
        ("rediss://:sekret@h/0?ssl_keyfile=/etc/hosts", "`ssl_keyfile` without `ssl_certfile`"),
        ("rediss://:sekret@h/0?ssl_certfile=/etc/hosts", "no certificate and its key"),
        ("redis://:sekret@h%0a/0", "a blank in its host"),
        ("redis://:sekret@h/0%00", "NUL character"),
        ("redis://sekret@h/0", "user name without a password"),
        ("sentinel://:sekret@h/0", "must begin with redis"),
    ],
)
def test_what_cannot_be_right_is_said_without_the_password(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        (read_database_url if url.startswith("postgres") else read_redis_url)(url)
    assert "sekret" not in str(caught.value)


def test_what_libpq_understands_is_taken(tmp_path: Path) -> None:
    several = read_database_url(
        "postgres://u:p@a:1,b/d?target_session_attrs=read-write&application_name=me@x"
    )
    given = connect_arguments(several)
    assert (given["host"], given["port"]) == ("a,b", "1,5432")
    assert (given["target_session_attrs"], given["application_name"]) == ("read-write", "me@x")
    assert connect_arguments(read_database_url("postgresql:///d?host=/run/x&user=u"))["host"] == "/run/x"
    assert connect_arguments(read_database_url("postgresql://u@%2Frun%2Fx/d"))["host"] == "/run/x"
    assert read_database_url("postgresql://u@h/d?password=p").password == "p"
    assert read_database_url("postgresql://u:p@[fe80::1%25eth0]/d").host == "fe80::1%eth0"
    six = read_database_url("postgresql://u:p@[::1]:6000/d?options=-c%20search_path=a,b")
    assert (six.host, six.port, six.query["options"]) == ("::1", 6000, "-c search_path=a,b")


def test_tls_is_verified_unless_the_url_says_otherwise(tmp_path: Path) -> None:
    self_signed(tmp_path)
    assert read_redis_url("redis://h").tls is None
    verified = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    assert read_redis_url("rediss://h").tls == verified
    ca = str(tmp_path / "gateway.pem")
    assert read_redis_url(f"rediss://h?ssl_ca_certs={ca}").tls == {**verified, "ssl_ca_certs": ca}
    assert read_redis_url("rediss://h?ssl_cert_reqs=none").tls == {
        "ssl_cert_reqs": ssl.CERT_NONE,
        "ssl_check_hostname": False,
    }
    assert read_redis_url("rediss://h?ssl_check_hostname=false").tls == {
        **verified,
        "ssl_check_hostname": False,
    }
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="holds no certificate"):
        read_redis_url(f"rediss://h?ssl_ca_certs={tmp_path / 'empty'}")
