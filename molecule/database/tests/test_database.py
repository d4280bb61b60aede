# SPDX-License-Identifier: GPL-3.0-or-later
"""A database host: what runs, what listens, who may read what, and what is refused."""

from __future__ import annotations

import hashlib
import json
import time

import pytest

from support.lab_host import (
    has_to_be_refused,
    has_to_run,
    journal_lines,
    listening,
    modes,
    run,
    suid,
    unit,
    verify_while,
)

ADDRESS = "10.89.81.11"
FIGURES = "/var/lib/prometheus/node-exporter/diting_archive.prom"
KEY_SHA256 = hashlib.sha256(b"-----BEGIN PGP PRIVATE KEY BLOCK-----").hexdigest()

ASK = """python3 - <<'PY'
import json, ssl, urllib.error, urllib.request
context = ssl.create_default_context(cafile="/etc/diting/pki/ca.crt")
if {certificate}:
    context.load_cert_chain("/etc/diting/pki/host.crt", "/etc/diting/pki/host.key")
request = urllib.request.Request("https://db1:8008{path}", method="{method}", data={data})
request.add_header("Content-Type", "application/json")
try:
    answer = urllib.request.urlopen(request, context=context, timeout=10)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, answer.read().decode()]))
PY"""


def ask(host, path: str, method: str = "GET", *, certificate: bool = False) -> tuple[int, str]:
    """Status and body that Patroni's REST interface answers."""
    data = 'b"{}"' if method != "GET" else None
    status, body = json.loads(
        run(host, ASK.format(path=path, method=method, certificate=certificate, data=data))
    )
    return status, body


def query(host, sql: str) -> str:
    """What the server answers its superuser, unaligned."""
    return run(
        host, f"cd /; runuser -u postgres -- psql --no-psqlrc -qAt -v ON_ERROR_STOP=1 <<'SQL'\n{sql}\nSQL"
    )


def test_listens_on_its_own_address_and_nowhere_else(host):
    assert listening(host) == {
        f"{ADDRESS}:2379 etcd",
        "127.0.0.1:2379 etcd",
        f"{ADDRESS}:2380 etcd",
        f"{ADDRESS}:8008 patroni",
        f"{ADDRESS}:5432 postgres",
        "127.0.0.1:5432 postgres",
    }


@pytest.mark.parametrize(
    "name",
    [
        "chrony.service",
        "etcd.service",
        "patroni.service",
        "diting-patroni-nudge.service",
        "etcd-snapshot.timer",
        "diting-archive-metrics.timer",
    ],
)
def test_service_runs_and_starts_at_boot(host, name):
    has_to_run(host, name)


@pytest.mark.parametrize("name", ["postgresql.service", "postgresql@15-main.service"])
def test_the_distribution_cannot_start_the_server_beside_patroni(host, name):
    assert unit(host, name, "LoadState") == {"LoadState": "masked"}


def test_services_may_do_no_more_than_they_need(host):
    wanted = {"NoNewPrivileges": "yes", "CapabilityBoundingSet": ""}
    names = (*wanted, "User", "KillMode", "OOMScoreAdjust")
    assert unit(host, "etcd", *names) == wanted | {
        "User": "etcd",
        "KillMode": "control-group",
        "OOMScoreAdjust": "-999",
    }
    # KillMode=process: Patroni may be restarted without taking the database down.
    assert unit(host, "patroni", *names) == wanted | {
        "User": "postgres",
        "KillMode": "process",
        "OOMScoreAdjust": "-900",
    }
    names = (*wanted, "ProtectSystem", "ReadWritePaths", "Result")
    assert unit(host, "diting-archive-metrics", *names) == {
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "cap_dac_read_search",
        "ProtectSystem": "strict",
        "ReadWritePaths": "/var/lib/prometheus/node-exporter",
        "Result": "success",
    }


