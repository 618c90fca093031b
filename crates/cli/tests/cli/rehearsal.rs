//! `flow test`: shipped workflows hold, and what doesn't hold is told.

use std::net::TcpListener;

use serde_json::Value;

use crate::support::Place;

/// A workflow of one command on `web1`.
fn one(place: &Place, with: &str) {
    let text = format!(
        "name = \"one\"\nsummary = \"One command.\"\n[steps.it]\nuses = \"command\"\nhosts = \"web1\"\nwith = {{ {with} }}\n"
    );
    place.file("one.toml", &text);
}

/// The point and what came of it, of each failure.
fn failures(document: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    document["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (text(&it["point"]), text(&it["what"])))
        .collect()
}

#[test]
fn every_shipped_workflow_holds_and_its_report_tells_each_step() {
    let place = Place::new();
    std::fs::remove_file(place.path("inventory.ini")).unwrap();
    let shipped = place.flow("workflows --output json").exits(0).document();
    let names: Vec<String> =
        shipped.as_array().unwrap().iter().map(|it| it["file"].as_str().unwrap().to_owned()).collect();
    assert!(
        names.iter().any(|name| name == "deploy.toml") && !names.iter().any(|name| name.contains(".test"))
    );
    for name in names {
        // Takes longer than any other command, so it isn't called hung.
        let ran = place.command(&format!("test {name} --output json")).output().unwrap();
        let told = String::from_utf8(ran.stdout).unwrap();
        assert!(ran.status.success(), "{name}:\n{told}\n{}", String::from_utf8_lossy(&ran.stderr));
        let report: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(report["verdict"], "held", "{name}");
        // One that only looks has nothing to be disturbed at.
        let only_looks = ["diagnose.toml", "verify.toml"].contains(&name.as_str());
        assert_eq!(report["cases"].as_u64().unwrap() == 0, only_looks, "{name}: what was disturbed");
        for step in report["steps"].as_array().unwrap() {
            let changed = step["changed"].as_u64().unwrap();
            assert_eq!(step["again"] != "not_tried", changed > 0, "{name}: {step}");
        }
        // A copy stays, what was removed is gone, and clients have come in.
        if only_looks || ["etcd-snapshot.toml", "open.toml", "set-aside.toml"].contains(&name.as_str()) {
            continue;
        }
        assert_eq!(report["taken_back"]["held"], true, "{name}: {}", report["taken_back"]);
        let undo = |wanted: &str| -> Vec<String> {
            let steps = report["steps"].as_array().unwrap().iter().filter(|step| step["undo"] == wanted);
            steps.map(|step| step["step"].as_str().unwrap().to_owned()).collect()
        };
        match name.as_str() {
            "deploy.toml" => {
                let exact = [
                    "no-automatic-cluster",
                    "etcd-configuration",
                    "patroni-configuration",
                    "haproxy-ca",
                    "haproxy-configuration",
                    "haproxy-running",
                    "keepalived-script",
                    "keepalived-configuration",
                    "keepalived-running",
                ];
                assert_eq!(undo("exact"), exact);
                assert_eq!(undo("leaves"), ["etcd-running", "patroni-running"]);
                let kept = [
                    "packages",
                    "authority",
                    "certificate-directory",
                    "certificate",
                    "etcd-certificate-directory",
                    "etcd-certificate",
                    "data-parent",
                    "balancer-packages",
                    "verified/canary-written",
                ];
                assert_eq!(undo("kept"), kept);
            }
            "system-id-recovery.toml" => {
                assert_eq!(report["taken_back"]["before"], "start-others@db3");
                assert_eq!(undo("exact"), ["saved", "stop-replicas", "set-aside"]);
            }
            _ => {}
        }
    }
}

#[test]
fn a_reset_is_rehearsed_up_to_where_it_can_be_taken_back_and_past_it() {
    let place = Place::new();
    std::fs::remove_file(place.path("inventory.ini")).unwrap();
    let ran = place.command("test system-id-recovery.toml --set mode=reset --output json").output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&report["verdict"], &report["taken_back"]["before"]), (&"held".into(), &"purge@db1".into()));
    let undo = |step: &str| {
        let steps = report["steps"].as_array().unwrap();
        steps.iter().find(|one| one["step"] == step).unwrap()["undo"].clone()
    };
    assert_eq!((undo("set-aside"), undo("start-first")), ("exact".into(), "past_pivot".into()));
}

