//! Whether anything of a user is in a data directory, told from its files alone.
//!
//! PostgreSQL gives objects of users numbers from 16384 on (`transam.h`, `FirstNormalObjectId`), and files are named by them. A
//! catalog that was rewritten has such a number too, so this errs to the side of caution.

use flow_core::step::StepError;
use futures_util::future::try_join_all;

use crate::host::Host;

/// The first number of what isn't PostgreSQL's own.
const FIRST: u64 = 16384;
/// The catalog of large objects: rows of users in a file of PostgreSQL's own.
const LARGE_OBJECTS: &str = "2613";

/// True where a database, a tablespace, a relation or a large object of a user may be there. `None`: it can't be told.
///
/// Of a server that was not shut down in order this says little: its newest files may be in its WAL alone.
pub(crate) async fn user_data(host: &dyn Host, data_dir: &str) -> Result<Option<bool>, StepError> {
    let (base, tablespaces) = (format!("{data_dir}/base"), format!("{data_dir}/pg_tblspc"));
    let (databases, tablespaces) = tokio::try_join!(host.list(&base), host.list(&tablespaces))?;
    let (Some(databases), Some(tablespaces)) = (databases, tablespaces) else { return Ok(None) };
    if !tablespaces.is_empty() || databases.iter().any(|name| is_users(name)) {
        return Ok(Some(true));
    }
    let folders: Vec<String> = databases.iter().map(|name| format!("{base}/{name}")).collect();
    let files = try_join_all(folders.iter().map(|folder| host.list(folder))).await?;
    if files.iter().flatten().flatten().any(|name| is_users(name)) {
        return Ok(Some(true));
    }
    let large: Vec<String> = folders.iter().map(|folder| format!("{folder}/{LARGE_OBJECTS}")).collect();
    let large = try_join_all(large.iter().map(|path| host.stat(path))).await?;
    Ok(Some(large.iter().flatten().any(|stat| stat.size > 0)))
}

/// Its name begins with a number of a user's object: `16385`, `16385_fsm`, `16385.1`.
fn is_users(name: &str) -> bool {
    let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
    digits.parse::<u64>().is_ok_and(|number| number >= FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DATA, Lab};
    use serde_json::json;

    async fn with(paths: &[(&str, &str)]) -> Option<bool> {
        let lab = Lab::deployed().await;
        for (path, content) in paths {
            let path = format!("{DATA}/{path}");
            lab.make("patroni3", "file", json!({ "path": path, "content": content, "parents": true })).await;
        }
        user_data(&*lab.world.host("patroni3"), DATA).await.unwrap()
    }

    #[tokio::test]
    async fn a_database_a_relation_a_tablespace_or_a_large_object_is_a_user_s() {
        assert_eq!(with(&[]).await, Some(false));
        assert_eq!(
            with(&[("base/5/1259", "x"), ("base/5/1259_fsm", "x"), ("base/5/PG_VERSION", "15")]).await,
            Some(false)
        );
        assert_eq!(with(&[("base/5/2613", "")]).await, Some(false));
        for users in ["base/16384/1259", "base/5/16385", "base/5/16385_vm", "base/5/2613", "pg_tblspc/16390"]
        {
            assert_eq!(with(&[(users, "x")]).await, Some(true), "{users}");
        }
    }

    #[tokio::test]
    async fn where_no_directory_is_nothing_is_known() {
        let lab = Lab::bare().await;
        assert_eq!(user_data(&*lab.world.host("patroni1"), DATA).await.unwrap(), None);
    }
}