def test_files_have_exactly_these_owners_and_modes(host):
    wanted = {
        "/etc/diting/pki/ca.crt": "644 root:root",
        "/etc/diting/pki/host.crt": "644 root:root",
        "/etc/diting/pki/host.key": "640 root:diting-pki",
        "/etc/diting/pki/ca": "700 root:root",
        "/etc/diting/pki/ca/ca.key": "600 root:root",
        "/etc/etcd/etcdctl.env": "600 root:root",
        "/etc/patroni/patroni.yml": "640 root:postgres",
        "/etc/wal-g/wal-g.json": "600 postgres:postgres",
        "/var/lib/diting/journal": "2770 root:diting-journal",
        "/var/lib/postgresql/15/main": "700 postgres:postgres",
        "/usr/local/bin/wal-g": "755 root:root",
        FIGURES: "644 root:root",
    }
    assert modes(host, *wanted) == wanted


def test_only_these_users_read_the_hosts_key(host):
    assert set(run(host, "getent group diting-pki").strip().split(":")[3].split(",")) == {"etcd", "postgres"}


def test_roles_add_no_setuid_program(host):
    assert not [path for path in suid(host) if not path.startswith(("/usr/bin/", "/usr/sbin/", "/usr/lib/"))]


def test_server_keeps_the_settings_that_recovery_stands_on(host):
    sql = (
        "select json_object_agg(name, setting) from pg_settings where name in "
        "('data_checksums', 'wal_log_hints', 'archive_mode', 'ssl', 'password_encryption', 'full_page_writes')"
    )
    assert json.loads(query(host, sql)) == {
        "data_checksums": "on",
        "wal_log_hints": "on",
        "archive_mode": "always",
        "ssl": "on",
        "password_encryption": "scram-sha-256",
        "full_page_writes": "on",
    }


def test_accounts_are_exactly_these_and_may_exactly_this(host):
    sql = (
        "select json_object_agg(rolname, concat_ws(' ', case when rolsuper then 'super' end, "
        "case when rolreplication then 'replication' end, case when rolcreaterole then 'createrole' end, "
        "case when rolcreatedb then 'createdb' end, case when rolbypassrls then 'bypassrls' end)) "
        "from pg_roles where not starts_with(rolname, 'pg_')"
    )
    assert json.loads(query(host, sql)) == {
        "postgres": "super replication createrole createdb bypassrls",
        "replicator": "replication",
        "rewind": "",
        "diting_app": "",
        "diting_prober": "",
    }


def test_no_password_is_stored_in_a_weak_form(host):
    sql = "select count(*) from pg_authid where rolcanlogin and rolpassword not like 'SCRAM-SHA-256$%'"
    assert query(host, sql).strip() == "0"


def test_network_login_is_by_tls_only_and_never_for_the_clusters_own_accounts(host):
    sql = (
        "select json_agg(json_build_array(type, user_name[1], auth_method) order by line_number) "
        "from pg_hba_file_rules where type <> 'local'"
    )
    rules = json.loads(query(host, sql))
    assert {kind for kind, _, _ in rules} == {"hostssl"}
    assert {method for _, _, method in rules} == {"scram-sha-256", "reject"}
    for name in ("postgres", "replicator", "rewind"):
        done = host.run(f"psql 'host={ADDRESS} user={name} dbname=postgres sslmode=require' -c 'select 1'")
        assert done.rc != 0
    done = host.run(f"psql 'host={ADDRESS} user=diting_app dbname=diting sslmode=disable' -c 'select 1'")
    assert "no pg_hba.conf entry" in done.stderr or "rejects connection" in done.stderr
    done = host.run(f"psql 'host={ADDRESS} user=diting_app dbname=diting sslmode=require' -c 'select 1'")
    assert "client certificate" in done.stderr, done.stderr