#[test]
fn the_removal_of_what_holds_nothing_is_rehearsed_too() {
    let place = Place::new();
    std::fs::remove_file(place.path("inventory.ini")).unwrap();
    let rehearse = "test system-id-recovery.toml --set remove_disposable=db3 --output json";
    let ran = place.command(rehearse).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(report["verdict"], "held");
    assert_eq!(report["taken_back"]["before"], "disposable-removed@db3");
}

#[test]
fn a_step_that_is_not_as_before_when_it_is_taken_back_is_told_and_can_be_accepted() {
    let place = Place::new();
    one(
        &place,
        "script = \"touch /root/log && touch /root/made\", creates = \"/root/made\", undo = \"rm -f /root/made\"",
    );
    let ran = place.flow("test one.toml").exits(1);
    insta::assert_snapshot!(ran);
    place.file("one.test.toml", "[accept]\nundo = [\"it\"]\n");
    place.flow("test one.toml").exits(0);
    place.flow("test one.toml --only it@web1/undo-after-effect").exits(0);
}

#[test]
fn a_workflow_that_unwinds_must_leave_the_hosts_as_before_by_itself() {
    let place = Place::new();
    let text = |undo: &str| {
        format!(
            "name = \"two\"\nsummary = \"Two files.\"\non_failure = \"unwind\"\n\
             [steps.first]\nuses = \"command\"\nhosts = \"web1\"\n\
             with = {{ script = \"touch /root/a && touch /root/b\", creates = \"/root/b\", undo = \"{undo}\" }}\n\
             [steps.second]\nuses = \"file\"\nneeds = [\"first\"]\nhosts = \"web1\"\n\
             with = {{ path = \"/root/c\", content = \"c\" }}\n"
        )
    };
    place.file("two.toml", &text("rm -f /root/a && rm -f /root/b"));
    place.flow("test two.toml").exits(0);
    place.file("two.toml", &text("rm -f /root/b"));
    let report = place.flow("test two.toml --only second --output json").exits(1).document();
    let failures = failures(&report);
    let (point, what) = &failures[0];
    assert_eq!(
        (point.as_str(), what.as_str()),
        ("fails-1", "the run has taken itself back, and the hosts are not as before")
    );
}

#[test]
fn on_the_other_release_and_on_a_deployed_cluster_it_holds_too() {
    let place = Place::new();
    std::fs::remove_file(place.path("inventory.ini")).unwrap();
    // Both take longer than other commands, so they aren't called hung.
    let test = |line: &str| {
        let ran = place.command(&format!("test deploy.toml {line} --output json")).output().unwrap();
        assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stdout));
        serde_json::from_slice::<Value>(&ran.stdout).unwrap()
    };
    assert_eq!(test("--release trixie --only patroni-running")["verdict"], "held");
    // Deployed already: there is nothing to do, so nothing can be disturbed.
    let report = test("--deployed");
    assert_eq!((report["changed"].as_u64(), report["cases"].as_u64()), (Some(0), Some(0)));
}

#[test]
fn a_step_that_does_something_each_time_is_told_with_what_it_changed_the_second_time() {
    let place = Place::new();
    one(&place, "script = \"echo more >> /root/log\", unless = \"false\"");
    let ran = place.flow("test one.toml").exits(1);
    insta::assert_snapshot!(ran);
    let again = place.flow("test one.toml --only it@web1/again --output json").exits(1).document();
    assert_eq!(again["cases"], 1);
    assert_eq!(again["failures"][0]["task"], "it@web1");
    assert!(!place.has("log"));
}

#[test]
fn a_command_that_says_it_is_repeatable_must_come_to_the_same_end_when_it_is_repeated() {
    let place = Place::new();
    one(&place, "script = \"mkdir -p /root/there\", repeatable = true");
    let report = place.flow("test one.toml --output json").exits(0).document();
    assert_eq!(report["steps"][0]["again"], "each_time");
    one(&place, "script = \"echo more >> /root/log\", repeatable = true");
    let report = place.flow("test one.toml --output json").exits(1).document();
    let points: Vec<String> = failures(&report).into_iter().map(|(point, _)| point).collect();
    assert_eq!(points, ["after-effect", "again", "answer-lost-1"]);
}

