//! How large a data directory is, and how much room there is beside it.

use flow_core::step::StepError;

use crate::host::{Host, quote};

/// The least that must stay free beside a clone, in bytes: WAL that is written while it is made.
const LEAST_RESERVE: u64 = 512 << 20;

/// Bytes of a data directory with what its `pg_wal` link and its tablespace links point to. Counting a big one takes long: after
/// some seconds all that its file system holds is taken for it. `None`: it can't be told.
pub(crate) async fn size(host: &dyn Host, data_dir: &str) -> Result<Option<u64>, StepError> {
    let dir = quote(data_dir);
    let counted = host.probe(&format!("timeout 5 du -sxB1 -- {dir}")).await?;
    // It fails, and counts all the same, where a file goes away meanwhile; out of time it says nothing.
    let Some(own) = first_number(&counted.text()) else {
        let used = host.probe(&format!("df -B1 --output=used -- {dir}")).await?;
        return Ok(last_number(&used.text()).filter(|_| used.success()));
    };
    let mut sum = own;
    for link in super::moves::links(host, data_dir).await? {
        let counted = host.probe(&format!("timeout 5 du -sxB1 -- {}", quote(&link.1))).await?;
        let Some(more) = first_number(&counted.text()) else { return Ok(None) };
        sum = sum.saturating_add(more);
    }
    Ok(Some(sum))
}

/// Bytes that are free where a new data directory would be made.
pub(crate) async fn free(host: &dyn Host, data_dir: &str) -> Result<Option<u64>, StepError> {
    let parent = data_dir.rsplit_once('/').map_or("/", |(parent, _)| parent);
    let reply = host.probe(&format!("df -B1 --output=avail -- {}", quote(parent))).await?;
    Ok(last_number(&reply.text()).filter(|_| reply.success()))
}

/// What must stay free beside a clone of so many bytes: a tenth, and 512 MiB at least.
pub(crate) fn reserve(bytes: u64) -> u64 {
    (bytes / 10).max(LEAST_RESERVE)
}

/// `1.5 GiB`
pub(crate) fn in_words(bytes: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", bytes / unit, bytes % unit * 10 / unit);
    match bytes {
        0..0x4000_0000 => format!("{} MiB", tenths(1 << 20)),
        0x4000_0000..0x100_0000_0000 => format!("{} GiB", tenths(1 << 30)),
        _ => format!("{} TiB", tenths(1 << 40)),
    }
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn last_number(text: &str) -> Option<u64> {
    text.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_in_the_unit_that_people_use() {
        assert_eq!(in_words(512 << 20), "512.0 MiB");
        assert_eq!(in_words((3 << 30) + (1 << 29)), "3.5 GiB");
        assert_eq!(in_words(5 << 40), "5.0 TiB");
    }

    #[test]
    fn the_reserve_grows_with_the_data() {
        assert_eq!((reserve(1 << 30), reserve(100 << 30)), (512 << 20, 10 << 30));
    }
}