def test_etcd_answers_nobody_without_a_certificate(host):
    done = host.run(
        f"env -i PATH=$PATH ETCDCTL_API=3 etcdctl --endpoints https://{ADDRESS}:2379 "
        "--cacert /etc/diting/pki/ca.crt --command-timeout 5s get / --prefix --keys-only"
    )
    assert done.rc != 0
    assert "/service/" not in done.stdout
    plain = host.run(
        f"env -i PATH=$PATH ETCDCTL_API=3 etcdctl --endpoints http://{ADDRESS}:2379 --command-timeout 5s get /"
    )
    assert plain.rc != 0


def test_anybody_may_ask_patroni_and_only_a_certificate_may_order(host):
    assert ask(host, "/primary")[0] == 200
    assert ask(host, "/replica")[0] == 503
    assert ask(host, "/restart", "POST")[0] in (401, 403)
    assert ask(host, "/config", "PATCH")[0] in (401, 403)


def test_the_preset_in_force_is_the_preset_asked_for(host):
    dcs = json.loads(ask(host, "/config")[1])
    assert (dcs["ttl"], dcs["loop_wait"], dcs["retry_timeout"]) == (20, 1, 9)
    assert dcs["failsafe_mode"] is True


def test_role_changes_are_in_the_journal(host):
    lines = journal_lines(host, "/var/lib/diting/journal/patroni.jsonl")
    assert lines
    assert all({"ts", "mono_ns", "source", "event"} <= set(line) for line in lines)
    assert lines[-1]["source"] == "patroni"


def test_a_snapshot_of_etcd_is_taken_from_this_member_alone(host):
    run(host, "rm -f /var/backups/etcd/*")
    run(host, "systemctl start etcd-snapshot.service")
    assert run(host, "ls /var/backups/etcd").split()
    # The administrator's environment names every member, which etcdctl refuses for a snapshot.
    line = run(host, "systemctl show etcd-snapshot.service --property=ExecStart")
    assert "ETCDCTL_ENDPOINTS=https://127.0.0.1:2379 " in line


def test_there_is_a_full_backup_and_wal_arrives(host):
    listed = run(host, "runuser -u postgres -- wal-g --config /etc/wal-g/wal-g.json backup-list 2>&1")
    assert listed.count("base_") == 1, listed
    sql = "select pg_logical_emit_message(true, 'molecule', 'x'); select pg_walfile_name(pg_switch_wal())"
    segment = query(host, sql).split()[-1]
    deadline = time.monotonic() + 60
    while query(host, "select coalesce(last_archived_wal, '') from pg_stat_archiver").strip() < segment:
        assert time.monotonic() < deadline, query(host, "select * from pg_stat_archiver")


def figures(host, file: str = FIGURES) -> dict[str, float]:
    """What waits to be archived, by the name of the figure."""
    lines = run(host, f"grep ^diting_archive_ {file}").splitlines()
    assert all('{cluster="diting"} ' in line for line in lines), lines
    return {line.partition("{")[0].removeprefix("diting_archive_"): float(line.split()[-1]) for line in lines}


def test_what_waits_to_be_archived_is_counted_by_the_timer(host):
    now = float(run(host, "date +%s"))
    deadline = time.monotonic() + 75
    while not (found := figures(host)).get("looked_timestamp_seconds", 0) > now:
        assert time.monotonic() < deadline, (found, run(host, "journalctl -u diting-archive-metrics -n 20"))
    assert set(found) == {
        "could_not_look",
        "looked_timestamp_seconds",
        "waiting_files",
        "waiting_bytes",
        "oldest_waiting_seconds",
    }
    assert found["could_not_look"] == 0
    # PostgreSQL does not take it for a file of its own: it waits until it is removed.
    mark = "/var/lib/postgresql/15/main/pg_wal/archive_status/molecule.ready"
    run(host, f"cd /; runuser -u postgres -- touch -d '10 minutes ago' {mark}")
    try:
        run(host, "systemctl start diting-archive-metrics.service")
        found = figures(host)
        assert found["waiting_files"] >= 1
        assert found["oldest_waiting_seconds"] >= 600
    finally:
        run(host, f"rm -f {mark}; systemctl start diting-archive-metrics.service")
    assert figures(host)["oldest_waiting_seconds"] < 600


