//! Whether a data directory may be hidden: its file system isn't mounted.

use flow_core::step::StepError;

use crate::host::Host;

/// The longest list of mounts that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// systemd's units of kind mount, also those that are not mounted: three lines for each.
const UNITS: &str = "systemctl show --all -p Where -p LoadState -p ActiveState '*.mount'";

/// Why what is at the data directory may not be all: a file system that should be there, or above it, by `/etc/fstab` or a
/// mount unit of systemd, isn't mounted. The data may be on it.
pub(super) async fn unmounted(host: &dyn Host, directory: &str) -> Result<Option<String>, StepError> {
    let (table, mounts, units) = tokio::try_join!(
        host.read("/etc/fstab", LIMIT),
        host.read("/proc/mounts", LIMIT),
        host.probe(UNITS)
    )?;
    let text = |bytes: Option<Vec<u8>>| String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
    Ok(hidden(directory, &text(table), &text(mounts), &units.text()))
}

/// The file system that a directory lies on, where that isn't the root's.
pub(super) async fn mounted_on(host: &dyn Host, directory: &str) -> Result<Option<String>, StepError> {
    let mounts = host.read("/proc/mounts", LIMIT).await?.unwrap_or_default();
    Ok(below(directory, &String::from_utf8_lossy(&mounts)))
}

fn below(directory: &str, mounts: &str) -> Option<String> {
    let rows = mounts.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?, words.next()?))
    });
    let (device, place, kind) =
        rows.filter(|(_, place, _)| holds(place, directory)).max_by_key(|(_, place, _)| place.len())?;
    Some(format!("{place} ({kind}, {device})"))
}

fn holds(place: &str, directory: &str) -> bool {
    place != "/" && format!("{directory}/").starts_with(&format!("{}/", place.trim_end_matches('/')))
}

fn hidden(directory: &str, table: &str, mounts: &str, units: &str) -> Option<String> {
    let mounted = places(mounts);
    let missing = |place: &&str| holds(place, directory) && !mounted.contains(&place.trim_end_matches('/'));
    let table: Vec<&str> = table.lines().filter(|line| !line.contains("noauto")).collect();
    if let Some(place) = places(&table.join("\n")).into_iter().find(missing) {
        return Some(format!("/etc/fstab has {place}, and nothing is mounted there"));
    }
    let unit = waiting(units).into_iter().find(missing);
    unit.map(|place| format!("a mount unit of systemd has {place}, and nothing is mounted there"))
}

/// The second word of each line: where something is mounted.
fn places(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().nth(1)).collect()
}

/// The places of units that are there and not active. One that is only named by another (`not-found`) mounts nothing.
fn waiting(units: &str) -> Vec<&str> {
    units
        .split("\n\n")
        .filter(|unit| unit.contains("LoadState=loaded") && !unit.contains("ActiveState=active"))
        .filter_map(|unit| unit.lines().find_map(|line| line.strip_prefix("Where=")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str = "/var/lib/postgresql/15/main";

    #[test]
    fn a_file_system_that_should_be_there_and_is_not_hides_what_lies_on_it() {
        let table = "# /dev/sdb /var/lib ext4\n/dev/sda1 / ext4\n/dev/sdb1 /var/lib/postgresql ext4 nofail\n";
        let why = "/etc/fstab has /var/lib/postgresql, and nothing is mounted there";
        assert_eq!(hidden(DATA, table, "/dev/sda1 / ext4\n", "").as_deref(), Some(why));
        assert_eq!(hidden(DATA, table, "/dev/sdb1 /var/lib/postgresql ext4\n", ""), None);
        assert_eq!(hidden("/srv/pg", table, "", ""), None, "it lies elsewhere");
        assert_eq!(hidden("/var/lib/postgresql2/main", table, "", ""), None);
    }

    #[test]
    fn the_nearest_file_system_above_is_told_and_the_root_s_is_not() {
        let mounts = "/dev/sda1 / ext4 rw 0 0\n/dev/sdb1 /var/lib xfs rw 0 0\n/dev/sdc1 /var/lib/postgresql ext4 rw 0 0\n";
        assert_eq!(below(DATA, mounts).as_deref(), Some("/var/lib/postgresql (ext4, /dev/sdc1)"));
        assert_eq!(below("/var/lib/x", mounts).as_deref(), Some("/var/lib (xfs, /dev/sdb1)"));
        assert_eq!(below("/srv/pg", mounts), None);
    }

    #[test]
    fn so_does_a_mount_unit_that_is_not_active() {
        let unit = |load: &str, active: &str| {
            format!(
                "Where=/boot\nLoadState=loaded\nActiveState=active\n\nWhere=/var/lib/postgresql\nLoadState={load}\nActiveState={active}\n"
            )
        };
        let of = |load, active| hidden(DATA, "", "", &unit(load, active));
        let why = "a mount unit of systemd has /var/lib/postgresql, and nothing is mounted there";
        for state in ["failed", "inactive", "activating"] {
            assert_eq!(of("loaded", state).as_deref(), Some(why), "{state}");
        }
        assert_eq!(of("loaded", "active"), None);
        assert_eq!(of("not-found", "inactive"), None, "only named by another unit");
    }
}