#[test]
fn what_a_person_must_settle_is_told_and_can_be_accepted() {
    let place = Place::new();
    one(&place, "script = \"touch /root/made\"");
    place.file("one.test.toml", "[accept]\nnot_idempotent = [\"it\"]\n");
    let ran = place.flow("test one.toml").exits(4);
    insta::assert_snapshot!(ran);
    place.file("one.test.toml", "[accept]\nnot_idempotent = [\"it\"]\nunknown = [\"it\"]\n");
    let report = place.flow("test one.toml --output json").exits(0).document();
    assert_eq!((&report["verdict"], &report["unknown"][0]["accepted"]), (&"held".into(), &true.into()));
}

#[test]
fn a_command_that_the_simulation_does_not_know_is_told_with_the_lines_to_add() {
    let place = Place::new();
    one(&place, "script = \"make-backup --all\", check = \"backup-is-there\"");
    let ran = place.flow("test one.toml").exits(3);
    insta::assert_snapshot!(ran);
    // The lines, and what the author knows of the commands.
    place.file(
        "one.test.toml",
        "[[commands]]\nrun = \"make-backup --all\"\ncreates = \"/var/backups/all\"\n\
         [[commands]]\nrun = \"backup-is-there\"\nwhere_absent = \"/var/backups/all\"\nexit = 1\n\
         [[commands]]\nrun = \"backup-is-there\"\n",
    );
    let report = place.flow("test one.toml --output json").exits(0).document();
    assert_eq!(report["steps"][0]["again"], "nothing");
}

#[test]
fn a_wrong_test_file_and_a_case_that_is_not_there_are_refused() {
    let place = Place::new();
    one(&place, "script = \"touch /root/made\", creates = \"/root/made\"");
    place.file("one.test.toml", "relase = \"trixie\"\n");
    place.flow("test one.toml").exits(3).says("one.test.toml, line 1: unknown field `relase`");
    place.file("one.test.toml", "");
    place.flow("test one.toml --only it@web2").exits(3).says("there is no case `it@web2`").says("it@web1");
    place.flow("test one.toml").exits(0);
}

#[test]
fn a_workflow_that_fails_even_undisturbed_is_told_so() {
    let place = Place::new();
    one(&place, "script = \"cat /no/such\", repeatable = true");
    place.flow("test one.toml").exits(3).says("even undisturbed").says("/no/such: No such file or directory");
}

#[test]
fn no_host_is_contacted_and_no_socket_is_opened() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    place.file(
        "real.ini",
        &format!("[web]\nweb1 ansible_host=127.0.0.1 ansible_port={port} ansible_user=root\n"),
    );
    let many: String = (0..12)
        .map(|n| format!("[steps.s{n}]\nuses = \"command\"\nhosts = \"web\"\nwith = {{ script = \"touch /root/{n}\", creates = \"/root/{n}\" }}\n"))
        .collect();
    place.file("many.toml", &format!("name = \"many\"\nsummary = \"Many.\"\n{many}"));
    let mut child = place.command("test many.toml -i real.ini").spawn().unwrap();
    let mut looks = 0;
    while child.try_wait().unwrap().is_none() {
        let sockets = internet_sockets(child.id());
        assert!(sockets.is_empty(), "{sockets:?}");
        looks += 1;
    }
    assert!(child.wait().unwrap().success() && looks > 0);
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody has called");
}

/// The inodes of a process's TCP and UDP sockets.
fn internet_sockets(pid: u32) -> Vec<String> {
    let tables = ["tcp", "tcp6", "udp", "udp6"]
        .map(|name| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default());
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let inode = |entry: std::fs::DirEntry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    let of_internet = |inode: &String| {
        tables.iter().any(|table| table.lines().any(|line| line.split_whitespace().nth(9) == Some(inode)))
    };
    links.filter_map(inode).filter(of_internet).collect()
}