def test_a_look_that_fails_is_told_and_is_no_figure_of_nothing(host):
    unit_says = run(host, "systemctl show diting-archive-metrics -p ExecStart --value")
    command = unit_says.partition("argv[]=")[2].partition(" ;")[0]
    elsewhere = "/run/molecule.prom"
    done = host.run(command.replace("/15/main", "/15/none").replace(FIGURES, elsewhere))
    try:
        assert done.rc == 2, done
        assert "/var/lib/postgresql/15/none: found No such file or directory; wanted " in done.stderr
        assert figures(host, elsewhere) == {"could_not_look": 1}
    finally:
        run(host, f"rm -f {elsewhere}")


def test_what_is_dropped_is_written_down_with_its_transaction(host):
    xid = query(
        host,
        "\\c diting\ncreate table molecule_gone (n int);\nbegin; drop table molecule_gone; select pg_current_xact_id()::xid; commit",
    ).split()[-1]
    noted = query(host, "\\c diting\nselect relation, xid from diting_drops.dropped order by at desc limit 1")
    assert noted.split()[-1] == f"public.molecule_gone|{xid}"


def test_the_installed_wal_g_says_what_it_is(host):
    record = json.loads(run(host, "cat /etc/wal-g/installed.json"))
    assert record["sha256"] == run(host, "sha256sum /usr/local/bin/wal-g").split()[0]
    assert record["version"] in run(host, "wal-g --version 2>&1").split()


@pytest.mark.parametrize(
    ("role", "variables", "named"),
    [
        (
            "patroni",
            {"patroni_presets": {"default": {"ttl": 20, "loop_wait": 5, "retry_timeout": 9}}},
            "loop_wait",
        ),
        ("patroni", {"patroni_preset": "quick"}, "quick"),
        ("patroni", {"patroni_superuser_password": ""}, "patroni_superuser_password"),
        ("etcd", {"etcd_heartbeat_interval_ms": 5}, "etcd_heartbeat_interval_ms"),
        ("etcd", {"etcd_hosts": ["db1", "db2"]}, "etcd_hosts"),
        ("walg", {"walg_install_method": "release"}, "walg_release_sha256"),
        ("walg", {"walg_settings": {"WALG_LIBSODIUM_KEYS": "x"}}, "WALG_LIBSODIUM_KEYS"),
        ("walg", {"walg_encryption": "pgp"}, "no copy in escrow"),
        (
            "walg",
            {
                "walg_encryption": "pgp",
                "walg_pgp_key": "-----BEGIN PGP PRIVATE KEY BLOCK-----",
                "walg_pgp_escrow_sha256": KEY_SHA256,
            },
            "one way for one archive",
        ),
        ("postgresql", {"postgresql_networks": []}, "postgresql_networks"),
    ],
    ids=[
        "timing",
        "preset",
        "password",
        "heartbeat",
        "two members",
        "no checksum",
        "unknown setting",
        "no escrow",
        "encryption begun late",
        "no network",
    ],
)
def test_a_wrong_variable_is_refused_by_name_before_anything_changes(role, variables, named):
    has_to_be_refused(role, variables, named)


def test_verify_sees_that_nobody_counts_what_waits(host):
    timer = "diting-archive-metrics.timer"
    done = verify_while(host, f"systemctl stop {timer}", mended=f"systemctl start {timer}")
    assert done.returncode != 0
    assert "Figures of archiving of db1: found the timer inactive" in done.stdout


def test_verify_sees_what_is_broken(host):
    done = verify_while(
        host, "chmod 0644 /etc/diting/pki/host.key", mended="chmod 0640 /etc/diting/pki/host.key"
    )
    assert done.returncode != 0
    assert "host.key" in done.stdout
