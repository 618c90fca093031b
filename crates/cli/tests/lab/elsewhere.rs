//! No room beside it: what is set aside goes to another file system of its host, and is proven to be there before it is removed here.

use crate::harness::{Lab, Operator, PROMOTERS};
use crate::page::{ELSEWHERE, page};

#[test]
fn what_is_set_aside_goes_to_another_file_system_whole_and_nowhere_else() {
    let (lab, broken) = Lab::broken();
    let operator = Operator::new(&lab);
    let leader = lab.key("/service/demo/leader");
    let data = lab.on(
        &broken,
        "mkdir /mnt/big && mount -t tmpfs tmpfs /mnt/big; ls -d /var/lib/postgresql/[0-9]*/main",
    );
    let run = |place: &str| {
        let (host, path) = place.split_once(':').unwrap();
        page(&operator, ELSEWHERE, &[("HOST", host), ("PATH", path), ("SCOPE", "demo")])
    };
    let footprint = lab.footprint(Some(&broken));
    run(&format!("{leader}:/mnt/big")).ended(1).says(&["another host isn't possible"]);
    run(&format!("{broken}:/srv")).ended(1).says(&["nothing would be gained there"]);
    run(&format!("{broken}:/mnt/none")).ended(1).says(&["there is no directory /mnt/none"]);
    assert_eq!(lab.footprint(Some(&broken)), footprint);

    let content = "find . -type f ! -name postmaster.opts -print0 | sort -z | xargs -0 sha256sum | sha256sum";
    // Patroni's own attempts to start write nothing into it: the identifier stops them before.
    lab.on(&broken, "systemctl stop patroni.service");
    let was = lab.on(&broken, &format!("cd {data} && {content}"));
    run(&format!("{broken}:/mnt/big")).ended(0).says(&["/mnt/big/main.set-aside-"]);
    lab.wait_healthy();
    assert_eq!(lab.on(&broken, &format!("cd /mnt/big/main.set-aside-* && {content}")), was);
    assert_eq!(
        lab.on(&broken, &format!("ls -d {data}.set-aside-* | grep -v json || true")),
        "",
        "the original is gone"
    );
    assert!(
        lab.on(&broken, &format!("cat {data}.set-aside-*.flow.json"))
            .contains("\"now\": \"/mnt/big/main.set-aside-")
    );
    let listed = operator.flow(&["run", "set-aside.toml"]).ended(0);
    listed.says(&[&format!("{broken}:/mnt/big/main.set-aside-"), "on another file system"]);
    for host in PROMOTERS.into_iter().filter(|host| *host != broken) {
        assert_eq!(lab.on(host, "ls -d /var/lib/postgresql/*/main*"), data);
    }
}

/// What is offered where nobody has another file system either.
#[test]
fn what_is_proven_to_hold_nothing_is_removed_where_there_is_no_room_and_nowhere_else() {
    let (lab, broken) = Lab::broken();
    let operator = Operator::new(&lab);
    let leader = lab.key("/service/demo/leader");
    let data = lab.on(&broken, "ls -d /var/lib/postgresql/[0-9]*/main");
    // A file system with room for the clone once the present data is gone, and not before.
    let parent = data.rsplit_once('/').unwrap().0;
    let kept = lab.on(&leader, &format!("du -sxB1 {data} | cut -f1"));
    lab.on(
        &broken,
        &format!(
            "set -e; systemctl stop patroni.service; head -c 256M /dev/zero >{data}/ballast; chown postgres: {data}/ballast
             own=$(du -sxB1 {data} | cut -f1); mv {parent} {parent}.moved; mkdir {parent}
             mount -t tmpfs -o size=$(({kept} + (512 << 20) + own / 2)) tmpfs {parent}
             chown postgres: {parent}; cp -a {parent}.moved/main {parent}/; rm -r {parent}.moved"
        ),
    );
    let footprint = lab.footprint(Some(&broken));
    let recover = |set: &[&str]| {
        let mut words = vec!["run", "system-id-recovery.toml", "--confirm", "demo"];
        words.extend(set.iter().flat_map(|set| ["--set", set]));
        operator.flow(&words)
    };
    let offered = format!("--set remove_disposable={broken}");
    recover(&[]).ended(1).says(&["the clone needs", "proven to hold no relation of a user", &offered]);
    recover(&[&format!("remove_disposable={leader}")])
        .ended(1)
        .says(&["removed is only what is proven to hold nothing"]);
    recover(&[&format!("remove_disposable={broken}"), "mode=reset"])
        .ended(1)
        .says(&["A reset keeps everything"]);
    assert_eq!(lab.footprint(Some(&broken)), footprint);

    recover(&[&format!("remove_disposable={broken}")]).ended(0).says(&["which held nothing and was removed"]);
    lab.wait_healthy();
    assert_eq!(lab.on(&broken, &format!("ls -d {data}.set-aside-* 2>/dev/null || true")), "");
    for host in PROMOTERS.into_iter().filter(|host| *host != broken) {
        assert_eq!(lab.on(host, "ls -d /var/lib/postgresql/*/main*"), data);
    }
}
